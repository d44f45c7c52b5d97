#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <boost/json/object.hpp>

#include "http/api.hpp"
#include "http/live.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;

constexpr std::size_t max_queues =
    1000;  // More would make a scrape expensive for all who store it.

prometheus::MetricFamily family(std::string name, std::string help, prometheus::MetricType type) {
    prometheus::MetricFamily result;
    result.name = std::move(name);
    result.help = std::move(help);
    result.type = type;
    return result;
}

void add(prometheus::MetricFamily& to, std::vector<prometheus::ClientMetric::Label> labels,
         double value) {
    prometheus::ClientMetric metric;
    metric.label = std::move(labels);
    if (to.type == prometheus::MetricType::Counter)
        metric.counter.value = value;
    else
        metric.gauge.value = value;
    to.metric.push_back(std::move(metric));
}

}  // namespace

struct Metrics::Impl {
    Impl(Monitor& monitor_, RedisClient& redis_)
        : monitor(monitor_),
          redis(redis_),
          requests(prometheus::BuildCounter()
                       .Name("rqxx_http_requests_total")
                       .Help("HTTP requests answered")
                       .Register(registry)),
          request_seconds(prometheus::BuildHistogram()
                              .Name("rqxx_http_request_seconds")
                              .Help("Time to answer an HTTP request")
                              .Register(registry)) {}

    Monitor& monitor;
    RedisClient& redis;
    const Scheduler* scheduler = nullptr;
    const LiveFeed* live = nullptr;
    prometheus::Registry registry;
    prometheus::Family<prometheus::Counter>& requests;
    prometheus::Family<prometheus::Histogram>& request_seconds;

    static asio::awaitable<std::string> collect(Impl& self) {
        using prometheus::MetricType;
        auto families = self.registry.Collect();
        auto build = family("rqxx_build_info", "The version", MetricType::Gauge);
        add(build, {{"version", RQXX_VERSION}}, 1);
        families.push_back(std::move(build));

        auto up = family("rqxx_redis_up", "Whether Redis answers", MetricType::Gauge);
        bool answered = true;
        try {
            for (auto& one : co_await of_redis(self))
                families.push_back(std::move(one));
        } catch (const Error&) {
            answered = false;
        }
        add(up, {}, answered ? 1 : 0);
        families.push_back(std::move(up));

        const auto& counters = self.redis.counters();
        auto reconnects =
            family("rqxx_redis_reconnects_total", "Connections re-made", MetricType::Counter);
        add(reconnects, {}, static_cast<double>(counters.reconnects));
        families.push_back(std::move(reconnects));
        auto commands =
            family("rqxx_redis_commands_total", "Commands sent by the server", MetricType::Counter);
        add(commands, {}, static_cast<double>(counters.commands));
        families.push_back(std::move(commands));
        auto trips = family("rqxx_redis_round_trips_total",
                            "Requests sent; a pipeline or script counts once", MetricType::Counter);
        add(trips, {}, static_cast<double>(counters.round_trips));
        families.push_back(std::move(trips));
        if (self.scheduler != nullptr) {
            auto locks =
                family("rqxx_scheduler_locks", "Queues whose scheduled jobs this process promotes",
                       MetricType::Gauge);
            add(locks, {}, static_cast<double>(self.scheduler->locks()));
            families.push_back(std::move(locks));
            auto promoted = family("rqxx_scheduler_promoted_total",
                                   "Scheduled jobs that this process moved to their queues",
                                   MetricType::Counter);
            add(promoted, {}, static_cast<double>(self.scheduler->promoted()));
            families.push_back(std::move(promoted));
            auto lag = family("rqxx_scheduler_lag_seconds",
                              "How late scheduled jobs were promoted: the worst of the last minute",
                              MetricType::Gauge);
            add(lag, {}, Seconds(self.scheduler->lag()).count());
            families.push_back(std::move(lag));
        }
        if (self.live != nullptr) {
            auto readers = family("rqxx_sse_clients", "Readers of live events", MetricType::Gauge);
            add(readers, {}, static_cast<double>(self.live->readers()));
            families.push_back(std::move(readers));
        }
        co_return prometheus::TextSerializer().Serialize(families);
    }

