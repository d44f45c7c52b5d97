#include <fmt/format.h>

#include <boost/json/value.hpp>
#include <rqxx/events.hpp>
#include <rqxx/json.hpp>
#include <rqxx/monitor.hpp>

#include "base/task_group.hpp"
#include "cli/arguments.hpp"
#include "cli/commands.hpp"

namespace rqxx::cli {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

std::optional<std::chrono::seconds> optional_duration(std::string_view flag,
                                                      const std::string& text) {
    if (text.empty()) return std::nullopt;
    return duration_option(flag, text);
}

asio::awaitable<Enqueued> put(RedisClient& redis, Logger& log, const EnqueueCommandOptions& options,
                              Call call) {
    const Serializer serializer = parse_serializer(options.serializer).value();
    const auto timeout = optional_duration("--timeout", options.timeout);
    if (!options.priority.empty()) {
        OptimizedOptions settings;
        settings.priority = parse_priority(options.priority).value();
        settings.timeout = timeout;
        settings.retry = options.retry;
        settings.job_id = options.job_id;
        OptimizedQueue queue(redis, log, serializer);
        co_return co_await queue.enqueue(std::move(call), std::move(settings));
    }
    EnqueueOptions settings;
    settings.timeout = timeout;
    settings.result_ttl = optional_duration("--result-ttl", options.result_ttl);
    settings.failure_ttl = optional_duration("--failure-ttl", options.failure_ttl);
    settings.ttl = optional_duration("--ttl", options.ttl);
    if (options.retry)
        settings.retry = Retry{.max = *options.retry, .intervals = {}, .enqueue_at_front = false};
    settings.job_id = options.job_id;
    if (!options.description.empty()) settings.description = options.description;
    settings.at_front = options.at_front;
    settings.unique = options.unique;
    const std::string session = session_of(call);
    Queue queue(redis, options.queue, serializer);
    Enqueued enqueued = co_await queue.enqueue(std::move(call), std::move(settings));
    if (!enqueued.duplicate)
        log_job_enqueued(log, enqueued.job_id, session, options.queue,
                         timeout.value_or(std::chrono::seconds(180)));
    co_return enqueued;
}

/// Prints the result, or the error to stderr.
asio::awaitable<int> wait_for_end(RedisClient& redis, std::string id) {
    Monitor monitor(redis);
    Event pause(redis.executor());
    for (auto wait = 5ms;; wait = std::min(wait * 2, 500ms)) {
        const auto job = co_await monitor.job_info(id);
        if (!job) {
            fmt::print(stderr, "rqxx: job {} is gone; it keeps no result\n", id);
            co_return 1;
        }
        if (job->job.status == status::finished) {
            fmt::print("{}\n", to_text(result_json(*job)));
            co_return 0;
        }
        if (job->job.status == status::failed || job->job.status == status::stopped ||
            job->job.status == status::canceled) {
            const std::string error =
                job->executions.empty() ? std::string() : job->executions.front().error;
            fmt::print(stderr, "rqxx: job {} {}\n{}", id, job->job.status, printable(error));
            co_return 1;
        }
        co_await pause.wait(wait);
    }
}

}  // namespace

int enqueue(const CommonOptions& common, const EnqueueCommandOptions& options) {
    if (!options.priority.empty() && options.queue != "default")
        throw Error(Errc::usage, "--queue: the priority decides the queue; give only one of them");
    if (!options.priority.empty() &&
        (options.at_front || !options.result_ttl.empty() || !options.failure_ttl.empty() ||
         !options.ttl.empty() || !options.description.empty()))
        throw Error(Errc::usage,
                    "--priority: the policy sets TTLs and place; only --timeout, --retry and "
                    "--job-id go with it");
    const Call call = parse_call(options.function, options.arguments, options.json_args);
    return with_redis(common, [&](RedisClient& redis, Logger& log) -> asio::awaitable<int> {
        const auto enqueued = co_await put(redis, log, options, call);
        if (enqueued.duplicate) {
            fmt::print(stderr, "rqxx: a job with the id {} exists already; nothing was enqueued\n",
                       enqueued.job_id);
            co_return 1;
        }
        fmt::print("{}\n", enqueued.job_id);
        std::fflush(stdout);
        if (!options.wait) co_return 0;
        co_return co_await wait_for_end(redis, enqueued.job_id);
    });
}

}  // namespace rqxx::cli
