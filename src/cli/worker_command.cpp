#include <fmt/format.h>
#include <signal.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>

#include "cli/commands.hpp"

namespace rqxx::cli {

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

/// Each signal is one request to stop; the set is cancelled at the end.
void listen(asio::signal_set& signals, Worker& worker) {
    signals.async_wait([&](boost::system::error_code error, int) {
        if (error) return;
        worker.request_stop();
        listen(signals, worker);
    });
}

asio::awaitable<WorkerSummary> connect_and_run(RedisClient& redis, Worker& worker) {
    co_await redis.connect(30s);
    co_return co_await worker.run();
}

}  // namespace

int work(const CommonOptions& common, const WorkerCommandOptions& options,
         const ApplicationFactory& make_application) {
    Logger log(log_level(common), log_format(common));
    WorkerOptions settings;
    if (!options.queues.empty()) settings.queues = options.queues;
    for (const auto& queue : settings.queues) {
        if (queue.empty() || queue.find(',') != std::string::npos)
            throw Error(Errc::usage, "QUEUE: a name must not be empty or contain a comma");
    }
    settings.name = options.name;
    settings.concurrency = options.concurrency;
    settings.burst = options.burst;
    if (options.max_jobs > 0) settings.max_jobs = options.max_jobs;
    settings.grace = duration_option("--grace", options.grace);
    settings.recover = options.recover == "fail" ? RecoverPolicy::fail : RecoverPolicy::requeue;
    const auto strategy = parse_strategy(options.strategy);
    if (!strategy) throw Error(Errc::usage, fmt::format("--{}", strategy.error().describe()));
    settings.strategy = *strategy;
    settings.callbacks =
        options.callbacks == "skip" ? CallbackPolicy::skip : CallbackPolicy::require;
    if (!options.max_idle_time.empty())
        settings.max_idle_time = duration_option("--max-idle-time", options.max_idle_time);
    if (!options.serializer.empty())
        settings.serializer = parse_serializer(options.serializer).value();

    HandlerRegistry handlers;
    const auto application = make_application({common.data_dir, options.packages, true});
    application->register_handlers(handlers);

    asio::io_context context(1);
    RedisOptions redis_settings = redis_options(common, "rqxx-worker");
    redis_settings.max_backoff = 1s;
    RedisClient redis(context.get_executor(), redis_settings, log);
    Worker worker(redis, handlers, settings, log);
    asio::signal_set signals(context, SIGINT, SIGTERM);
    listen(signals, worker);
    WorkerSummary summary;
    std::exception_ptr failure;
    asio::co_spawn(context, connect_and_run(redis, worker),
                   [&](std::exception_ptr error, WorkerSummary result) {
                       failure = error;
                       summary = result;
                       redis.close();
                       signals.cancel();
                   });
    context.run();
    if (failure) std::rethrow_exception(failure);
    return summary.returned + summary.unstored > 0 ? 1 : 0;
}

}  // namespace rqxx::cli
