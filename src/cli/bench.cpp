#include <fmt/format.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/object.hpp>
#include <charconv>
#include <cstdio>
#include <map>
#include <rqxx/batch.hpp>
#include <rqxx/json.hpp>
#include <rqxx/monitor.hpp>
#include <rqxx/queue.hpp>
#include <rqxx/worker.hpp>

#include "base/task_group.hpp"
#include "cli/commands.hpp"
#include "runtime/embedded_redis.hpp"

namespace rqxx::cli {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr std::string_view queue_name = "rqxx-bench";

struct Figures {
    double enqueue_many = 0, enqueue_batch = 0, enqueue_one = 0, process = 0;  ///< Jobs per second.
    double latency_p50 = 0, latency_p95 = 0, latency_p99 = 0;                  ///< Milliseconds.
};

double per_second(std::size_t jobs, Clock::duration time) {
    return static_cast<double>(jobs) / Seconds(time).count();
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

std::int64_t monotonic_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch())
        .count();
}

// ---- the worker of the latency measurement ------------------------------------------------------

/// A worker in a process of its own, as in life; it reports how long each job has waited.
///
/// The clock is CLOCK_MONOTONIC, which all processes of a machine share. Created while this process
/// has a single thread and no connection. Packets: a Redis URL starts a worker, the next packet
/// stops it; it answers with eight bytes per job, and with one byte when it has signed off.
class WorkerProcess {
public:
    explicit WorkerProcess(const CommonOptions& common) {
        int ends[2];
        if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
            throw Error(Errc::io, "cannot make a socket pair");
        std::fflush(nullptr);
        pid_ = ::fork();
        if (pid_ == 0) {
            ::close(ends[0]);
            serve(ends[1], common);
        }
        ::close(ends[1]);
        socket_ = ends[0];
        if (pid_ < 0) {
            ::close(socket_);
            throw Error(Errc::io, "cannot start a process");
        }
    }
    ~WorkerProcess() {
        ::close(socket_);
        ::waitpid(pid_, nullptr, 0);
    }
    WorkerProcess(const WorkerProcess&) = delete;
    WorkerProcess& operator=(const WorkerProcess&) = delete;

    void start(std::string_view url) const { send(url); }

    /// Takes the reports that have come, in nanoseconds.
    void collect(std::vector<std::int64_t>& waits) {
        std::int64_t wait = 0;
        for (;;) {
            const auto size = ::recv(socket_, &wait, sizeof wait, MSG_DONTWAIT);
            if (size == sizeof wait)
                waits.push_back(wait);
            else if (size == 1)
                stopped_ = true;
            else if (size < 0)
                return;
            else
                throw Error(Errc::internal, "the process of the latency measurement ended");
        }
    }

    asio::awaitable<void> stop(Event& pause) {
        send(".");
        stopped_ = false;
        std::vector<std::int64_t> ignored;
        for (int i = 0; i < 2000 && !stopped_; ++i) {
            co_await pause.wait(5ms);
            collect(ignored);
        }
    }

private:
    void send(std::string_view packet) const {
        if (::send(socket_, packet.data(), packet.size(), MSG_NOSIGNAL) < 0)
            throw Error(Errc::internal, "the process of the latency measurement ended");
    }

    [[noreturn]] static void serve(int socket, CommonOptions common) {
        char url[4096];
        for (;;) {
            pollfd ready{
                .fd = socket, .events = POLLIN, .revents = 0};  // Asio made it non-blocking.
            ::poll(&ready, 1, -1);
            const auto size = ::recv(socket, url, sizeof url, 0);
            if (size <= 0) ::_exit(0);
            common.redis_url.assign(url, static_cast<std::size_t>(size));
            try {
                with_redis(common,
                           [&](RedisClient& redis, Logger&) { return work(redis, socket); });
            } catch (const std::exception& error) {
                fmt::print(stderr, "rqxx: {}\n", error.what());
                ::_exit(1);
            }
            ::send(socket, ".", 1, MSG_NOSIGNAL);
        }
    }

    static asio::awaitable<int> work(RedisClient& redis, int socket) {
        HandlerRegistry handlers;
        handlers.add("bench.latency", [socket](std::int64_t sent) {
            const std::int64_t wait = monotonic_ns() - sent;
            ::send(socket, &wait, sizeof wait, MSG_NOSIGNAL);
        });
        WorkerOptions options;
        const std::string name(queue_name);
        options.queues = {name + "-high", name, name + "-low"};
        Worker worker(redis, handlers, options, null_logger());
        TaskGroup tasks(redis.executor());
        tasks.spawn("worker", run_worker(worker));
        asio::posix::stream_descriptor stream(redis.executor(), ::dup(socket));
        co_await stream.async_wait(asio::posix::descriptor_base::wait_read, asio::use_awaitable);
        char packet = 0;
        ::recv(socket, &packet, 1, 0);
        worker.request_stop();
        co_await tasks.join();
        co_return 0;
    }

