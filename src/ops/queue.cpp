#include <fmt/format.h>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>
#include <map>
#include <rqxx/batch.hpp>
#include <rqxx/queue.hpp>
#include <span>

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

constexpr std::string_view evaluate_function = "eval_worker.evaluate";

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

/// One MULTI…EXEC for some of `jobs`. Hashes come before the ids that name them.
Pipeline transaction(const std::vector<NewJob>& jobs, std::span<const std::size_t> indices,
                     const Queue& queue, std::vector<Enqueued>& results) {
    const Timestamp now = utc_now();
    const std::string list = keys::queue(queue.name());
    Pipeline pipeline;
    pipeline.reserve(indices.size() * 640);
    pipeline.add("MULTI");
    pipeline.add("SADD", keys::queues, list);
    for (const std::size_t i : indices) {
        const auto& [call, options] = jobs[i];
        Job job = make_job(call, options, queue.name(), queue.serializer(), now);
        const std::string key = keys::job(job.id);
        add_hset(pipeline, key, field_values(job));
        if (job.ttl) pipeline.add("EXPIRE", key, *job.ttl);
        results[i] = {std::move(job.id), false, std::string(status::queued)};
    }
    pipeline.begin(2 + indices.size());
    pipeline.argument(std::string_view("RPUSH"));
    pipeline.argument(std::string_view(list));
    for (const std::size_t i : indices)
        pipeline.argument(std::string_view(results[i].job_id));
    std::vector<std::string> ids;
    for (const std::size_t i : indices)
        ids.push_back(results[i].job_id);
    pipeline.eval(lua::note_changes, {}, ids);
    pipeline.add("EXEC");
    return pipeline;
}

/// One call of the script that enqueues a job.
struct ScriptCall {
    const Script* script;
    std::vector<std::string> keys, args;
};

ScriptCall script_call(const Job& job, const Call& call, const EnqueueOptions& options,
                       std::optional<Timestamp> due) {
    std::vector<std::string> args{job.id,
                                  job.origin,
                                  options.at_front ? "L" : "R",
                                  options.unique       ? "1"
                                  : options.rate_limit ? "L"
                                                       : "0",
                                  job.ttl ? std::to_string(*job.ttl) : std::string(),
                                  std::string(),
                                  job.group_id,
                                  std::to_string(job.dependency_ids.size())};
    if (due)  // A registry's score: whole seconds, as RQ's.
        args[5] = std::to_string(
            std::chrono::floor<std::chrono::seconds>(due->time_since_epoch()).count());
    const bool once = options.dedup || options.idempotency;
    std::string dedup_key, request_key;
    if (once) {
        const auto text = [](const std::optional<std::chrono::seconds>& duration) {
            return duration ? std::to_string(duration->count()) : std::string();
        };
        const Dedup dedup = options.dedup.value_or(Dedup{});
        const Idempotency request = options.idempotency.value_or(Idempotency{});
        if (options.dedup) dedup_key = dedup.key.empty() ? default_dedup_key(call) : dedup.key;
        request_key = request.key;
        args.emplace_back(options.dedup ? to_string(dedup.mode) : std::string_view());
        args.push_back(dedup_key);
        args.push_back(text(dedup.period));
        args.push_back(text(dedup.max_delay));
        args.push_back(request.asked);
        args.push_back(std::to_string(request.lifetime.count()));
    }
    args.insert(args.end(), job.dependency_ids.begin(), job.dependency_ids.end());
    for (auto& [field, value] : field_values(job)) {
        args.emplace_back(field);
        args.push_back(std::move(value));
    }
    const std::string list = keys::queue(job.origin);
    if (!once) return {&lua::enqueue, {keys::job(job.id), list}, std::move(args)};
    return {
        &lua::enqueue_once,
        {list, keys::dedup(dedup_key), keys::idempotency(request_key), std::string(keys::dedups)},
        std::move(args)};
}

Enqueued enqueued(std::string job_id, const Reply& reply) {
    static constexpr std::string_view words[] = {"", status::queued, status::scheduled,
                                                 status::deferred, status::rate_limited};
    const auto& parts = reply.as_array();
    const auto code = static_cast<std::size_t>(parts.at(0).as_integer());
    if (code == 5) refuse("group", fmt::format("the batch of this name is {}", parts.at(1).text));
    if (code == 6)
        refuse("idempotency_key", "was used for another request, less than its lifetime ago");
    Enqueued result{std::move(job_id), code == 0,
                    code == 0 ? parts.at(1).as_text() : std::string(words[code])};
    if (parts.size() > 2) {
        result.job_id = parts[2].as_text();
        result.replaced = parts.at(3).as_text() == "1";
        result.repeated = parts.at(4).as_text() == "1";
    }
    return result;
}

