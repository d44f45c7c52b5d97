// A worker with the functions that the tests call, on the library alone. The Python side of the
// same functions is tests/interop/tasks.py.
//   test_worker REDIS_URL [--burst] [--with-scheduler] [--concurrency N] [--name NAME] [--grace S]
//   [--recover fail] [--strategy S] [--max-idle-time S] [--max-jobs N] [--callbacks skip]
//   [--json-log] [--webhooks] [--processes] [--max-rss BYTES] [--max-cpu S] [--python INTERPRETER]
//   [--path FOLDER] [--preload MODULE] [--command FUNCTION=LINE] [--http FUNCTION=URL]
//   [--recycle-growth BYTES] [--weight QUEUE=N] [--queue-slots QUEUE=N] [--ageing S]
//   [--together-wait MS] [--aggregate FUNCTION=SIZE,MS] QUEUE...
#include <unistd.h>
#include <base/task_group.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <ops/lua_scripts.hpp>
#include <rqxx/scheduler.hpp>
#include <rqxx/webhooks.hpp>
#include <rqxx/worker.hpp>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

using namespace rqxx;

/// The two sides of the first "=".
std::pair<std::string, std::string> divided(const std::string& text) {
    const auto at = text.find('=');
    return {text.substr(0, at), text.substr(at + 1)};
}

/// Sleeps until the time is up or the job is asked to stop; whether it slept to the end.
bool nap(std::stop_token stop, double seconds) {
    std::mutex mutex;
    std::condition_variable_any wake;
    std::unique_lock lock(mutex);
    return !wake.wait_for(lock, stop, std::chrono::duration<double>(seconds), [] {
        return false;
    }) && !stop.stop_requested();
}

std::string leave(std::string path, std::string text) {
    std::ofstream(path, std::ios::app) << text << "\n";
    return text;
}

