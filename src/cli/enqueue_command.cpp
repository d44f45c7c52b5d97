#include <fmt/format.h>

#include <boost/json/object.hpp>
#include <charconv>
#include <rqxx/codec.hpp>
#include <rqxx/json.hpp>
#include <rqxx/monitor.hpp>

#include "base/task_group.hpp"
#include "cli/arguments.hpp"
#include "cli/commands.hpp"
#include "ops/enqueue_request.hpp"

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

Timestamp time_option(const std::string& text) {
    const auto time = parse_time(text);
    if (!time) throw Error(Errc::usage, fmt::format("--at: {}", time.error().message));
    return *time;
}

std::optional<Dedup> dedup_options(const EnqueueCommandOptions& options) {
    const int modes = !options.throttle.empty() + !options.debounce.empty() +
                      static_cast<int>(options.replace) + static_cast<int>(options.unique_call);
    if (modes > 1)
        throw Error(Errc::usage,
                    "--throttle, --debounce, --replace, --unique-call: give only one of them");
    if (modes == 0 && !options.dedup_key.empty())
        throw Error(Errc::usage,
                    "--dedup-key: goes with --throttle, --debounce, --replace or --unique-call");
    if (options.debounce.empty() && !options.debounce_max.empty())
        throw Error(Errc::usage, "--debounce-max: goes with --debounce");
    if (modes == 0) return std::nullopt;
    Dedup dedup;
    dedup.key = options.dedup_key;
    if (!options.throttle.empty()) {
        dedup.mode = DedupMode::throttle;
        dedup.period = duration_option("--throttle", options.throttle);
    } else if (!options.debounce.empty()) {
        dedup.mode = DedupMode::debounce;
        dedup.period = duration_option("--debounce", options.debounce);
        dedup.max_delay = optional_duration("--debounce-max", options.debounce_max);
    } else if (options.replace) {
        dedup.mode = DedupMode::replace;
    }
    return dedup;
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
    settings.dedup = dedup_options(options);
    return settings;
}

ops::EnqueueRequest enqueue_request(const EnqueueCommandOptions& options) {
    ops::EnqueueRequest request;
    request.call = parse_call(options.function, options.arguments, options.json_args);
    request.queue = options.queue;
    if (!options.priority.empty()) request.priority = parse_priority(options.priority).value();
    request.serializer = parse_serializer(options.serializer).value();
    if (!options.at.empty()) request.at = time_option(options.at);
    request.in = optional_duration("--in", options.in);
    request.options = enqueue_options(options);
    try {
        ops::check_combination(request);
    } catch (const Error& error) {
        throw Error(error.code(), "--" + error.message());
    }
    return request;
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
    if (options.function.empty()) throw Error(Errc::usage, "FUNC is required");
    for (const auto& [flag, given] :
         {std::pair("--partial", options.partial),
          std::pair("--batch-name", !options.batch_name.empty()),
          std::pair("--parent", !options.parent.empty()),
          std::pair("--on-complete", !options.on_complete.empty()),
          std::pair("--on-first-failure", !options.on_first_failure.empty()),
          std::pair("--follow-queue", !options.follow_queue.empty())})
        if (given) throw Error(Errc::usage, fmt::format("{}: goes with --batch", flag));
    const ops::EnqueueRequest request = enqueue_request(options);
    return with_redis(common, [&](RedisClient& redis, Logger& log) -> asio::awaitable<int> {
        const auto enqueued = co_await ops::enqueue(redis, log, request);
        if (options.json)
            fmt::print("{}\n", to_text(boost::json::object{
                                   {"job_id", enqueued.job_id},
                                   {"status", enqueued.status.empty()
                                                  ? boost::json::value()
                                                  : boost::json::value(enqueued.status)},
                                   {"duplicate", enqueued.duplicate},
                                   {"replaced", enqueued.replaced}}));
        if (enqueued.duplicate) {
            fmt::print(stderr, "rqxx: {}; nothing was enqueued\n",
                       printable(ops::refusal(enqueued, request)));
            co_return 1;
        }
        if (!options.json) fmt::print("{}\n", enqueued.job_id);
        std::fflush(stdout);
        if (!options.wait) co_return 0;
        co_return co_await wait_for_end(redis, enqueued.job_id);
    });
}

}  // namespace rqxx::cli
