#include <fmt/format.h>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>
#include <rqxx/events.hpp>
#include <rqxx/queue.hpp>

#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"

namespace rqxx {
namespace {

namespace asio = boost::asio;

/// Jobs of one transaction. Redis keeps the arguments of a transaction until EXEC: 500 jobs fall
/// out of its processor cache and cost 1.7 times as much.
constexpr std::size_t chunk_size = 64;

constexpr std::string_view evaluate_function = "eval_worker.evaluate";

[[noreturn]] void refuse(std::string_view option, std::string_view why) {
    throw Error(Errc::usage, fmt::format("{}: {}", option, why));
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

std::optional<std::int64_t> count(const std::optional<std::chrono::seconds>& duration) {
    if (!duration) return std::nullopt;
    return duration->count();
}

/// A job about to be queued. `now` is the producer's clock, as in RQ.
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
    if (name_.empty()) refuse("queue", "must not be empty");
    for (char c : name_) {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == ',')
            refuse("queue", "commas and control characters are not allowed");
    }
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

std::string session_of(const Call& call) {
    if (call.func_name != evaluate_function) return {};
    const Value* session = call.kwargs.find("session_id");
    if (call.args.is_sequence() && !call.args.items().empty()) session = &call.args.items().front();
    if (session == nullptr) return {};
    if (session->is_string()) return session->as_text();
    return session->kind() == Value::Kind::integer ? std::to_string(session->as_integer())
                                                   : std::string();
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
    if (options.session_id.empty()) options.session_id = session_of(call);
    Queue queue(*redis_, policy.queue, serializer_);
    Enqueued enqueued = co_await queue.enqueue(std::move(call), std::move(settings));
    if (!enqueued.duplicate)
        log_job_enqueued(*log_, enqueued.job_id, options.session_id, policy.queue, policy.timeout);
    co_return enqueued;
}

asio::awaitable<Enqueued> OptimizedQueue::enqueue_evaluation(std::string session_id,
                                                             OptimizedOptions options) {
    Call call{.func_name = std::string(evaluate_function),
              .instance = {},
              .args = Value::tuple({Value(std::move(session_id))})};
    co_return co_await enqueue(std::move(call), std::move(options));
}

}  // namespace rqxx
