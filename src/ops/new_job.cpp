#include "ops/new_job.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>
#include <rqxx/events.hpp>

#include "ops/deduplication.hpp"

namespace rqxx::ops {
namespace {

std::optional<std::int64_t> count(const std::optional<std::chrono::seconds>& duration) {
    if (!duration) return std::nullopt;
    return duration->count();
}

std::vector<std::int64_t> counts(const std::vector<std::chrono::seconds>& durations) {
    // RQ fails on an empty list.
    if (durations.empty()) return {0};
    std::vector<std::int64_t> result;
    result.reserve(durations.size());
    for (const auto duration : durations)
        result.push_back(duration.count());
    return result;
}

void check_intervals(std::string_view option, const std::vector<std::chrono::seconds>& intervals) {
    for (const auto interval : intervals)
        if (interval.count() < 0) refuse(option, "an interval must not be negative");
}

void check_callback(std::string_view option, const std::optional<Callback>& callback) {
    if (!callback) return;
    if (callback->name.empty()) refuse(option, "a name is needed");
    if (callback->timeout && callback->timeout->count() < 1)
        refuse(option, "the time limit must be at least 1 s");
}

void check_webhook(const Webhook& hook) {
    const auto url = boost::urls::parse_uri(hook.url);
    // Boost 1.81 takes what is no port for the beginning of the path.
    if (!url || (url->scheme() != "http" && url->scheme() != "https") || url->host().empty() ||
        (!url->encoded_path().empty() && !url->is_path_absolute()))
        refuse("webhooks", fmt::format("\"{}\" is not an http or https URL", hook.url));
    if (hook.job_status != status::finished && hook.job_status != status::failed)
        refuse("webhooks", "the status must be finished or failed");
    if (hook.method != "GET" && hook.method != "POST")
        refuse("webhooks", "the method must be GET or POST");
    if (hook.timeout.count() < 1) refuse("webhooks", "the time limit must be at least 1 s");
}

void check_rate_limit(const EnqueueOptions& options) {
    if (!options.rate_limit) return;
    const auto& [key, concurrency] = *options.rate_limit;
    if (key.empty()) refuse("rate_limit", "the key must not be empty");
    if (concurrency < 1 || concurrency > 1'000'000'000)
        refuse("rate_limit", "the concurrency must be from 1 to 1000000000");
    if (options.unique) refuse("rate_limit", "does not go with unique");
    if (options.dedup) refuse("rate_limit", "does not go with deduplication");
}

/// As rq/webhooks.py writes them.
std::string webhooks_json(const std::vector<Webhook>& webhooks) {
    Value::Items list;
    for (const auto& hook : webhooks) {
        Value::Pairs headers;
        for (const auto& [name, value] : hook.headers)
            headers.push_back({Value(name), Value(value)});
        list.push_back(Value::dict(
            {{Value("url"), Value(hook.url)},
             {Value("job_status"), Value(hook.job_status)},
             {Value("method"), Value(hook.method)},
             {Value("headers"), hook.headers.empty() ? Value() : Value::dict(std::move(headers))},
             {Value("timeout"), Value(hook.timeout.count())}}));
    }
    return encode_json(Value::list(std::move(list)));
}

void set_callback(const std::optional<Callback>& callback, std::string& name,
                  std::optional<std::int64_t>& timeout) {
    if (!callback) return;
    name = callback->name;
    timeout = callback->timeout.value_or(std::chrono::seconds(60)).count();
}

}  // namespace

void refuse(std::string_view option, std::string_view why) {
    throw Error(Errc::usage, fmt::format("{}: {}", option, why));
}

void check_queue_name(std::string_view name, std::string_view option) {
    if (name.empty()) refuse(option, "must not be empty");
    for (char c : name) {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == ',')
            refuse(option, "commas and control characters are not allowed");
    }
}

void check(const EnqueueOptions& options) {
    if (!options.job_id.empty() && !is_valid_job_id(options.job_id))
        refuse("job_id", "only letters, digits, _ and - are allowed, at most 512");
    if (options.timeout && options.timeout->count() != -1 && options.timeout->count() < 1)
        refuse("timeout", "must be at least 1 s, or -1 for none");
    if (options.ttl && options.ttl->count() < 1) refuse("ttl", "must be at least 1 s");
    if (options.result_ttl && options.result_ttl->count() < -1)
        refuse("result_ttl", "must be at least -1");
    if (options.failure_ttl && options.failure_ttl->count() < -1)
        refuse("failure_ttl", "must be at least -1");
    if (options.unique && options.job_id.empty()) refuse("unique", "needs a job_id");
    if (!options.meta.is_none() && !options.meta.is_dict()) refuse("meta", "must be a dict");
    if (options.retry) {
        if (options.retry->max < 0 || options.retry->max > 1'000'000)
            refuse("retry", "must be from 0 to 1000000");
        check_intervals("retry", options.retry->intervals);
    }
    if (options.repeat) {
        if (options.repeat->times < 1 || options.repeat->times > 1'000'000)
            refuse("repeat", "must be from 1 to 1000000");
        check_intervals("repeat", options.repeat->intervals);
    }
    if (options.depends_on) {
        for (const auto& id : options.depends_on->job_ids)
            if (!is_valid_job_id(id)) refuse("depends_on", fmt::format("\"{}\" is no job id", id));
        if (!options.job_id.empty() &&
            std::ranges::find(options.depends_on->job_ids, options.job_id) !=
                options.depends_on->job_ids.end())
            refuse("depends_on", "a job cannot wait for itself");
    }
    check_deduplication(options);
    check_callback("on_success", options.on_success);
    check_callback("on_failure", options.on_failure);
    check_callback("on_stopped", options.on_stopped);
    for (const auto& hook : options.webhooks)
        check_webhook(hook);
    check_rate_limit(options);
}

Job make_job(const Call& call, const EnqueueOptions& options, const std::string& queue,
             Serializer serializer, Timestamp now) {
    if (call.func_name.empty()) refuse("func_name", "must not be empty");
    Job job;
    job.id = options.job_id.empty() ? new_job_id() : options.job_id;
    job.data = encode_call(call, serializer);
    job.status = status::queued;
    job.origin = queue;
    job.description = options.description ? *options.description : describe_call(call);
    job.created_at = now;
    job.enqueued_at = now;
    job.timeout = options.timeout ? options.timeout->count() : 180;
    job.result_ttl = count(options.result_ttl);
    job.failure_ttl = count(options.failure_ttl);
    job.ttl = count(options.ttl);
    if (options.retry && options.retry->max > 0) {
        job.retries_left = options.retry->max;
        job.retry_intervals = counts(options.retry->intervals);
        if (options.retry->enqueue_at_front) job.enqueue_at_front_on_retry = true;
    }
    if (options.repeat) {
        job.repeats_left = options.repeat->times;
        job.repeat_intervals = counts(options.repeat->intervals);
    }
    if (options.depends_on && !options.depends_on->job_ids.empty()) {
        job.dependency_ids = options.depends_on->job_ids;
        // RQ writes both where a Dependency object says one.
        if (options.depends_on->allow_failure || options.depends_on->enqueue_at_front) {
            job.allow_dependency_failures = options.depends_on->allow_failure;
            job.enqueue_at_front = options.depends_on->enqueue_at_front;
        }
    }
    set_callback(options.on_success, job.success_callback_name, job.success_callback_timeout);
    set_callback(options.on_failure, job.failure_callback_name, job.failure_callback_timeout);
    set_callback(options.on_stopped, job.stopped_callback_name, job.stopped_callback_timeout);
    if (!options.webhooks.empty()) job.webhooks = webhooks_json(options.webhooks);
    job.group_id = options.group;
    if (options.rate_limit) {
        job.rate_limit_key = options.rate_limit->key;
        job.rate_limit_concurrency = options.rate_limit->concurrency;
    }
    if (!options.meta.is_none()) job.meta = encode(options.meta, serializer);
    return job;
}

void log_enqueued(Logger& log, const Enqueued& enqueued, std::string_view session,
                  std::string_view queue, std::chrono::seconds timeout) {
    if (enqueued.duplicate || enqueued.repeated) return;
    if (enqueued.replaced)
        log.info("Job replaced", "id", enqueued.job_id, "queue", queue, "timeout", timeout.count());
    else
        log_job_enqueued(log, enqueued.job_id, session, queue, timeout);
}

}  // namespace rqxx::ops