/// Indices of the jobs that a plain transaction can enqueue, and of the others: each after those of
/// the same call that it depends on.
std::pair<std::vector<std::size_t>, std::vector<std::size_t>> plain_first(
    const std::vector<NewJob>& jobs) {
    std::vector<std::size_t> plain, others;
    std::map<std::string_view, std::size_t> by_id;
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        const auto& options = jobs[i].options;
        const bool is_plain = options.job_id.empty() && !options.depends_on &&
                              options.group.empty() && !options.at_front && !options.rate_limit &&
                              !options.dedup && !options.idempotency;
        (is_plain ? plain : others).push_back(i);
        if (!options.job_id.empty()) by_id.emplace(options.job_id, i);
    }
    enum class Mark : char { none, open, done };
    std::vector<Mark> marks(jobs.size(), Mark::none);
    std::vector<std::size_t> ordered;
    // Depth first, with a stack of its own: chains may be long.
    for (const std::size_t root : others) {
        std::vector<std::pair<std::size_t, std::size_t>> stack;  // job, next dependency to look at
        if (marks[root] == Mark::none) stack.emplace_back(root, 0);
        while (!stack.empty()) {
            auto& [job, next] = stack.back();
            marks[job] = Mark::open;
            const auto& dependency = jobs[job].options.depends_on;
            if (!dependency || next == dependency->job_ids.size()) {
                marks[job] = Mark::done;
                ordered.push_back(job);
                stack.pop_back();
                continue;
            }
            const auto parent = by_id.find(dependency->job_ids[next++]);
            if (parent == by_id.end() || marks[parent->second] == Mark::done) continue;
            if (marks[parent->second] == Mark::open)
                refuse("depends_on", fmt::format("jobs wait for each other: {}", parent->first));
            stack.emplace_back(parent->second, 0);
        }
    }
    return {std::move(plain), std::move(ordered)};
}

}  // namespace

Queue::Queue(RedisClient& redis, std::string name, Serializer serializer)
    : redis_(&redis), name_(std::move(name)), serializer_(serializer) {
    ops::check_queue_name(name_);
}

asio::awaitable<Enqueued> Queue::enqueue(Call call, EnqueueOptions options) {
    check(options);
    const Job job = make_job(call, options, name_, serializer_, utc_now());
    auto [script, keys, args] = script_call(job, call, options, {});
    co_return enqueued(job.id, co_await redis_->eval(*script, std::move(keys), std::move(args)));
}

asio::awaitable<Enqueued> Queue::enqueue_at(Timestamp due, Call call, EnqueueOptions options) {
    check(options);
    if (options.depends_on)
        refuse("depends_on", "a job is either scheduled or waits for others; give one of the two");
    if (options.dedup && options.dedup->mode == DedupMode::debounce)
        refuse("dedup", "when a debounced job starts is up to its period; give no time beside it");
    Job job = make_job(call, options, name_, serializer_, utc_now());
    if (options.at_front) job.enqueue_at_front = true;
    auto [script, keys, args] = script_call(job, call, options, due);
    co_return enqueued(job.id, co_await redis_->eval(*script, std::move(keys), std::move(args)));
}

asio::awaitable<Enqueued> Queue::enqueue_in(std::chrono::seconds delay, Call call,
                                            EnqueueOptions options) {
    return enqueue_at(utc_now() + delay, std::move(call), std::move(options));
}

asio::awaitable<std::vector<Enqueued>> Queue::enqueue_many(std::vector<NewJob> jobs) {
    for (const auto& job : jobs)
        check(job.options);
    const auto [plain, others] = plain_first(jobs);
    std::vector<Enqueued> results(jobs.size());
    co_await enqueue_plain(jobs, plain, results);
    co_await enqueue_one_by_one(jobs, others, results);
    co_return results;
}

/// The next transaction is encoded while Redis works on the one before.
asio::awaitable<void> Queue::enqueue_plain(const std::vector<NewJob>& jobs,
                                           const std::vector<std::size_t>& indices,
                                           std::vector<Enqueued>& results) {
    std::deque<RedisClient::Pending> in_flight;
    const auto finish_oldest =
        [](std::deque<RedisClient::Pending>& pending) -> asio::awaitable<void> {
        auto replies = co_await pending.front().replies();
        pending.pop_front();
        for (const auto& reply : replies)
            reply.throw_if_error();
    };
    for (std::size_t begin = 0; begin < indices.size(); begin += chunk_size) {
        const auto chunk =
            std::span(indices).subspan(begin, std::min(chunk_size, indices.size() - begin));
        in_flight.push_back(redis_->submit(transaction(jobs, chunk, *this, results)));
        co_await asio::post(redis_->executor(), asio::use_awaitable);
        if (in_flight.size() == 6) co_await finish_oldest(in_flight);
    }
    while (!in_flight.empty())
        co_await finish_oldest(in_flight);
}

