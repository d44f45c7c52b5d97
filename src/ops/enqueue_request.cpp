#include "ops/enqueue_request.hpp"

#include <fmt/format.h>

#include <rqxx/events.hpp>

#include "ops/new_job.hpp"

namespace rqxx::ops {

namespace asio = boost::asio;

namespace {

/// What the policy decides, or has no say for.
bool beyond_policy(const EnqueueRequest& request) {
    const EnqueueOptions& options = request.options;
    const bool more_of_retry =
        options.retry && (!options.retry->intervals.empty() || options.retry->enqueue_at_front);
    return options.at_front || options.result_ttl || options.failure_ttl || options.ttl ||
           options.description || request.at || request.in || options.depends_on || more_of_retry ||
           options.repeat || options.on_success || options.on_failure || options.on_stopped ||
           !options.group.empty() || !options.webhooks.empty() || !options.meta.is_none() ||
           options.rate_limit || (options.dedup && options.dedup->mode == DedupMode::debounce);
}

asio::awaitable<Enqueued> enqueue_under_policy(RedisClient& redis, Logger& log,
                                               EnqueueRequest request) {
    EnqueueOptions& options = request.options;
    OptimizedOptions settings;
    settings.priority = *request.priority;
    settings.timeout = options.timeout;
    if (options.retry) settings.retry = options.retry->max;
    settings.job_id = std::move(options.job_id);
    settings.dedup = std::move(options.dedup);
    settings.idempotency = std::move(options.idempotency);
    OptimizedQueue queue(redis, log, request.serializer);
    co_return co_await queue.enqueue(std::move(request.call), std::move(settings));
}

}  // namespace

void check_combination(const EnqueueRequest& request) {
    if (request.priority && request.queue != "default")
        refuse("queue", "the priority decides the queue; give only one of them");
    if (request.priority && beyond_policy(request))
        refuse("priority",
               "the policy sets TTLs, retries and place; only time limit, retries, id "
               "and what refuses duplicates go with it");
    if (request.at && request.in) refuse("at", "give either it or in");
}

asio::awaitable<Enqueued> enqueue(RedisClient& redis, Logger& log, EnqueueRequest request) {
    check_combination(request);
    if (request.priority) co_return co_await enqueue_under_policy(redis, log, std::move(request));
    const auto timeout = request.options.timeout.value_or(std::chrono::seconds(180));
    const std::string session = session_of(request.call);
    Queue queue(redis, request.queue, request.serializer);
    Enqueued enqueued;
    if (request.at)
        enqueued = co_await queue.enqueue_at(*request.at, std::move(request.call),
                                             std::move(request.options));
    else if (request.in)
        enqueued = co_await queue.enqueue_in(*request.in, std::move(request.call),
                                             std::move(request.options));
    else
        enqueued = co_await queue.enqueue(std::move(request.call), std::move(request.options));
    log_enqueued(log, enqueued, session, request.queue, timeout);
    co_return enqueued;
}

std::string refusal(const Enqueued& enqueued, const EnqueueRequest& request) {
    const auto& dedup = request.options.dedup;
    if (!dedup || enqueued.job_id == request.options.job_id)
        return fmt::format("a job with the id {} exists already ({})", enqueued.job_id,
                           enqueued.status);
    if (dedup->mode == DedupMode::throttle)
        return fmt::format("throttled: job {} of the same key was enqueued less than {} s ago",
                           enqueued.job_id, dedup->period->count());
    return fmt::format("job {} of the same key has not ended yet ({})", enqueued.job_id,
                       enqueued.status);
}

}  // namespace rqxx::ops