    static asio::awaitable<void> run_worker(Worker& worker) { co_await worker.run(); }

    int socket_ = -1;
    pid_t pid_ = -1;
    bool stopped_ = false;
};

// ---- where the time goes ------------------------------------------------------------------------

/// Processor time of this process and of Redis so far, in microseconds, and Redis' commands.
struct Usage {
    struct Command {
        double calls = 0, us = 0;
    };
    double main_thread = 0, process = 0, redis = 0;
    std::map<std::string, Command> commands;
};

double microseconds(int who) {
    rusage usage{};
    ::getrusage(who, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/// The number behind `name` in a line of INFO; 0 when it is not there.
double number_after(std::string_view line, std::string_view name) {
    const auto at = line.find(name);
    if (at == std::string_view::npos) return 0;
    double value = 0;
    const auto text = line.substr(at + name.size());
    std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
}

asio::awaitable<Usage> usage(RedisClient& redis) {
    Usage result;
    const std::string info = (co_await redis.command("INFO", "cpu")).text +
                             (co_await redis.command("INFO", "commandstats")).text;
    constexpr std::string_view prefix = "cmdstat_";
    for (std::size_t at = 0; at < info.size();) {
        const std::size_t end = std::min(info.find('\n', at), info.size());
        const auto line = std::string_view(info).substr(at, end - at);
        at = end + 1;
        if (line.starts_with("used_cpu_user:") || line.starts_with("used_cpu_sys:"))
            result.redis += number_after(line, ":") * 1e6;
        if (line.starts_with(prefix))
            result.commands[std::string(
                line.substr(prefix.size(), line.find(':') - prefix.size()))] = {
                number_after(line, ":calls="), number_after(line, ",usec=")};
    }
    result.main_thread = microseconds(RUSAGE_THREAD);
    result.process = microseconds(RUSAGE_SELF);
    co_return result;
}

/// What the jobs of a phase cost, summed over the repetitions.
class Profile {
public:
    void add(const Usage& before, const Usage& after, std::size_t jobs) {
        jobs_ += static_cast<double>(jobs);
        sum_.main_thread += after.main_thread - before.main_thread;
        sum_.process += after.process - before.process;
        sum_.redis += after.redis - before.redis;
        for (const auto& [name, command] : after.commands) {
            const auto old = before.commands.find(name);
            const auto base = old == before.commands.end() ? Usage::Command{} : old->second;
            if (command.calls == base.calls) continue;
            sum_.commands[name].calls += command.calls - base.calls;
            sum_.commands[name].us += command.us - base.us;
        }
    }
    /// Per job.
    [[nodiscard]] boost::json::object to_json() const {
        boost::json::object commands;
        for (const auto& [name, command] : sum_.commands)
            commands[name] = {{"calls", command.calls / jobs_}, {"us", command.us / jobs_}};
        return {{"client_cpu_us", sum_.process / jobs_},
                {"client_main_thread_cpu_us", sum_.main_thread / jobs_},
                {"redis_cpu_us", sum_.redis / jobs_},
                {"redis_commands", std::move(commands)}};
    }

private:
    Usage sum_;
    double jobs_ = 0;
};

/// Measures against an otherwise idle Redis. Its jobs keep their results for ten minutes at most.
class Bench {
public:
    Bench(RedisClient& redis, const BenchCommandOptions& options, WorkerProcess& worker,
          std::string url)
        : redis_(redis),
          options_(options),
          worker_(worker),
          url_(std::move(url)),
          queue_(redis, std::string(queue_name)) {}

    asio::awaitable<Figures> run() {
        std::vector<Figures> runs;
        for (std::size_t i = 0; i < options_.repetitions; ++i) {
            Figures figures;
            note(fmt::format("run {} of {}: bulk enqueue", i + 1, options_.repetitions));
            co_await clear();
            const Usage before = co_await usage(redis_);
            figures.enqueue_many = co_await enqueue_many(options_.jobs);
            const Usage between = co_await usage(redis_);
            note(fmt::format("run {} of {}: no-op jobs", i + 1, options_.repetitions));
            figures.process = co_await process(options_.jobs);
            const Usage after = co_await usage(redis_);
            enqueue_profile_.add(before, between, options_.jobs);
            process_profile_.add(between, after, options_.jobs);
            note(fmt::format("run {} of {}: batch", i + 1, options_.repetitions));
            co_await clear();
            figures.enqueue_batch = co_await enqueue_batch(options_.jobs);
            note(fmt::format("run {} of {}: single enqueue", i + 1, options_.repetitions));
            co_await clear();
            figures.enqueue_one =
                co_await enqueue_one(std::min<std::size_t>(options_.jobs / 4 + 1, 15000));
            note(fmt::format("run {} of {}: latency", i + 1, options_.repetitions));
            co_await clear();
            co_await measure_latency(figures);
            runs.push_back(figures);
        }
        co_await clear();
        note("");
        Figures result;
        for (const auto member : {&Figures::enqueue_many, &Figures::enqueue_batch,
                                  &Figures::enqueue_one, &Figures::process, &Figures::latency_p50,
                                  &Figures::latency_p95, &Figures::latency_p99}) {
            std::vector<double> values;
            values.reserve(runs.size());
            for (const auto& figures : runs)
                values.push_back(figures.*member);
            result.*member = median(values);
        }
        co_return result;
    }

    /// Where the time went, by phase.
    [[nodiscard]] boost::json::object profile() const {
        return {{"enqueue_many", enqueue_profile_.to_json()},
                {"process", process_profile_.to_json()}};
    }

private:
    static void note(std::string text) {
        if (::isatty(STDERR_FILENO) != 0) fmt::print(stderr, "\r\x1b[K{}", text);
    }

    /// What still waits; ended jobs expire by themselves.
    asio::awaitable<void> clear() {
        const std::string list = "rq:queue:" + std::string(queue_name);
        const Reply ids = co_await redis_.command("LRANGE", list, 0, -1);
        for (std::size_t at = 0; at < ids.elements.size(); at += 1000) {
            Pipeline pipeline;
            const std::size_t end = std::min(at + 1000, ids.elements.size());
            pipeline.begin(1 + end - at);
            pipeline.argument(std::string_view("UNLINK"));
            for (std::size_t i = at; i < end; ++i)
                pipeline.argument("rq:job:" + ids.elements[i].text);
            co_await redis_.run_one(std::move(pipeline), {});
        }
        co_await redis_.command("DEL", list);
        if (!batch_.empty())
            co_await redis_.command("UNLINK", "rqxx:batch:" + batch_,
                                    "rqxx:batch:" + batch_ + ":pending", "rq:group:" + batch_);
        batch_.clear();
    }

    static NewJob noop(std::int64_t n) {
        NewJob job;
        job.call.func_name = "bench.noop";
        job.call.args = Value::tuple({Value(n)});
        return job;
    }

    static std::vector<NewJob> noops(std::size_t count) {
        std::vector<NewJob> jobs;
        jobs.reserve(count);
        for (std::size_t i = 0; i < count; ++i)
            jobs.push_back(noop(static_cast<std::int64_t>(i)));
        return jobs;
    }

    asio::awaitable<double> enqueue_many(std::size_t count) {
        std::vector<NewJob> jobs = noops(count);
        const auto begin = Clock::now();
        co_await queue_.enqueue_many(std::move(jobs));
        co_return per_second(count, Clock::now() - begin);
    }

    asio::awaitable<double> enqueue_batch(std::size_t count) {
        std::vector<NewJob> jobs = noops(count);
        const auto begin = Clock::now();
        const Batch batch = co_await Batch::create_with(redis_, {}, queue_, std::move(jobs));
        const auto end = Clock::now();
        batch_ = batch.id();
        co_return per_second(count, end - begin);
    }

    asio::awaitable<double> enqueue_one(std::size_t count) {
        const auto begin = Clock::now();
        for (std::size_t i = 0; i < count; ++i) {
            NewJob job = noop(static_cast<std::int64_t>(i));
            co_await queue_.enqueue(std::move(job.call), std::move(job.options));
        }
        co_return per_second(count, Clock::now() - begin);
    }

    /// From 10 % done to all done, so that the start does not count.
    asio::awaitable<double> process(std::size_t count) {
        std::atomic<std::size_t> done = 0;
        const std::size_t skipped = count / 10;
        Clock::time_point begin;
        HandlerRegistry handlers;
        handlers.add("bench.noop", [&](std::int64_t n) {
            if (++done == skipped) begin = Clock::now();
            return n;
        });
        WorkerOptions options;
        options.queues = {std::string(queue_name)};
        options.concurrency = options_.concurrency;
        options.burst = true;
        Worker worker(redis_, handlers, options, null_logger());
        co_await worker.run();
        co_return per_second(count - skipped, Clock::now() - begin);
    }

    asio::awaitable<void> enqueue_timed() {
        NewJob job = noop(0);
        job.call.func_name = "bench.latency";
        job.call.args = Value::tuple({Value(monotonic_ns())});
        co_await queue_.enqueue(std::move(job.call), std::move(job.options));
    }

    /// From the call of `enqueue` here to the handler in another process, which has nothing else to
    /// do. One job every 20 ms.
    asio::awaitable<void> measure_latency(Figures& figures) {
        constexpr std::size_t count = 300;
        Event pause(redis_.executor());
        std::vector<std::int64_t> waits;
        worker_.start(url_);
        co_await enqueue_timed();  // Tells when the worker is there; does not count.
        for (int i = 0; i < 2000 && waits.empty(); ++i) {
            co_await pause.wait(5ms);
            worker_.collect(waits);
        }
        waits.clear();
        co_await pause.wait(300ms);
        for (std::size_t i = 0; i < count; ++i) {
            co_await enqueue_timed();
            co_await pause.wait(20ms);
            worker_.collect(waits);
        }
        for (int i = 0; i < 1000 && waits.size() < count; ++i) {
            co_await pause.wait(5ms);
            worker_.collect(waits);
        }
        co_await worker_.stop(pause);
        if (waits.size() < count)
            throw Error(Errc::internal,
                        fmt::format("latency: {} of {} jobs were started", waits.size(), count));
        std::sort(waits.begin(), waits.end());
        const auto quantile = [&](double q) {
            return static_cast<double>(waits[static_cast<std::size_t>(q * count)]) / 1e6;
        };
        figures.latency_p50 = quantile(0.5);
        figures.latency_p95 = quantile(0.95);
        figures.latency_p99 = quantile(0.99);
    }

    RedisClient& redis_;
    BenchCommandOptions options_;
    WorkerProcess& worker_;
    std::string url_;
    Queue queue_;
    std::string batch_;  ///< Of the last measurement, until it is cleared away.
    Profile enqueue_profile_, process_profile_;
};

void print(const Figures& figures, boost::json::object profile,
           const BenchCommandOptions& options) {
    if (options.json) {
        fmt::print("{}\n",
                   to_text(boost::json::object{{"jobs", options.jobs},
                                               {"concurrency", options.concurrency},
                                               {"enqueue_many_per_second", figures.enqueue_many},
                                               {"enqueue_batch_per_second", figures.enqueue_batch},
                                               {"enqueue_one_per_second", figures.enqueue_one},
                                               {"process_per_second", figures.process},
                                               {"latency_ms",
                                                {{"p50", figures.latency_p50},
                                                 {"p95", figures.latency_p95},
                                                 {"p99", figures.latency_p99}}},
                                               {"profile", std::move(profile)}}));
        return;
    }
    Table table({"MEASUREMENT", "VALUE", "UNIT"});
    table.add({"enqueue, many in one call", fmt::format("{:.0f}", figures.enqueue_many), "jobs/s"});
    table.add({"enqueue, as a batch", fmt::format("{:.0f}", figures.enqueue_batch), "jobs/s"});
    table.add({"enqueue, one at a time", fmt::format("{:.0f}", figures.enqueue_one), "jobs/s"});
    table.add(
        {"run no-op jobs, whole life cycle", fmt::format("{:.0f}", figures.process), "jobs/s"});
    table.add(
        {"enqueue to start, idle worker, p50", fmt::format("{:.3f}", figures.latency_p50), "ms"});
    table.add(
        {"enqueue to start, idle worker, p95", fmt::format("{:.3f}", figures.latency_p95), "ms"});
    table.add(
        {"enqueue to start, idle worker, p99", fmt::format("{:.3f}", figures.latency_p99), "ms"});
    table.print(stdout);
}

}  // namespace

int bench(const CommonOptions& common, const BenchCommandOptions& options) {
    WorkerProcess worker(common);
    const auto run = [&](const CommonOptions& own) {
        return with_redis(own, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
            Bench bench(redis, options, worker, own.redis_url);
            const Figures figures = co_await bench.run();
            print(figures, bench.profile(), options);
            co_return 0;
        });
    };
    if (!common.redis_url.empty()) return run(common);
    // A private server, gone afterwards: nobody's data is touched, and nobody disturbs.
    std::string name = (std::filesystem::temp_directory_path() / "rqxx-bench-XXXXXX").native();
    if (::mkdtemp(name.data()) == nullptr)
        throw Error(Errc::io, fmt::format("cannot make a directory {}", name));
    struct Removal {
        std::string path;
        ~Removal() {
            std::error_code ignored;
            std::filesystem::remove_all(path, ignored);
        }
    } removal{name};
    runtime::DataDirectory directory(name);
    runtime::EmbeddedRedis embedded(directory, null_logger(), options.redis_server);
    CommonOptions own = common;
    own.redis_url = embedded.url().redacted();
    return run(own);
}

}  // namespace rqxx::cli