asio::awaitable<void> Queue::enqueue_one_by_one(const std::vector<NewJob>& jobs,
                                                const std::vector<std::size_t>& indices,
                                                std::vector<Enqueued>& results) {
    const Timestamp now = utc_now();
    for (std::size_t begin = 0; begin < indices.size(); begin += chunk_size) {
        const std::size_t end = std::min(begin + chunk_size, indices.size());
        std::vector<ScriptCall> calls;
        Pipeline pipeline;
        for (std::size_t i = begin; i < end; ++i) {
            const auto& [call, options] = jobs[indices[i]];
            const Job job = make_job(call, options, name_, serializer_, now);
            results[indices[i]].job_id = job.id;
            calls.push_back(script_call(job, call, options, {}));
            pipeline.eval(*calls.back().script, calls.back().keys, calls.back().args);
        }
        auto replies = co_await redis_->run(std::move(pipeline));
        for (std::size_t i = begin; i < end; ++i) {
            Reply& reply = replies[i - begin];
            // A script that Redis has lost is loaded again by the single call.
            if (reply.is_error() && reply.text.starts_with("NOSCRIPT"))
                reply = co_await redis_->eval(*calls[i - begin].script,
                                              std::move(calls[i - begin].keys),
                                              std::move(calls[i - begin].args));
            reply.throw_if_error();
            results[indices[i]] = enqueued(results[indices[i]].job_id, reply);
        }
    }
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

static EnqueueOptions settings_of(const ResolvedPolicy& policy) {
    EnqueueOptions settings;
    settings.timeout = policy.timeout;
    settings.result_ttl = policy.result_ttl;
    settings.failure_ttl = policy.failure_ttl;
    settings.retry = Retry{.max = policy.retry, .intervals = {}, .enqueue_at_front = false};
    return settings;
}

static Call evaluation_of(std::string session_id) {
    return {.func_name = std::string(evaluate_function),
            .instance = {},
            .args = Value::tuple({Value(std::move(session_id))})};
}

OptimizedQueue::OptimizedQueue(RedisClient& redis, Logger& log, Serializer serializer)
    : redis_(&redis), log_(&log), serializer_(serializer) {}

asio::awaitable<Enqueued> OptimizedQueue::enqueue(Call call, OptimizedOptions options) {
    const ResolvedPolicy policy = resolve_policy(options);
    EnqueueOptions settings = settings_of(policy);
    settings.job_id = options.job_id;
    settings.unique = !options.job_id.empty();
    settings.dedup = std::move(options.dedup);
    settings.idempotency = std::move(options.idempotency);
    if (options.session_id.empty()) options.session_id = session_of(call);
    Queue queue(*redis_, policy.queue, serializer_);
    Enqueued enqueued = co_await queue.enqueue(std::move(call), std::move(settings));
    ops::log_enqueued(*log_, enqueued, options.session_id, policy.queue, policy.timeout);
    co_return enqueued;
}

asio::awaitable<Enqueued> OptimizedQueue::enqueue_evaluation(std::string session_id,
                                                             OptimizedOptions options) {
    co_return co_await enqueue(evaluation_of(std::move(session_id)), std::move(options));
}

asio::awaitable<EnqueuedBatch> OptimizedQueue::enqueue_evaluations(
    std::vector<std::string> session_ids, OptimizedOptions options) {
    const ResolvedPolicy policy = resolve_policy(options);
    std::vector<NewJob> jobs;
    jobs.reserve(session_ids.size());
    for (const auto& session : session_ids)
        jobs.push_back({evaluation_of(session), settings_of(policy)});
    const Queue queue(*redis_, policy.queue, serializer_);
    Batch batch = co_await Batch::create(*redis_, {}, serializer_);
    EnqueuedBatch result{batch.id(), {}};
    const auto enqueued = co_await batch.add(queue, std::move(jobs));
    co_await batch.seal();
    for (std::size_t i = 0; i < enqueued.size(); ++i) {
        result.job_ids.push_back(enqueued[i].job_id);
        ops::log_enqueued(*log_, enqueued[i], session_ids[i], policy.queue, policy.timeout);
    }
    co_return result;
}

}  // namespace rqxx
