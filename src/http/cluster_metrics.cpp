#include "http/cluster_metrics.hpp"

#include <charconv>
#include <cmath>
#include <optional>

namespace rqxx::http {
namespace {

using prometheus::MetricType;

constexpr std::size_t most_queues = 1000;
constexpr std::size_t most_limiters = 1000;

template <class Use>
void each_count(const QueueStats& queue, Use use) {
    use("queued", queue.queued);
    use("started", queue.started);
    use("finished", queue.finished);
    use("failed", queue.failed);
    use("deferred", queue.deferred);
    use("scheduled", queue.scheduled);
    use("canceled", queue.canceled);
}

/// The histogram of waits ('w') or runs ('r') from steps of 5 %; see lua/includes/metrics.lua. Its
/// edges are true within half a step.
prometheus::MetricFamily histogram(std::string name, std::string help, char letter,
                                   const std::map<std::string, double>& figures,
                                   const std::string& sum) {
    std::map<int, double> steps;
    for (const auto& [field, count] : figures) {
        int step = 0;
        const char* end = field.data() + field.size();
        if (field.front() == letter && std::from_chars(field.data() + 1, end, step).ptr == end)
            steps[step] += count;
    }
    prometheus::ClientMetric metric;
    double below = 0;
    auto step = steps.begin();
    const auto take_until = [&](std::optional<double> edge) {
        for (; step != steps.end(); ++step) {
            const double middle = 1e-4 * std::pow(1.05, step->first + 0.5);
            if (edge && middle > *edge) break;
            below += step->second;
        }
        return static_cast<std::uint64_t>(below);
    };
    for (const double edge : job_buckets())
        metric.histogram.bucket.push_back({take_until(edge), edge});
    const auto all = take_until(std::nullopt);
    metric.histogram.bucket.push_back({all, std::numeric_limits<double>::infinity()});
    metric.histogram.sample_count = all;
    const auto known = figures.find(sum);
    metric.histogram.sample_sum = known == figures.end() ? 0 : known->second / 1e6;
    prometheus::MetricFamily family;
    family.name = std::move(name);
    family.help = std::move(help);
    family.type = MetricType::Histogram;
    family.metric.push_back(std::move(metric));
    return family;
}

Families queue_metrics(const ops::Census& census, NameCap& names) {
    Series jobs("rqxx_queue_jobs", "Jobs of a queue by status", MetricType::Gauge,
                {"queue", "status"});
    Series oldest("rqxx_queue_oldest_age_seconds",
                  "How long the job has waited that is next; 0 for an empty queue",
                  MetricType::Gauge, {"queue"});
    Series paused("rqxx_queue_paused", "Whether a rule pauses the queue", MetricType::Gauge,
                  {"queue"});
    Series listeners("rqxx_queue_listeners", "Workers that take jobs of the queue",
                     MetricType::Gauge, {"queue"});
    for (const auto& queue : census.queues) {
        const std::string label = names(queue.stats.queue_name);
        each_count(queue.stats, [&](const char* status, std::int64_t count) {
            jobs.add({label, status}, static_cast<double>(count));
        });
        oldest.raise({label}, queue.oldest_age.value_or(Seconds(0)).count());
        paused.add({label}, queue.stats.paused ? 1 : 0);
        listeners.add({label}, static_cast<double>(queue.listeners));
    }
    return {jobs.family(), oldest.family(), paused.family(), listeners.family()};
}

Families flow_metrics(const ops::Census& census, NameCap& names) {
    Series finished("rqxx_jobs_finished_total", "Jobs ended, by outcome", MetricType::Counter,
                    {"queue", "outcome"});
    Series retries("rqxx_job_retries_total", "Failed runs that were put back", MetricType::Counter,
                   {"queue"});
    Series recovered("rqxx_jobs_recovered_total", "Jobs taken back from dead workers",
                     MetricType::Counter, {"queue"});
    Series webhooks("rqxx_webhook_deliveries_total",
                    "Webhooks: delivered, failed attempts (retried), given up (failed)",
                    MetricType::Counter, {"result"});
    for (const auto& [name, count] : census.totals) {
        const auto bar = name.find('|');
        if (bar == std::string::npos) continue;
        const std::string what = name.substr(0, bar);
        const auto value = static_cast<double>(count);
        if (what.starts_with("webhook_")) {
            webhooks.add({what.substr(8)}, value);
            continue;
        }
        const std::string queue = names(std::string_view(name).substr(bar + 1));
        if (what == "finished")
            finished.add({queue, "success"}, value);
        else if (what == "failed" || what == "stopped")
            finished.add({queue, what}, value);
        else if (what == "retried")
            retries.add({queue}, value);
        else if (what == "recovered")
            recovered.add({queue}, value);
    }
    return {finished.family(),
            retries.family(),
            recovered.family(),
            webhooks.family(),
            histogram("rqxx_cluster_job_wait_seconds",
                      "How long jobs waited in their queues, those of stock workers included", 'w',
                      census.figures, "wait_sum"),
            histogram("rqxx_cluster_job_run_seconds",
                      "How long finished jobs ran, those of stock workers included", 'r',
                      census.figures, "run_sum")};
}

Families worker_metrics(const ops::Census& census) {
    Series workers("rqxx_workers", "Workers registered, by state", MetricType::Gauge, {"state"});
    double slots = 0, silent_for = 0, busy = 0;
    for (const auto& worker : census.workers) {
        workers.add({label_of(worker.state)}, 1);
        slots += static_cast<double>(worker.slots);
        if (worker.heartbeat_age) silent_for = std::max(silent_for, worker.heartbeat_age->count());
    }
    for (const auto& queue : census.queues)
        busy += static_cast<double>(queue.stats.started);
    Series by_state("rqxx_slots", "Jobs that all workers together can run at once, by state",
                    MetricType::Gauge, {"state"});
    by_state.add({"busy"}, std::min(busy, slots));
    by_state.add({"idle"}, std::max(slots - busy, 0.0));
    return {workers.family(), by_state.family(),
            gauge("rqxx_workers_oldest_heartbeat_seconds",
                  "The longest that any registered worker has not been heard of", silent_for)};
}

Families schedule_metrics(const ops::Census& census) {
    double due = 0, lapsed = 0;
    bool leader = false;
    for (const auto& queue : census.queues) {
        due += static_cast<double>(queue.due);
        lapsed += static_cast<double>(queue.lapsed);
        leader = leader || queue.has_scheduler;
    }
    return {
        gauge("rqxx_scheduler_leader", "Whether some scheduler holds the lock of any queue",
              leader ? 1 : 0),
        gauge("rqxx_scheduled_due_jobs", "Scheduled jobs that should be on their queues", due),
        gauge("rqxx_started_lapsed_jobs", "Started jobs that nobody vouches for any more", lapsed),
        gauge("rqxx_suspended", "Whether workers are suspended", census.suspended ? 1 : 0)};
}

Families redis_metrics(const ops::Census& census) {
    const auto field = [&](std::string_view name) { return census.info.number(name).value_or(0); };
    return {gauge("rqxx_clock_skew_seconds", "How far this host's clock is ahead of that of Redis",
                  census.skew.count()),
            gauge("rqxx_redis_memory_bytes", "Memory that Redis uses", field("used_memory")),
            gauge("rqxx_redis_memory_max_bytes", "Memory that Redis may use; 0: no limit",
                  field("maxmemory")),
            gauge("rqxx_redis_clients", "Connections to Redis", field("connected_clients")),
            gauge("rqxx_redis_operations_per_second", "Commands that Redis carries out just now",
                  field("instantaneous_ops_per_sec")),
            counter("rqxx_redis_evicted_keys_total",
                    "Keys that Redis threw away for lack of memory", field("evicted_keys")),
            counter("rqxx_redis_expired_keys_total", "Keys whose time to live ended",
                    field("expired_keys"))};
}

void append(Families& to, Families families) {
    for (auto& one : families) {
        if (!one.metric.empty()) to.push_back(std::move(one));
    }
}

}  // namespace

Families cluster_metrics(const ops::Census& census) {
    NameCap names(most_queues);
    Families all = queue_metrics(census, names);
    append(all, flow_metrics(census, names));
    append(all, worker_metrics(census));
    append(all, schedule_metrics(census));
    append(all, redis_metrics(census));
    all.push_back(gauge("rqxx_webhooks_pending", "Webhooks that are not delivered yet",
                        static_cast<double>(census.pending_webhooks)));
    std::erase_if(all, [](const auto& family) { return family.metric.empty(); });
    return all;
}

Families limiter_metrics(const std::vector<LimiterUse>& uses) {
    NameCap names(most_limiters);
    Series in_use("rqxx_limiter_in_use", "Points of a limit that are in use, over all its keys",
                  MetricType::Gauge, {"limiter"});
    Series waiting("rqxx_limiter_waiting", "Lanes and queues that a limit holds up",
                   MetricType::Gauge, {"limiter"});
    for (const auto& use : uses) {
        const std::string label = names(use.rule);
        in_use.add({label}, static_cast<double>(use.used));
        waiting.add({label}, static_cast<double>(use.waiting));
    }
    Families all;
    append(all, {in_use.family(), waiting.family()});
    return all;
}

Families rq_exporter_metrics(const ops::Census& census) {
    Series workers("rq_workers", "RQ workers", MetricType::Gauge, {"name", "state", "queues"});
    Series jobs("rq_jobs", "RQ jobs by state", MetricType::Gauge, {"queue", "status"});
    Series succeeded("rq_workers_success_total", "RQ workers success count", MetricType::Counter,
                     {"name", "queues"});
    Series failed("rq_workers_failed_total", "RQ workers fail count", MetricType::Counter,
                  {"name", "queues"});
    Series working("rq_workers_working_time_total", "RQ workers spent seconds", MetricType::Counter,
                   {"name", "queues"});
    for (const auto& worker : census.workers) {
        const std::string name = label_of(worker.name), queues = label_of(worker.queues);
        workers.add({name, label_of(worker.state), queues}, 1);
        succeeded.add({name, queues}, static_cast<double>(worker.successful));
        failed.add({name, queues}, static_cast<double>(worker.failed));
        working.add({name, queues}, worker.working_seconds);
    }
    NameCap names(most_queues);
    for (const auto& queue : census.queues) {
        const std::string label = names(queue.stats.queue_name);
        each_count(queue.stats, [&](const char* status, std::int64_t count) {
            jobs.add({label, status}, static_cast<double>(count));
        });
    }
    Families all;
    append(all, {workers.family(), jobs.family(), succeeded.family(), failed.family(),
                 working.family()});
    return all;
}

}  // namespace rqxx::http
