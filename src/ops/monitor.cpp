#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <rqxx/monitor.hpp>
#include <rqxx/rules.hpp>
#include <tuple>

#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"
#include "ops/performance.hpp"
#include "ops/queue_counts.hpp"

namespace rqxx {

namespace asio = boost::asio;

using ops::add_counts;
using ops::counts;
using ops::counts_per_queue;
using ops::number;
using ops::Pauses;
using ops::redis_time;

namespace {

/// Jobs that one question looks at, however many queues there are.
constexpr std::size_t max_candidates = 2000;
constexpr std::size_t most_workers = 1000;

std::optional<Timestamp> epoch(std::string_view text) {
    const auto time = parse_epoch(text);
    return time ? std::optional(*time) : std::nullopt;
}

/// A running execution from its hash. Gone meanwhile: nothing.
void add_running(JobInfo& info, const Reply& hash) {
    if (!hash.is_array() || hash.elements.empty()) return;
    ExecutionInfo execution;
    execution.outcome = "started";
    for (const auto& [field, value] : hash.as_pairs()) {
        if (field == "id")
            execution.id = value;
        else if (field == "worker_name")
            execution.worker = value;
        else if (field == "created_at")
            execution.started_at = epoch(value);
        else if (field == "progress")
            execution.progress = value;
        else if (field == "stop")
            execution.stop = value;
    }
    if (execution.worker.empty()) execution.worker = info.job.worker_name;
    info.executions.insert(info.executions.begin(), std::move(execution));
}

void add_past(JobInfo& info, const Reply& stream) {
    if (!stream.is_array()) return;
    for (const auto& entry : stream.elements) {
        if (entry.elements.size() != 2) continue;
        const auto result = parse_result(entry.elements[0].text, entry.elements[1].as_pairs());
        if (!result) {
            info.problems.push_back(result.error());
            continue;
        }
        info.executions.push_back(
            {result->execution_id,
             result->worker_name,
             result->execution_started_at,
             result->execution_ended_at ? result->execution_ended_at : result->created_at,
             std::string(to_string(result->type)),
             result->return_value,
             result->exc_string,
             {},
             result->cause,
             result->max_rss_kb,
             result->cpu_seconds,
             {}});
    }
}

/// An entry of the log of a job's webhooks.
void add_attempt(JobInfo& info, const Reply& entry) {
    if (entry.elements.size() != 2) return;
    WebhookInfo hook;
    for (const auto& [field, value] : entry.elements[1].as_pairs()) {
        if (field == "delivery")
            hook.delivery = value;
        else if (field == "job_status")
            hook.job_status = value;
        else if (field == "method")
            hook.method = value;
        else if (field == "url")
            hook.url = value;
        else if (field == "outcome")
            hook.outcome = value;
        else if (field == "attempt")
            hook.attempt = number(value).value_or(0);
        else if (field == "code")
            hook.code = number(value);
        else if (field == "error")
            hook.error = value;
    }
    const std::string& id = entry.elements[0].text;
    if (const auto time = number(std::string_view(id).substr(0, id.find('-'))))
        hook.at = Timestamp{std::chrono::milliseconds(*time)};
    info.webhooks.push_back(std::move(hook));
}

/// `fields`: as asked for by `job_info`; `score`: when it is due. Gone meanwhile: nothing.
void add_pending(JobInfo& info, std::string id, const Reply& fields, const Reply& score) {
    if (!fields.is_array() || fields.elements.size() != 4 || !score.is_string()) return;
    WebhookInfo hook;
    hook.delivery = std::move(id);
    hook.job_status = fields.elements[0].text;
    hook.method = fields.elements[1].text;
    hook.url = fields.elements[2].text;
    hook.attempt = number(fields.elements[3].text).value_or(0);
    hook.outcome = "pending";
    const double due = std::strtod(score.text.c_str(), nullptr);
    if (due > 0 && due < 4e15) hook.at = Timestamp{std::chrono::microseconds(std::llround(due))};
    info.webhooks.push_back(std::move(hook));
}

/// Nothing for an absent key; a key that is no hash is a job with a problem.
std::optional<JobInfo> job_from(std::string_view id, const Reply& hash, Timestamp now) {
    JobInfo info;
    info.now = now;
    if (hash.is_error()) {
        info.job.id = id;
        info.job.status = "unreadable";
        info.problems.emplace_back("its key is not a hash", "rq:job");
        return info;
    }
    if (hash.elements.empty()) return std::nullopt;
    auto [job, problems] = parse_job_leniently(id, hash.as_pairs());
    info.job = std::move(job);
    info.problems = std::move(problems);
    return info;
}

constexpr int shown_results = 50;
constexpr int shown_webhooks = 50;

}  // namespace

QueueStats& QueueStats::operator+=(const QueueStats& other) noexcept {
    queued += other.queued;
    started += other.started;
    finished += other.finished;
    failed += other.failed;
    deferred += other.deferred;
    scheduled += other.scheduled;
    canceled += other.canceled;
    waiting_under_limits += other.waiting_under_limits;
    return *this;
}

asio::awaitable<std::vector<QueueStats>> Monitor::all_queue_stats() {
    co_return co_await queue_stats(co_await queue_names());
}

asio::awaitable<std::vector<std::string>> Monitor::queue_names() {
    const Reply known = co_await redis_->command("SMEMBERS", keys::queues);
    co_return ops::queue_names(known);
}

asio::awaitable<std::vector<QueueStats>> Monitor::queue_stats(std::vector<std::string> queues) {
    Pipeline pipeline;
    pipeline.add("HGETALL", keys::rules);
    for (const auto& queue : queues)
        add_counts(pipeline, queue);
    const auto replies = co_await redis_->run(std::move(pipeline));
    const Pauses pauses(replies.front());
    std::vector<QueueStats> stats;
    for (std::size_t i = 0; i < queues.size(); ++i) {
        stats.push_back(counts(std::move(queues[i]), &replies[1 + i * counts_per_queue]));
        stats.back().paused = pauses.hold(stats.back().queue_name);
    }
    co_return stats;
}

asio::awaitable<QueueStats> Monitor::queue_stats(std::string queue) {
    auto stats = co_await queue_stats(std::vector{std::move(queue)});
    co_return std::move(stats.front());
}

asio::awaitable<std::vector<RateLimitInfo>> Monitor::rate_limits() {
    const Reply members = co_await redis_->command("SRANDMEMBER", keys::rate_limits, 1000);
    Pipeline pipeline;
    for (const auto& member : members.as_array()) {
        pipeline.add("HGET", keys::rate_limit(member.text), "concurrency");
        pipeline.add("ZCARD", keys::allowed(member.text));
        pipeline.add("ZCARD", keys::rate_limited(member.text));
    }
    const auto replies = co_await redis_->run(std::move(pipeline));
    std::vector<RateLimitInfo> limits;
    for (std::size_t i = 0; i < members.elements.size(); ++i) {
        const auto count = [&](std::size_t at) {
            const Reply& reply = replies[3 * i + at];
            return reply.type == Reply::Type::integer ? reply.integer : 0;
        };
        limits.push_back({members.elements[i].text, number(replies[3 * i].text).value_or(0),
                          count(1), count(2)});
    }
    std::ranges::sort(limits, [](const RateLimitInfo& a, const RateLimitInfo& b) {
        return std::tie(b.rate_limited, a.key) < std::tie(a.rate_limited, b.key);
    });
    co_return limits;
}

asio::awaitable<std::optional<JobInfo>> Monitor::job_info(std::string id) {
    Pipeline first;
    first.add("TIME");
    first.add("HGETALL", keys::job(id));
    first.add("XREVRANGE", keys::results(id), "+", "-", "COUNT", shown_results);
    first.add("ZRANGE", keys::executions(id), 0, 19);
    first.add("SRANDMEMBER", keys::webhooks_of(id), shown_webhooks);
    first.add("XREVRANGE", keys::webhook_log(id), "+", "-", "COUNT", shown_webhooks);
    const auto replies = co_await redis_->run(std::move(first));
    auto info = job_from(id, replies[1], redis_time(replies[0]));
    if (!info) co_return std::nullopt;
    add_past(*info, replies[2]);
    Pipeline second;
    if (replies[3].is_array()) {
        for (const auto& execution : replies[3].elements)
            second.add("HGETALL", keys::execution(id, execution.text));
    }
    const std::size_t running = second.size();
    std::vector<std::string> pending;
    if (replies[4].is_array()) {
        for (const auto& member : replies[4].elements)
            pending.push_back(member.text);
    }
    std::sort(pending.begin(), pending.end());
    for (const auto& delivery : pending) {
        second.add("HMGET", keys::webhook(delivery), "job_status", "method", "shown_url",
                   "attempts");
        second.add("ZSCORE", keys::webhooks, delivery);
    }
    const auto details = co_await redis_->run(std::move(second));
    for (std::size_t i = 0; i < running; ++i)
        add_running(*info, details[i]);
    for (std::size_t i = 0; i < pending.size(); ++i)
        add_pending(*info, pending[i], details[running + 2 * i], details[running + 2 * i + 1]);
    if (replies[5].is_array()) {
        for (const auto& entry : replies[5].elements)
            add_attempt(*info, entry);
    }
    co_return info;
}

asio::awaitable<std::vector<JobInfo>> Monitor::recent_jobs(std::size_t limit, std::string queue,
                                                           std::string status) {
    std::vector<std::string> queues{queue};
    if (queue.empty()) {
        const Reply members = co_await redis_->command("SMEMBERS", keys::queues);
        queues = ops::queue_names(members);
    }
    if (queues.empty() || limit == 0) co_return std::vector<JobInfo>{};
    std::vector<std::string> args{std::to_string(limit), std::to_string(max_candidates),
                                  std::move(status), std::move(queue)};
    for (std::size_t i = 0; i < std::min(queues.size(), max_candidates); ++i)
        args.push_back(queues[i]);
    const Reply rows = co_await redis_->eval(lua::recent_jobs, {}, std::move(args));

    Pipeline details;
    details.add("TIME");
    for (const auto& row : rows.as_array()) {
        const std::string& id = row.elements.at(0).text;
        details.add("HGETALL", keys::job(id));
        details.add("XREVRANGE", keys::results(id), "+", "-", "COUNT", 10);
        details.add("HGETALL", keys::execution(id, row.elements.at(1).text));
    }
    const auto replies = co_await redis_->run(std::move(details));
    const Timestamp now = redis_time(replies[0]);
    std::vector<JobInfo> jobs;
    for (std::size_t i = 0; i < rows.elements.size(); ++i) {
        auto info = job_from(rows.elements[i].elements[0].text, replies[1 + i * 3], now);
        if (!info) continue;
        add_past(*info, replies[2 + i * 3]);
        add_running(*info, replies[3 + i * 3]);
        jobs.push_back(std::move(*info));
    }
    co_return jobs;
}

asio::awaitable<std::vector<WorkerInfo>> Monitor::workers() {
    auto names = co_await worker_names();
    if (names.size() > most_workers) names.resize(most_workers);
    co_return co_await workers(std::move(names));
}

asio::awaitable<std::vector<std::string>> Monitor::worker_names() {
    const Reply members = co_await redis_->command("SMEMBERS", keys::workers);
    std::vector<std::string> names;
    for (const auto& member : members.as_array())
        if (member.text.starts_with(keys::worker_prefix))
            names.push_back(member.text.substr(keys::worker_prefix.size()));
    std::sort(names.begin(), names.end());
    co_return names;
}

asio::awaitable<std::vector<WorkerInfo>> Monitor::workers(std::vector<std::string> names) {
    Pipeline pipeline;
    for (const auto& name : names) {
        pipeline.add("HGETALL", keys::worker(name));
        pipeline.add("SRANDMEMBER", keys::worker_executions(name), 100);
    }
    const auto replies = co_await redis_->run(std::move(pipeline));
    std::vector<WorkerInfo> workers;
    for (std::size_t i = 0; i < names.size(); ++i) {
        const Reply& hash = replies[2 * i];
        if (!hash.is_array() || hash.elements.empty()) continue;
        WorkerInfo worker;
        worker.name = names[i];
        const auto whole = [](std::string_view text) {
            return std::strtoll(std::string(text).c_str(), nullptr, 10);
        };
        const auto time = [](std::string_view text) {
            const auto parsed = parse_utc(text);
            return parsed ? std::optional(*parsed) : std::nullopt;
        };
        for (const auto& [field, value] : hash.as_pairs()) {
            if (field == "state")
                worker.state = value;
            else if (field == "hostname")
                worker.hostname = value;
            else if (field == "version")
                worker.version = value;
            else if (field == "current_job")
                worker.current_job = value;
            else if (field == "pid")
                worker.pid = whole(value);
            else if (field == "successful_job_count")
                worker.successful_job_count = whole(value);
            else if (field == "failed_job_count")
                worker.failed_job_count = whole(value);
            else if (field == "birth")
                worker.birth = time(value);
            else if (field == "last_heartbeat")
                worker.last_heartbeat = time(value);
            else if (field == "total_working_time") {
                worker.total_working_time = std::strtod(std::string(value).c_str(), nullptr);
                if (!std::isfinite(worker.total_working_time)) worker.total_working_time = 0;
            } else if (field == "queues") {
                std::string_view rest = value;
                while (!rest.empty()) {
                    const auto comma = std::min(rest.find(','), rest.size());
                    worker.queues.emplace_back(rest.substr(0, comma));
                    rest.remove_prefix(std::min(comma + 1, rest.size()));
                }
            }
        }
        if (replies[2 * i + 1].is_array()) {
            for (const auto& member : replies[2 * i + 1].elements)
                worker.jobs.push_back(member.text.substr(0, member.text.find(':')));
        }
        workers.push_back(std::move(worker));
    }
    co_return workers;
}

asio::awaitable<Performance> Monitor::performance(std::int64_t hours) {
    auto periods = co_await performance_periods({hours});
    co_return periods.front();
}

asio::awaitable<std::vector<Performance>> Monitor::performance_periods(
    std::vector<std::int64_t> hours) {
    const Timestamp now = redis_time(co_await redis_->command("TIME"));
    std::vector<ops::Span> spans;
    // The current minute belongs to the newest period; each period begins where the one before it
    // ends.
    auto end = std::chrono::ceil<std::chrono::minutes>(now + std::chrono::microseconds(1));
    for (const auto length : hours) {
        spans.push_back({end - std::chrono::hours(length), end});
        end = spans.back().from;
    }
    // As a transaction, so that a minute is seen either as the current one or in its buckets.
    Pipeline pipeline;
    pipeline.add("MULTI");
    pipeline.add("HGETALL", keys::metrics_now);
    std::vector<std::size_t> counts_of_span;
    for (const auto& span : spans) {
        const auto bucket_keys = ops::buckets(span, now);
        counts_of_span.push_back(bucket_keys.size());
        for (const auto& key : bucket_keys)
            pipeline.add("HGETALL", key);
    }
    pipeline.add("EXEC");
    const auto replies = co_await redis_->run(std::move(pipeline));
    const auto& hashes = replies.back().as_array();
    const auto fields_of = [](const Reply& hash) {
        return hash.is_array() ? hash.as_pairs() : decltype(hash.as_pairs()){};
    };
    const auto current = fields_of(hashes.at(0));
    const auto current_minute = ops::minute_of(current);
    std::vector<Performance> result;
    auto hash = hashes.begin() + 1;
    for (std::size_t i = 0; i < spans.size(); ++i) {
        ops::Figures figures;
        for (std::size_t n = 0; n < counts_of_span[i]; ++n, ++hash)
            figures.add(fields_of(*hash));
        if (current_minute && *current_minute >= spans[i].from && *current_minute < spans[i].to)
            figures.add(current);
        Performance performance = figures.summary();
        performance.hours = static_cast<double>(hours[i]);
        performance.from = spans[i].from;
        performance.to = spans[i].to;
        result.push_back(performance);
    }
    co_return result;
}

asio::awaitable<std::map<std::string, std::int64_t>> Monitor::totals() {
    const Reply hash = co_await redis_->command("HGETALL", keys::totals);
    std::map<std::string, std::int64_t> totals;
    for (const auto& [field, value] : hash.as_pairs())
        totals[std::string(field)] = std::strtoll(std::string(value).c_str(), nullptr, 10);
    co_return totals;
}

asio::awaitable<std::int64_t> Monitor::pending_webhooks() {
    const Reply count = co_await redis_->command("ZCARD", keys::webhooks);
    co_return count.as_integer();
}

}  // namespace rqxx
