#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json/object.hpp>
#include <mutex>
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
    double enqueue_many = 0, enqueue_one = 0, process = 0;     ///< Jobs per second.
    double latency_p50 = 0, latency_p95 = 0, latency_p99 = 0;  ///< Milliseconds.
};

double per_second(std::size_t jobs, Clock::duration time) {
    return static_cast<double>(jobs) / Seconds(time).count();
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

/// Measures against an otherwise idle Redis. Its jobs keep their results for ten minutes at most.
class Bench {
public:
    Bench(RedisClient& redis, const BenchCommandOptions& options)
        : redis_(redis), options_(options), queue_(redis, std::string(queue_name)) {}

    asio::awaitable<Figures> run() {
        std::vector<Figures> runs;
        for (std::size_t i = 0; i < options_.repetitions; ++i) {
            Figures figures;
            note(fmt::format("run {} of {}: bulk enqueue", i + 1, options_.repetitions));
            co_await clear();
            figures.enqueue_many = co_await enqueue_many(options_.jobs);
            note(fmt::format("run {} of {}: no-op jobs", i + 1, options_.repetitions));
            figures.process = co_await process(options_.jobs);
            note(fmt::format("run {} of {}: single enqueue", i + 1, options_.repetitions));
            co_await clear();
            figures.enqueue_one =
                co_await enqueue_one(std::min<std::size_t>(options_.jobs / 4 + 1, 5000));
            note(fmt::format("run {} of {}: latency", i + 1, options_.repetitions));
            co_await clear();
            co_await measure_latency(figures);
            runs.push_back(figures);
        }
        co_await clear();
        note("");
        Figures result;
        for (const auto member :
             {&Figures::enqueue_many, &Figures::enqueue_one, &Figures::process,
              &Figures::latency_p50, &Figures::latency_p95, &Figures::latency_p99}) {
            std::vector<double> values;
            for (const auto& figures : runs)
                values.push_back(figures.*member);
            result.*member = median(values);
        }
        co_return result;
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
    }

    static NewJob noop(std::int64_t n) {
        NewJob job;
        job.call.func_name = "bench.noop";
        job.call.args = Value::tuple({Value(n)});
        return job;
    }

    asio::awaitable<double> enqueue_many(std::size_t count) {
        std::vector<NewJob> jobs;
        jobs.reserve(count);
        for (std::size_t i = 0; i < count; ++i)
            jobs.push_back(noop(static_cast<std::int64_t>(i)));
        const auto begin = Clock::now();
        co_await queue_.enqueue_many(std::move(jobs));
        co_return per_second(count, Clock::now() - begin);
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

    asio::awaitable<void> measure_latency(Figures& figures) {
        std::mutex mutex;
        std::vector<double> waits;
        HandlerRegistry handlers;
        handlers.add("bench.latency", [&](std::int64_t sent_ns) {
            const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(
                                 Clock::now().time_since_epoch())
                                 .count();
            const std::scoped_lock lock(mutex);
            waits.push_back(static_cast<double>(now - sent_ns) / 1e6);
        });
        // On a connection of its own, as in life.
        RedisClient own(redis_.executor(), redis_.options(), null_logger());
        co_await own.connect(5s);
        WorkerOptions options;
        options.queues = {std::string(queue_name)};
        Worker worker(own, handlers, options, null_logger());
        TaskGroup tasks(redis_.executor());
        tasks.spawn("worker", run_worker(worker));
        Event pause(redis_.executor());
        co_await pause.wait(300ms);
        for (int i = 0; i < 300; ++i) {
            NewJob job = noop(0);
            job.call.func_name = "bench.latency";
            const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(
                                 Clock::now().time_since_epoch())
                                 .count();
            job.call.args = Value::tuple({Value(now)});
            co_await queue_.enqueue(std::move(job.call), std::move(job.options));
            co_await pause.wait(20ms);
        }
        worker.request_stop();
        co_await tasks.join();
        own.close();
        std::sort(waits.begin(), waits.end());
        if (waits.empty()) co_return;
        const auto quantile = [&](double q) {
            return waits[std::min(waits.size() - 1,
                                  static_cast<std::size_t>(q * static_cast<double>(waits.size())))];
        };
        figures.latency_p50 = quantile(0.5);
        figures.latency_p95 = quantile(0.95);
        figures.latency_p99 = quantile(0.99);
    }

    static asio::awaitable<void> run_worker(Worker& worker) { co_await worker.run(); }

    RedisClient& redis_;
    BenchCommandOptions options_;
    Queue queue_;
};

void print(const Figures& figures, const BenchCommandOptions& options) {
    if (options.json) {
        fmt::print("{}\n",
                   to_text(boost::json::object{{"jobs", options.jobs},
                                               {"concurrency", options.concurrency},
                                               {"enqueue_many_per_second", figures.enqueue_many},
                                               {"enqueue_one_per_second", figures.enqueue_one},
                                               {"process_per_second", figures.process},
                                               {"latency_ms",
                                                {{"p50", figures.latency_p50},
                                                 {"p95", figures.latency_p95},
                                                 {"p99", figures.latency_p99}}}}));
        return;
    }
    Table table({"MEASUREMENT", "VALUE", "UNIT"});
    table.add({"enqueue, many in one call", fmt::format("{:.0f}", figures.enqueue_many), "jobs/s"});
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
    const auto body = [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        Bench bench(redis, options);
        print(co_await bench.run(), options);
        co_return 0;
    };
    if (!common.redis_url.empty()) return with_redis(common, body);
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
    return with_redis(own, body);
}

}  // namespace rqxx::cli
