#include <fmt/format.h>

#include <boost/json/value.hpp>
#include <charconv>
#include <rqxx/codec.hpp>
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

std::vector<std::chrono::seconds> durations(std::string_view flag,
                                            const std::vector<std::string>& texts) {
    std::vector<std::chrono::seconds> result;
    result.reserve(texts.size());
    for (const auto& text : texts)
        result.push_back(duration_option(flag, text));
    return result;
}

/// NAME or NAME@DURATION.
std::optional<Callback> callback(std::string_view flag, const std::string& text) {
    if (text.empty()) return std::nullopt;
    const auto at = text.find('@');
    Callback result{text.substr(0, at), std::nullopt};
    if (at != std::string::npos) result.timeout = duration_option(flag, text.substr(at + 1));
    return result;
}

Webhook webhook(const std::string& text) {
    const auto equals = text.find('=');
    if (equals == std::string::npos)
        throw Error(Errc::usage, "--webhook: finished=URL or failed=URL is expected");
    Webhook hook;
    hook.job_status = text.substr(0, equals);
    hook.url = text.substr(equals + 1);
    hook.method = "POST";
    return hook;
}

/// KEY=N; there may be more of = in the key.
RateLimit rate_limit(const std::string& text) {
    const auto equals = text.rfind('=');
    std::int64_t concurrency = 0;
    const char* end = text.data() + text.size();
    if (equals == std::string::npos ||
        std::from_chars(text.data() + equals + 1, end, concurrency) !=
            std::from_chars_result{end, std::errc{}})
        throw Error(Errc::usage, fmt::format("--rate-limit: \"{}\" is not KEY=N",
                                             printable(text.substr(0, 40))));
    return {text.substr(0, equals), concurrency};
}

/// RFC 3339 with Z or an offset, or seconds since 1970.
Timestamp time_option(const std::string& text) {
    if (const auto epoch = parse_epoch(text)) return *epoch;
    std::string utc = text;
    std::chrono::minutes offset{0};
    if (text.size() > 6 && text[text.size() - 3] == ':' &&
        (text[text.size() - 6] == '+' || text[text.size() - 6] == '-')) {
        const std::string_view zone = std::string_view(text).substr(text.size() - 6);
        const auto digits = [&](std::size_t at) {
            return (zone[at] - '0') * 10 + zone[at + 1] - '0';
        };
        offset = std::chrono::minutes((digits(1) * 60 + digits(4)) * (zone[0] == '-' ? -1 : 1));
        utc = text.substr(0, text.size() - 6) + "Z";
    }
    const auto time = parse_utc(utc);
    if (!time) throw Error(Errc::usage, fmt::format("--at: {}", time.error().message));
    return *time - offset;
}

/// What is asked for beside queue and policy.
EnqueueOptions enqueue_options(const EnqueueCommandOptions& options) {
    EnqueueOptions settings;
    settings.timeout = optional_duration("--timeout", options.timeout);
    settings.result_ttl = optional_duration("--result-ttl", options.result_ttl);
    settings.failure_ttl = optional_duration("--failure-ttl", options.failure_ttl);
    settings.ttl = optional_duration("--ttl", options.ttl);
    if (options.retry)
        settings.retry =
            Retry{*options.retry, durations("--retry-interval", options.retry_intervals),
                  options.retry_at_front};
    else if (!options.retry_intervals.empty() || options.retry_at_front)
        throw Error(Errc::usage, "--retry: how often is not said");
    if (options.repeat)
        settings.repeat =
            Repeat{*options.repeat, durations("--repeat-interval", options.repeat_intervals)};
    else if (!options.repeat_intervals.empty())
        throw Error(Errc::usage, "--repeat: how often is not said");
    if (!options.depends_on.empty())
        settings.depends_on = Dependency{options.depends_on, options.allow_failure, false};
    else if (options.allow_failure)
        throw Error(Errc::usage, "--allow-failure: goes with --depends-on");
    settings.on_success = callback("--on-success", options.on_success);
    settings.on_failure = callback("--on-failure", options.on_failure);
    settings.on_stopped = callback("--on-stopped", options.on_stopped);
    settings.group = options.group;
    for (const auto& text : options.webhooks)
        settings.webhooks.push_back(webhook(text));
    if (!options.rate_limit.empty()) settings.rate_limit = rate_limit(options.rate_limit);
    if (!options.meta.empty()) {
        auto meta = decode_json(options.meta);
        if (!meta || !meta->is_dict())
            throw Error(Errc::usage, "--meta: a JSON object is expected");
        settings.meta = std::move(*meta);
    }
    settings.job_id = options.job_id;
    if (!options.description.empty()) settings.description = options.description;
    settings.at_front = options.at_front;
    settings.unique = options.unique;
    return settings;
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
    EnqueueOptions settings = enqueue_options(options);
    const std::string session = session_of(call);
    Queue queue(redis, options.queue, serializer);
    Enqueued enqueued;
    if (!options.at.empty())
        enqueued = co_await queue.enqueue_at(time_option(options.at), std::move(call),
                                             std::move(settings));
    else if (!options.in.empty())
        enqueued = co_await queue.enqueue_in(duration_option("--in", options.in), std::move(call),
                                             std::move(settings));
    else
        enqueued = co_await queue.enqueue(std::move(call), std::move(settings));
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
         !options.ttl.empty() || !options.description.empty() || !options.at.empty() ||
         !options.in.empty() || !options.depends_on.empty() || !options.retry_intervals.empty() ||
         options.retry_at_front || options.repeat || !options.on_success.empty() ||
         !options.on_failure.empty() || !options.on_stopped.empty() || !options.group.empty() ||
         !options.webhooks.empty() || !options.rate_limit.empty() || !options.meta.empty()))
        throw Error(Errc::usage,
                    "--priority: the policy sets TTLs, retries and place; only --timeout, --retry "
                    "and --job-id go with it");
    if (!options.at.empty() && !options.in.empty())
        throw Error(Errc::usage, "--at: give either it or --in");
    const Call call = parse_call(options.function, options.arguments, options.json_args);
    return with_redis(common, [&](RedisClient& redis, Logger& log) -> asio::awaitable<int> {
        const auto enqueued = co_await put(redis, log, options, call);
        if (enqueued.duplicate) {
            fmt::print(stderr,
                       "rqxx: a job with the id {} exists already ({}); nothing was enqueued\n",
                       enqueued.job_id, printable(enqueued.status));
            co_return 1;
        }
        fmt::print("{}\n", enqueued.job_id);
        std::fflush(stdout);
        if (!options.wait) co_return 0;
        co_return co_await wait_for_end(redis, enqueued.job_id);
    });
}

}  // namespace rqxx::cli
