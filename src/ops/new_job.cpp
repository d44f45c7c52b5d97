#include "ops/new_job.hpp"

#include <fmt/format.h>

namespace rqxx::ops {
namespace {

std::optional<std::int64_t> count(const std::optional<std::chrono::seconds>& duration) {
    if (!duration) return std::nullopt;
    return duration->count();
}

}  // namespace

void refuse(std::string_view option, std::string_view why) {
    throw Error(Errc::usage, fmt::format("{}: {}", option, why));
}

void check_queue_name(std::string_view name) {
    if (name.empty()) refuse("queue", "must not be empty");
    for (char c : name) {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == ',')
            refuse("queue", "commas and control characters are not allowed");
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
        for (const auto interval : options.retry->intervals)
            if (interval.count() < 0) refuse("retry", "an interval must not be negative");
    }
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
        for (const auto interval : options.retry->intervals)
            job.retry_intervals.push_back(interval.count());
        if (options.retry->enqueue_at_front) job.enqueue_at_front_on_retry = true;
    }
    if (options.at_front) job.enqueue_at_front = true;
    if (!options.meta.is_none()) job.meta = encode(options.meta, serializer);
    return job;
}

}  // namespace rqxx::ops