    static asio::awaitable<std::vector<prometheus::MetricFamily>> of_redis(Impl& self) {
        using prometheus::MetricType;
        self.monitor.require_connection();
        auto jobs = family("rqxx_queue_jobs", "Jobs of a queue by status", MetricType::Gauge);
        const auto stats = co_await self.monitor.all_queue_stats();
        for (const auto& queue : stats) {
            if (jobs.metric.size() >= max_queues * 7) break;
            const std::pair<const char*, std::int64_t> counts[] = {
                {"queued", queue.queued},     {"started", queue.started},
                {"finished", queue.finished}, {"failed", queue.failed},
                {"deferred", queue.deferred}, {"scheduled", queue.scheduled},
                {"canceled", queue.canceled},
            };
            for (const auto& [status, count] : counts)
                add(jobs, {{"queue", queue.queue_name}, {"status", status}},
                    static_cast<double>(count));
        }
        auto finished =
            family("rqxx_jobs_finished_total", "Jobs ended, by outcome", MetricType::Counter);
        auto retries =
            family("rqxx_job_retries_total", "Failed runs that were put back", MetricType::Counter);
        auto recovered = family("rqxx_jobs_recovered_total", "Jobs taken back from dead workers",
                                MetricType::Counter);
        auto webhooks = family("rqxx_webhook_deliveries_total",
                               "Webhooks: delivered, failed attempts (retried), given up (failed)",
                               MetricType::Counter);
        auto pending = family("rqxx_webhooks_pending", "Webhooks that are not delivered yet",
                              MetricType::Gauge);
        add(pending, {}, static_cast<double>(co_await self.monitor.pending_webhooks()));
        for (const auto& [name, count] : co_await self.monitor.totals()) {
            const auto bar = name.find('|');
            if (bar == std::string::npos || finished.metric.size() >= max_queues * 2) continue;
            const std::string what = name.substr(0, bar), queue = name.substr(bar + 1);
            const auto value = static_cast<double>(count);
            if (what == "finished")
                add(finished, {{"queue", queue}, {"outcome", "success"}}, value);
            else if (what == "failed")
                add(finished, {{"queue", queue}, {"outcome", "failed"}}, value);
            else if (what == "retried")
                add(retries, {{"queue", queue}}, value);
            else if (what == "recovered")
                add(recovered, {{"queue", queue}}, value);
            else if (what.starts_with("webhook_"))
                add(webhooks, {{"result", what.substr(8)}}, value);
        }
        auto workers = family("rqxx_workers", "Workers registered, by state", MetricType::Gauge);
        std::map<std::string, int> by_state;
        for (const auto& worker : co_await self.monitor.workers())
            ++by_state[worker.state];
        for (const auto& [state, count] : by_state)
            add(workers, {{"state", state}}, count);
        std::vector<prometheus::MetricFamily> families;
        for (auto* one : {&jobs, &finished, &retries, &recovered, &workers, &webhooks, &pending})
            families.push_back(std::move(*one));
        co_return families;
    }
};

Metrics::Metrics(Monitor& monitor, RedisClient& redis)
    : impl_(std::make_unique<Impl>(monitor, redis)) {}
Metrics::~Metrics() = default;

void Metrics::add_route(Router& router) {
    RouteDoc doc;
    doc.summary = "Prometheus metrics, as text";
    doc.tag = "system";
    doc.response_type = "text/plain; version=0.0.4; charset=utf-8";
    doc.response_schema = R"({"type":"string"})";
    router.add(Method::get, "/metrics", doc,
               [impl = impl_.get()](Request) -> asio::awaitable<Response> {
                   Response response;
                   response.content_type = "text/plain; version=0.0.4; charset=utf-8";
                   response.body = co_await Impl::collect(*impl);
                   co_return response;
               });
}

void Metrics::observe(const Scheduler& scheduler) {
    impl_->scheduler = &scheduler;
}

void Metrics::observe(const LiveFeed& live) {
    impl_->live = &live;
}

void Metrics::observe(const RequestRecord& request) {
    const std::string route = request.route.empty() ? "none" : std::string(request.route);
    impl_->requests.Add({{"route", route}, {"code", std::to_string(request.status)}}).Increment();
    impl_->request_seconds
        .Add({{"route", route}},
             prometheus::Histogram::BucketBoundaries{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                                     0.05, 0.1, 0.25, 1, 5})
        .Observe(request.duration.count());
}

}  // namespace rqxx::http
