#include <fmt/format.h>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>
#include <rqxx/events.hpp>
#include <rqxx/queue.hpp>

#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"
#include "ops/new_job.hpp"

namespace rqxx {

using ops::check;
using ops::make_job;
using ops::refuse;

namespace {

namespace asio = boost::asio;

/// Jobs of one transaction. Redis keeps the arguments of a transaction until EXEC: 500 jobs fall
/// out of its processor cache and cost 1.7 times as much.
constexpr std::size_t chunk_size = 64;

void add_hset(Pipeline& pipeline, const std::string& key,
              const std::vector<std::pair<std::string_view, std::string>>& fields) {
    pipeline.begin(2 + 2 * fields.size());
    pipeline.argument(std::string_view("HSET"));
    pipeline.argument(std::string_view(key));
    for (const auto& [field, value] : fields) {
        pipeline.argument(field);
        pipeline.argument(std::string_view(value));
    }
}

/// One MULTI…EXEC for `jobs[begin, end)`. Hashes come before the ids that name them.
Pipeline transaction(const std::vector<NewJob>& jobs, std::size_t begin, std::size_t end,
                     const Queue& queue, std::vector<std::string>& ids) {
    const Timestamp now = utc_now();
    const std::string list = keys::queue(queue.name());
    Pipeline pipeline;
    pipeline.reserve((end - begin) * 640);
    pipeline.add("MULTI");
    pipeline.add("SADD", keys::queues, list);
    std::vector<std::string> back;
    for (std::size_t i = begin; i < end; ++i) {
        const auto& [call, options] = jobs[i];
        Job job = make_job(call, options, queue.name(), queue.serializer(), now);
        const std::string key = keys::job(job.id);
        if (!options.job_id.empty()) pipeline.add("DEL", key);
        add_hset(pipeline, key, field_values(job));
        if (job.ttl) pipeline.add("EXPIRE", key, *job.ttl);
        if (options.at_front)
            pipeline.add("LPUSH", list, job.id);
        else
            back.push_back(job.id);
        ids.push_back(std::move(job.id));
    }
    if (!back.empty()) {
        pipeline.begin(2 + back.size());
        pipeline.argument(std::string_view("RPUSH"));
        pipeline.argument(std::string_view(list));
        for (const auto& id : back)
            pipeline.argument(std::string_view(id));
    }
    pipeline.add("EXEC");
    return pipeline;
}

}  // namespace

Queue::Queue(RedisClient& redis, std::string name, Serializer serializer)
    : redis_(&redis), name_(std::move(name)), serializer_(serializer) {
    ops::check_queue_name(name_);
}

asio::awaitable<Enqueued> Queue::enqueue(Call call, EnqueueOptions options) {
    check(options);
    const Job job = make_job(call, options, name_, serializer_, utc_now());
    std::vector<std::string> args{job.id, options.at_front ? "L" : "R", options.unique ? "1" : "0",
                                  job.ttl ? std::to_string(*job.ttl) : std::string()};
    for (auto& [field, value] : field_values(job)) {
        args.emplace_back(field);
        args.push_back(std::move(value));
    }
    const Reply reply = co_await redis_->eval(lua::enqueue, {keys::job(job.id), keys::queue(name_)},
                                              std::move(args));
    co_return Enqueued{job.id, reply.as_integer() == 0};
}

asio::awaitable<std::vector<std::string>> Queue::enqueue_many(std::vector<NewJob> jobs) {
    for (const auto& job : jobs) {
        check(job.options);
        if (job.options.unique) refuse("unique", "is not supported for many jobs at once");
    }
    std::vector<std::string> ids;
    ids.reserve(jobs.size());
    // The next transaction is encoded while Redis works on the one before.
    std::deque<RedisClient::Pending> in_flight;
    const auto finish_oldest =
        [](std::deque<RedisClient::Pending>& pending) -> asio::awaitable<void> {
        auto replies = co_await pending.front().replies();
        pending.pop_front();
        for (const auto& reply : replies)
            reply.throw_if_error();
    };
    for (std::size_t begin = 0; begin < jobs.size(); begin += chunk_size) {
        const std::size_t end = std::min(begin + chunk_size, jobs.size());
        in_flight.push_back(redis_->submit(transaction(jobs, begin, end, *this, ids)));
        co_await asio::post(redis_->executor(), asio::use_awaitable);
        if (in_flight.size() == 6) co_await finish_oldest(in_flight);
    }
    while (!in_flight.empty())
        co_await finish_oldest(in_flight);
    co_return ids;
}

asio::awaitable<std::int64_t> Queue::size() {
    co_return (co_await redis_->command("LLEN", keys::queue(name_))).as_integer();
}

Parsed<Priority> parse_priority(std::string_view text) noexcept {
    if (text == "high") return Priority::high;
    if (text == "normal") return Priority::normal;
    if (text == "low") return Priority::low;
    return ParseError(fmt::format("\"{}\" is not one of high, normal, low", text.substr(0, 40)),
                      "priority");
}

ResolvedPolicy resolve_policy(const OptimizedOptions& options) {
    using std::chrono::seconds;
    if (options.timeout && (options.timeout->count() < 1 || options.timeout->count() > 31'536'000))
        refuse("timeout", "must be from 1 s to a year");
    if (options.retry && (*options.retry < 0 || *options.retry > 100))
        refuse("retry", "must be from 0 to 100");
    ResolvedPolicy policy{.queue = "default",
                          .timeout = options.timeout.value_or(seconds(300)),
                          .result_ttl = seconds(3600),
                          .failure_ttl = seconds(86400),
                          .retry = options.retry.value_or(2)};
    if (options.priority == Priority::high) {
        policy.queue = "high";
        policy.timeout = std::min(options.timeout.value_or(seconds(600)), seconds(600));
    } else if (options.priority == Priority::low) {
        policy.queue = "low";
        policy.timeout = std::max(options.timeout.value_or(seconds(180)), seconds(180));
    }
    return policy;
}

OptimizedQueue::OptimizedQueue(RedisClient& redis, Logger& log, Serializer serializer)
    : redis_(&redis), log_(&log), serializer_(serializer) {}

asio::awaitable<Enqueued> OptimizedQueue::enqueue(Call call, OptimizedOptions options) {
    const ResolvedPolicy policy = resolve_policy(options);
    EnqueueOptions settings;
    settings.job_id = options.job_id;
    settings.unique = !options.job_id.empty();
    settings.timeout = policy.timeout;
    settings.result_ttl = policy.result_ttl;
    settings.failure_ttl = policy.failure_ttl;
    settings.retry = Retry{.max = policy.retry, .intervals = {}, .enqueue_at_front = false};
    Queue queue(*redis_, policy.queue, serializer_);
    Enqueued enqueued = co_await queue.enqueue(std::move(call), std::move(settings));
    if (!enqueued.duplicate)
        log_job_enqueued(*log_, enqueued.job_id, options.session_id, policy.queue, policy.timeout);
    co_return enqueued;
}

asio::awaitable<Enqueued> OptimizedQueue::enqueue_evaluation(std::string session_id,
                                                             OptimizedOptions options) {
    options.session_id = session_id;
    Call call{.func_name = "eval_worker.evaluate",
              .instance = {},
              .args = Value::tuple({Value(std::move(session_id))})};
    co_return co_await enqueue(std::move(call), std::move(options));
}

}  // namespace rqxx