void answer(AggregatedCall& one) {
    const std::string what = one.call().args.items()[0].as_text();
    auto& context = one.context();
    if (what == "none") return;
    if (what == "crash") std::raise(SIGKILL);
    if (what == "throw") throw std::runtime_error("of all");
    if (what == "retry")
        one.set_error(std::make_exception_ptr(
            RetryRequest({.max = 1, .intervals = {}, .enqueue_at_front = false})));
    if (what == "retry") return;
    one.answer([&]() -> std::string {
        if (what == "fail") throw std::runtime_error("of one");
        if (what == "print") context.print("of " + context.job().id);
        if (what == "write") std::puts("of all");
        if (what == "nap") nap(context.stop_token(), 60);
        if (what == "wait") {
            const auto path = one.call().args.items()[1].as_text() + ".go";
            while (!std::filesystem::exists(path))
                std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        return context.job().id;
    });
}

void register_tasks(HandlerRegistry& handlers, int together_wait) {
    handlers.add("tasks.add", [](std::int64_t a, std::int64_t b) { return a + b; });
    handlers.add("tasks.noop", [](std::int64_t n) { return n; });
    handlers.add_raw("tasks.echo", [](JobContext&, const Call& call) {
        return Value::list({Value::list(call.args.items()), call.kwargs});
    });
    handlers.add("tasks.fail",
                 [](std::string message) -> Value { throw std::runtime_error(message); });
    handlers.add("tasks.none", [] {});
    handlers.add("tasks.slow", [](JobContext& context, double seconds) {
        context.progress(0.5, "half way");
        if (!nap(context.stop_token(), seconds)) throw std::runtime_error("stopped");
        return seconds;
    });
    // Takes anything else, and leaves a line when it has been asked to stop.
    handlers.add_raw("tasks.slow_raw", [](JobContext& context, const Call& call) {
        if (!nap(context.stop_token(), 60)) leave(call.args.items()[0].as_text(), "asked");
        return Value();
    });
    handlers.add("tasks.stubborn", [](double seconds) {
        std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
        return seconds;
    });
    // What only a process survives.
    handlers.add("tasks.crash", [] { *static_cast<volatile int*>(nullptr) = 1; });
    handlers.add("tasks.abort", [] { std::abort(); });
    handlers.add("tasks.exit", [](std::int64_t code) { std::_Exit(static_cast<int>(code)); });
    handlers.add("tasks.deadlock", [](std::string path) {
        leave(path, std::to_string(::getpid()));
        std::mutex mutex;
        mutex.lock();
        mutex.lock();
    });
    handlers.add("tasks.hog", [](std::int64_t megabytes) {
        std::vector<std::string> kept;
        for (std::int64_t i = 0; i < megabytes; ++i)
            kept.emplace_back(1 << 20, 'x');
        return megabytes;
    });
    handlers.add("tasks.burn", [](double seconds) {
        const auto until =
            std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
        while (std::chrono::steady_clock::now() < until) {
        }
    });
    handlers.add("tasks.talk", [](JobContext& context, std::string text) {
        context.print(text);
        std::fputs("to stderr", stderr);
        return static_cast<std::int64_t>(::getpid());
    });
    handlers.add("tasks.ask_retry", [](std::int64_t max, std::int64_t interval) {
        throw RetryRequest(
            {.max = max, .intervals = {std::chrono::seconds(interval)}, .enqueue_at_front = false});
    });
    handlers.add("tasks.leave", leave);
    handlers.add("tasks.flaky", [](std::string path, std::int64_t failures) {
        leave(path, "flaky");
        std::ifstream marks(path);
        std::int64_t runs = 0;
        for (std::string line; std::getline(marks, line);)
            runs += line == "flaky" ? 1 : 0;
        if (runs <= failures) throw std::runtime_error("not yet");
        return std::string("at last");
    });
    // Leaves a line with the ids of each call. What a job of the call does is its first argument.
    handlers.add_aggregated(
        "tasks.together", {.max_size = 50, .max_wait = std::chrono::milliseconds(together_wait)},
        [](std::span<AggregatedCall> calls) {
            std::string ids;
            for (const auto& one : calls)
                ids += (ids.empty() ? "" : " ") + one.context().job().id;
            leave(std::get<1>(calls[0].arguments<std::string, std::string>()), ids);
            for (auto& one : calls)
                answer(one);
        });
    handlers.add("tasks.unserializable", [] { return Value::opaque("tasks.unserializable"); });
    // When it ran, for tests of what runs at the same time.
    handlers.add("tasks.told", [](std::string path, std::int64_t seconds) {
        if (std::ifstream(path)) return std::string("done");
        leave(path, "told");
        throw RateLimited(std::chrono::seconds(seconds));
    });
    handlers.add("tasks.timed",
                 [](JobContext& context, std::string path, std::string what, double seconds) {
                     const auto line = [&](std::string_view event) {
                         const auto now = std::chrono::system_clock::now().time_since_epoch();
                         leave(path, std::to_string(std::chrono::duration<double>(now).count()) +
                                         " " + std::string(event) + " " + context.execution_id() +
                                         " " + std::to_string(::getpid()) + " " + what);
                     };
                     line("start");
                     nap(context.stop_token(), seconds);
                     line("end");
                 });
    // Leaves a line per run, so that a test can count executions.
    handlers.add("tasks.mark", [](JobContext& context, std::string path, double seconds) {
        std::ofstream(path, std::ios::app) << context.job().id << "\n";
        nap(context.stop_token(), seconds);
        return context.job().id;
    });
    // Leaves the times at which it begins and ends.
    handlers.add("tasks.span", [](JobContext& context, std::string path, double seconds) {
        const auto note = [&](char event) {
            leave(path, event + (" " + context.job().id) + " " + format_epoch(utc_now()) + " " +
                            std::to_string(::getpid()));
        };
        note('+');
        nap(context.stop_token(), seconds);
        note('-');
        return seconds;
    });
}

boost::asio::awaitable<void> run(RedisClient& redis, Worker& worker, Scheduler* scheduler,
                                 WebhookDeliverer* webhooks, bool burst) {
    co_await redis.connect(std::chrono::seconds(10));
    TaskGroup delivering(redis.executor());
    if (webhooks != nullptr) delivering.spawn("webhooks", webhooks->run());
    TaskGroup scheduling(redis.executor());
    if (scheduler != nullptr && burst) co_await scheduler->run_once();
    if (scheduler != nullptr && !burst) scheduling.spawn("scheduler", scheduler->run());
    co_await worker.run();
    scheduling.cancel();
    co_await scheduling.join();
    if (webhooks != nullptr && burst) co_await webhooks->run_once();
    delivering.cancel();
    co_await delivering.join();
    if (scheduler != nullptr)
        std::fprintf(stderr, "promoted %llu, late by %.3f s (p50), %.3f s (p99)\n",
                     static_cast<unsigned long long>(scheduler->promoted()),
                     Seconds(scheduler->lateness(0.5)).count(),
                     Seconds(scheduler->lateness(0.99)).count());
}

void listen(boost::asio::signal_set& signals, Worker& worker) {
    signals.async_wait([&](boost::system::error_code error, int) {
        if (error) return;
        worker.request_stop();
        listen(signals, worker);
    });
}

/// Leaves a line per call: which callback, and for what.
void note(JobContext& context, const std::string& text) {
    const Value* path = nullptr;
    const auto meta = decode(context.job().meta);
    if (meta && meta->is_dict()) path = meta->find("marks");
    if (path != nullptr) std::ofstream(path->as_text(), std::ios::app) << text << "\n";
}

void register_callbacks(HandlerRegistry& handlers) {
    handlers.add_callback("tasks.on_success", [](JobContext& context, const CallbackEvent& event) {
        note(context, "success " + encode_json(event.result));
    });
    handlers.add_callback("tasks.on_failure", [](JobContext& context, const CallbackEvent& event) {
        note(context, "failure " + event.error.substr(event.error.rfind(' ') + 1));
    });
    handlers.add_callback("tasks.on_stopped", [](JobContext& context, const CallbackEvent&) {
        note(context, "stopped");
    });
    handlers.add_callback("tasks.bad_callback", [](JobContext&, const CallbackEvent&) {
        throw std::runtime_error("callback broke");
    });
    handlers.add_callback("tasks.slow_callback", [](JobContext& context, const CallbackEvent&) {
        nap(context.stop_token(), 30);
    });
}

}  // namespace

