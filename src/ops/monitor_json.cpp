#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <rqxx/monitor.hpp>

namespace rqxx {
namespace {

namespace json = boost::json;

template <class T>
json::value optional_json(const std::optional<T>& number) {
    return number ? json::value(*number) : json::value();
}

json::value time_json(const std::optional<Timestamp>& time) {
    return time ? json::value(format_utc(*time)) : json::value(nullptr);
}

json::value number_json(const std::optional<std::int64_t>& number) {
    return number ? json::value(*number) : json::value(nullptr);
}

json::value text_json(const std::string& text) {
    return text.empty() ? json::value(nullptr) : to_json(Value(text));
}

/// A payload that cannot be shown, labelled with the reason.
json::value undecodable(const ParseError& error) {
    return json::object{{"$undecodable", error.describe()}};
}

json::value payload_json(std::string_view bytes) {
    if (bytes.empty()) return nullptr;
    const auto value = decode(bytes);
    return value ? to_json(*value) : undecodable(value.error());
}

double seconds_between(Timestamp from, Timestamp to) {
    return std::max(0.0, std::chrono::duration<double>(to - from).count());
}

double rounded(double value, double factor) {
    return std::isfinite(value) ? std::round(value * factor) / factor : 0.0;
}

double percent_change(double now, double before) {
    return before == 0 ? 0 : rounded(100 * (now - before) / before, 100);
}

json::object changes_json(const Performance& now, const Performance& before) {
    return {{"duration_change_percent", percent_change(now.duration.avg, before.duration.avg)},
            {"throughput_change_percent",
             percent_change(now.throughput_per_hour(), before.throughput_per_hour())},
            {"success_rate_change", rounded(now.success_rate() - before.success_rate(), 100)},
            {"is_improving", now.duration.avg < before.duration.avg &&
                                 now.success_rate() >= before.success_rate()}};
}

/// RQ before 1.14 and on old Redis kept these in the hash.
const std::string* legacy_field(const Job& job, std::string_view name) {
    for (const auto& [field, value] : job.extra) {
        if (field == name && !value.empty()) return &value;
    }
    return nullptr;
}

const ExecutionInfo* latest_ended(const JobInfo& info) {
    for (const auto& execution : info.executions) {
        if (execution.outcome != "started") return &execution;
    }
    return nullptr;
}

json::value exc_info_json(const JobInfo& info) {
    const auto* latest = latest_ended(info);
    if (latest != nullptr) return text_json(latest->error);
    const auto* legacy = legacy_field(info.job, "exc_info");
    if (legacy == nullptr) return nullptr;
    const auto text = zlib_decompress(*legacy, 1 << 20);
    return text_json(text ? *text : *legacy);
}

}  // namespace

double Performance::success_rate() const noexcept {
    return total() == 0 ? 0
                        : 100.0 * static_cast<double>(successful) / static_cast<double>(total());
}

double Performance::throughput_per_hour() const noexcept {
    return hours <= 0 ? 0 : static_cast<double>(total()) / hours;
}

json::object to_json(const QueueStats& stats) {
    return {{"queue_name", to_json(Value(stats.queue_name))},
            {"queued", stats.queued},
            {"started", stats.started},
            {"finished", stats.finished},
            {"failed", stats.failed},
            {"deferred", stats.deferred},
            {"scheduled", stats.scheduled},
            {"canceled", stats.canceled}};
}

json::object to_json(const RateLimitInfo& limit) {
    return {{"key", to_json(Value(limit.key))},
            {"concurrency", limit.concurrency},
            {"allowed", limit.allowed},
            {"rate_limited", limit.rate_limited}};
}

json::object to_json_with_rules(const QueueStats& stats) {
    json::object out = to_json(stats);
    out["paused"] = stats.paused;
    out["waiting_under_limits"] = stats.waiting_under_limits;
    return out;
}

json::object to_json(const WorkerInfo& worker) {
    json::array queues, jobs;
    for (const auto& queue : worker.queues)
        queues.push_back(to_json(Value(queue)));
    for (const auto& job : worker.jobs)
        jobs.push_back(to_json(Value(job)));
    return {{"name", to_json(Value(worker.name))},
            {"state", to_json(Value(worker.state.empty() ? "?" : worker.state))},
            {"hostname", text_json(worker.hostname)},
            {"pid", worker.pid},
            {"version", text_json(worker.version)},
            {"queues", std::move(queues)},
            {"current_job", text_json(worker.current_job)},
            {"jobs", std::move(jobs)},
            {"successful_job_count", worker.successful_job_count},
            {"failed_job_count", worker.failed_job_count},
            {"total_working_time", rounded(worker.total_working_time, 1e6)},
            {"birth", time_json(worker.birth)},
            {"last_heartbeat", time_json(worker.last_heartbeat)}};
}

json::value result_json(const JobInfo& info) {
    const auto* latest = latest_ended(info);
    if (latest != nullptr)
        return latest->outcome == "successful" ? payload_json(latest->return_value) : nullptr;
    const auto* legacy = legacy_field(info.job, "result");
    return legacy != nullptr ? payload_json(*legacy) : nullptr;
}

json::object to_json(const JobInfo& info) {
    const Job& job = info.job;
    json::value func_name = nullptr, args = nullptr, kwargs = nullptr;
    if (const auto call = decode_call(job.data)) {
        func_name = to_json(Value(call->func_name));
        args = to_json(call->args);
        kwargs = to_json(call->kwargs);
    } else if (!job.data.empty()) {
        args = undecodable(call.error());
    }
    const bool running = job.status == status::started;
    json::value duration = nullptr, queued_for = nullptr;
    if (job.started_at && !running && job.ended_at)
        duration = seconds_between(*job.started_at, *job.ended_at);
    else if (job.started_at && running)
        duration = seconds_between(*job.started_at, info.now);
    if (job.enqueued_at && job.started_at && *job.started_at >= *job.enqueued_at)
        queued_for = seconds_between(*job.enqueued_at, *job.started_at);
    else if (job.enqueued_at && job.status == status::queued)
        queued_for = seconds_between(*job.enqueued_at, info.now);

    json::value rate_limit = nullptr;
    if (!job.rate_limit_key.empty())
        rate_limit = json::object{{"key", to_json(Value(job.rate_limit_key))},
                                  {"concurrency", number_json(job.rate_limit_concurrency)}};
    json::array depends_on, executions, webhooks, problems;
    for (const auto& id : job.dependency_ids)
        depends_on.push_back(to_json(Value(id)));
    for (const auto& execution : info.executions) {
        json::value progress = nullptr;
        if (!execution.progress.empty()) {
            boost::system::error_code error;
            progress = json::parse(execution.progress, error);
            if (error) progress = nullptr;
        }
        executions.push_back(json::object{{"id", text_json(execution.id)},
                                          {"worker", text_json(execution.worker)},
                                          {"started_at", time_json(execution.started_at)},
                                          {"ended_at", time_json(execution.ended_at)},
                                          {"outcome", execution.outcome},
                                          {"result", payload_json(execution.return_value)},
                                          {"error", text_json(execution.error)},
                                          {"progress", std::move(progress)},
                                          {"cause", text_json(execution.cause)},
                                          {"max_rss_kb", optional_json(execution.max_rss_kb)},
                                          {"cpu_seconds", optional_json(execution.cpu_seconds)},
                                          {"stop", text_json(execution.stop)}});
    }
    for (const auto& hook : info.webhooks)
        webhooks.push_back(json::object{{"delivery", text_json(hook.delivery)},
                                        {"job_status", text_json(hook.job_status)},
                                        {"method", text_json(hook.method)},
                                        {"url", text_json(hook.url)},
                                        {"outcome", hook.outcome},
                                        {"attempt", hook.attempt},
                                        {"code", number_json(hook.code)},
                                        {"error", text_json(hook.error)},
                                        {"at", time_json(hook.at)}});
    for (const auto& problem : info.problems)
        problems.push_back(to_json(Value(problem.describe())));
    return {{"id", to_json(Value(job.id))},
            {"status", to_json(Value(job.status))},
            {"queue", to_json(Value(job.origin))},
            {"func_name", std::move(func_name)},
            {"description", text_json(job.description)},
            {"args", std::move(args)},
            {"kwargs", std::move(kwargs)},
            {"created_at", time_json(job.created_at)},
            {"enqueued_at", time_json(job.enqueued_at)},
            {"started_at", time_json(job.started_at)},
            {"ended_at", time_json(running ? std::nullopt : job.ended_at)},
            {"duration", std::move(duration)},
            {"queued_for", std::move(queued_for)},
            {"result", result_json(info)},
            {"exc_info", exc_info_json(info)},
            {"timeout", number_json(job.timeout)},
            {"retry", number_json(job.retries_left)},
            {"result_ttl", number_json(job.result_ttl)},
            {"failure_ttl", number_json(job.failure_ttl)},
            {"worker_name", text_json(job.worker_name)},
            {"meta", job.meta.empty() ? json::value(json::object{}) : payload_json(job.meta)},
            {"depends_on", std::move(depends_on)},
            {"rate_limit", std::move(rate_limit)},
            {"executions", std::move(executions)},
            {"webhooks", std::move(webhooks)},
            {"problems", std::move(problems)}};
}

json::object to_json(const Performance& performance, Timestamp now) {
    const auto& run = performance.duration;
    const auto& wait = performance.queue_time;
    return {{"period_hours", static_cast<std::int64_t>(performance.hours)},
            {"total_jobs", performance.total()},
            {"successful_jobs", performance.successful},
            {"failed_jobs", performance.failed},
            {"success_rate", rounded(performance.success_rate(), 100)},
            {"throughput_per_hour", rounded(performance.throughput_per_hour(), 100)},
            {"duration_metrics",
             {{"avg_seconds", rounded(run.avg, 1e6)},
              {"median_seconds", rounded(run.median, 1e6)},
              {"min_seconds", rounded(run.min, 1e6)},
              {"max_seconds", rounded(run.max, 1e6)},
              {"p95_seconds", rounded(run.p95, 1e6)},
              {"p99_seconds", rounded(run.p99, 1e6)}}},
            {"queue_time_metrics",
             {{"avg_seconds", rounded(wait.avg, 1e6)},
              {"p95_seconds", rounded(wait.p95, 1e6)},
              {"max_seconds", rounded(wait.max, 1e6)}}},
            {"from", format_utc(performance.from)},
            {"to", format_utc(performance.to)},
            {"timestamp", format_utc(now)}};
}

json::object trends_json(const std::vector<Performance>& periods) {
    json::array list;
    Performance sum;
    double best = 0, worst = 0;
    for (const auto& period : periods) {
        list.push_back(to_json(period, period.to));
        sum.successful += period.successful;
        sum.failed += period.failed;
        sum.hours += period.hours;
        best = list.size() == 1 ? period.throughput_per_hour()
                                : std::max(best, period.throughput_per_hour());
        worst = list.size() == 1 ? period.throughput_per_hour()
                                 : std::min(worst, period.throughput_per_hour());
    }
    // Newest against oldest: the direction of the whole row.
    const Performance none;
    return {{"periods", std::move(list)},
            {"trends", periods.empty() ? changes_json(none, none)
                                       : changes_json(periods.front(), periods.back())},
            {"summary",
             {{"total_periods", periods.size()},
              {"hours_per_period",
               periods.empty() ? 0 : static_cast<std::int64_t>(periods.front().hours)},
              {"total_jobs", sum.total()},
              {"successful_jobs", sum.successful},
              {"failed_jobs", sum.failed},
              {"success_rate", rounded(sum.success_rate(), 100)},
              {"throughput_per_hour", rounded(sum.throughput_per_hour(), 100)},
              {"best_throughput_per_hour", rounded(best, 100)},
              {"worst_throughput_per_hour", rounded(worst, 100)}}}};
}

json::object comparison_json(const Performance& current, const Performance& previous,
                             Timestamp now) {
    return {{"current_period", to_json(current, now)},
            {"previous_period", to_json(previous, now)},
            {"changes", changes_json(current, previous)},
            {"timestamp", format_utc(now)}};
}

}  // namespace rqxx