int main(int argc, char** argv) {
    WorkerOptions options;
    options.queues.clear();
    bool with_scheduler = false, with_webhooks = false;
    int together_wait = 300;
    RedisOptions redis_options;
    LogFormat log_format = LogFormat::text;
    redis_options.max_backoff = std::chrono::seconds(1);
    redis_options.url = parse_redis_url(argv[1]).value();
    for (int i = 2; i < argc; ++i) {
        const std::string arg = argv[i];
        if (arg == "--burst")
            options.burst = true;
        else if (arg == "--with-scheduler")
            with_scheduler = true;
        else if (arg == "--concurrency")
            options.concurrency = std::strtoul(argv[++i], nullptr, 10);
        else if (arg == "--name")
            options.name = argv[++i];
        else if (arg == "--grace")
            options.grace = std::chrono::seconds(std::atoi(argv[++i]));
        else if (arg == "--kill-after")
            options.kill_after = std::chrono::seconds(std::atoi(argv[++i]));
        else if (arg == "--strategy")
            options.strategy = parse_strategy(argv[++i]).value();
        else if (arg == "--weight") {
            const auto [queue, weight] = divided(argv[++i]);
            options.weights[queue] = std::atoi(weight.c_str());
        } else if (arg == "--queue-slots") {
            const auto [queue, slots] = divided(argv[++i]);
            options.queue_slots[queue] = std::strtoul(slots.c_str(), nullptr, 10);
        } else if (arg == "--ageing")
            options.ageing = std::chrono::seconds(std::atoi(argv[++i]));
        else if (arg == "--together-wait")
            together_wait = std::atoi(argv[++i]);
        else if (arg == "--aggregate") {
            const auto [function, most] = divided(argv[++i]);
            options.functions.push_back({.function = function, .place = {}, .limits = {}});
            options.functions.back().aggregate = {
                .max_size = std::strtoul(most.c_str(), nullptr, 10),
                .max_wait = std::chrono::milliseconds(
                    std::strtoul(most.c_str() + most.find(',') + 1, nullptr, 10))};
        } else if (arg == "--max-idle-time")
            options.max_idle_time = std::chrono::seconds(std::atoi(argv[++i]));
        else if (arg == "--max-jobs")
            options.max_jobs = std::strtoul(argv[++i], nullptr, 10);
        else if (arg == "--callbacks")
            options.callbacks =
                std::string(argv[++i]) == "skip" ? CallbackPolicy::skip : CallbackPolicy::require;
        else if (arg == "--recover")
            options.recover =
                std::string(argv[++i]) == "fail" ? RecoverPolicy::fail : RecoverPolicy::requeue;
        else if (arg == "--webhooks")
            with_webhooks = true;
        else if (arg == "--processes")
            options.native = NativeIsolation::process;
        else if (arg == "--max-rss")
            options.limits.max_rss = std::strtoull(argv[++i], nullptr, 10);
        else if (arg == "--max-cpu")
            options.limits.max_cpu = std::chrono::seconds(std::atoi(argv[++i]));
        else if (arg == "--recycle-growth")
            options.recycling.growth = std::strtoull(argv[++i], nullptr, 10);
        else if (arg == "--python")
            options.python.emplace().interpreter = argv[++i];
        else if (arg == "--path")
            options.python->path.emplace_back(argv[++i]);
        else if (arg == "--preload")
            options.python->preload.emplace_back(argv[++i]);
        else if (arg == "--command") {
            const auto [function, line] = divided(argv[++i]);
            options.commands.push_back(
                {.function = function, .words = split_command(line).value()});
        } else if (arg == "--http") {
            const auto [function, url] = divided(argv[++i]);
            options.http.push_back({.function = function, .url = url});
        } else if (arg == "--json-log")
            log_format = LogFormat::json;
        else
            options.queues.push_back(arg);
    }
    HandlerRegistry handlers;
    register_tasks(handlers, together_wait);
    register_callbacks(handlers);
    Logger log(LogLevel::info, log_format);
    boost::asio::io_context context(1);
    register_scripts(lua::all());
    RedisClient redis(context.get_executor(), redis_options, log);
    Worker worker(redis, handlers, options, log);
    Scheduler scheduler(redis, {options.queues, {}}, log);
    WebhookDeliverer webhooks(redis, {}, log);
    boost::asio::signal_set signals(context, SIGINT, SIGTERM);
    listen(signals, worker);
    int code = 0;
    boost::asio::co_spawn(context,
                          run(redis, worker, with_scheduler ? &scheduler : nullptr,
                              with_webhooks ? &webhooks : nullptr, options.burst),
                          [&](std::exception_ptr error) {
                              redis.close();
                              signals.cancel();
                              if (!error) return;
                              code = 1;
                              try {
                                  std::rethrow_exception(error);
                              } catch (const std::exception& failure) {
                                  std::fprintf(stderr, "test_worker: %s\n", failure.what());
                              }
                          });
    context.run();
    return code;
}
