#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "http/api.hpp"
#include "http/cluster_metrics.hpp"
#include "http/job_metrics.hpp"
#include "http/live.hpp"
#include "ops/census.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
using prometheus::MetricType;

const prometheus::Histogram::BucketBoundaries request_buckets{
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5};
const prometheus::Histogram::BucketBoundaries redis_buckets{
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1};

void append(Families& to, Families families) {
    for (auto& one : families)
        to.push_back(std::move(one));
}

}  // namespace

struct Metrics::Impl {
    Impl(RedisClient& redis_, MetricsOptions options_)
        : redis(redis_),
          options(options_),
          requests(prometheus::BuildCounter()
                       .Name("rqxx_http_requests_total")
                       .Help("HTTP requests answered")
                       .Register(registry)),
          request_seconds(prometheus::BuildHistogram()
                              .Name("rqxx_http_request_seconds")
                              .Help("Time to answer an HTTP request")
                              .Register(registry)),
          ping_seconds(prometheus::BuildHistogram()
                           .Name("rqxx_redis_ping_seconds")
                           .Help("How long Redis took to answer this process, asked each second")
                           .Register(registry)) {}

    RedisClient& redis;
    MetricsOptions options;
    const Scheduler* scheduler = nullptr;
    const LiveFeed* live = nullptr;
    std::unique_ptr<JobMetrics> jobs;
    prometheus::Registry registry;
    prometheus::Family<prometheus::Counter>& requests;
    prometheus::Family<prometheus::Histogram>& request_seconds;
    prometheus::Family<prometheus::Histogram>& ping_seconds;

    static asio::awaitable<std::string> collect(Impl& self) {
        auto families = self.registry.Collect();
        std::erase_if(families, [](const auto& family) { return family.metric.empty(); });
        append(families, self.of_process());
        if (self.jobs) append(families, self.jobs->collect());
        bool answered = self.redis.connected();
        if (self.options.cluster) {
            try {
                append(families, co_await of_redis(self));
                answered = true;
            } catch (const Error&) {
                answered = false;
            }
        }
        families.push_back(gauge("rqxx_redis_up", "Whether Redis answers", answered ? 1 : 0));
        co_return prometheus::TextSerializer().Serialize(families);
    }

    static asio::awaitable<Families> of_redis(Impl& self) {
        const auto census = co_await ops::take_census(self.redis);
        auto families = cluster_metrics(census);
        Rules rules(self.redis);
        append(families, limiter_metrics(co_await rules.usage()));
        if (self.options.rq_exporter) append(families, rq_exporter_metrics(census));
        co_return families;
    }

    [[nodiscard]] Families of_process() const {
        Series build("rqxx_build_info", "The version, and that of RQ whose protocol it follows",
                     MetricType::Gauge, {"version", "rq_compat"});
        build.add({RQXX_VERSION, "2.10"}, 1);
        Families families{build.family()};
        const auto& counters = redis.counters();
        families.push_back(counter("rqxx_redis_reconnects_total", "Connections re-made",
                                   static_cast<double>(counters.reconnects)));
        families.push_back(counter("rqxx_redis_errors_total", "Error replies of Redis",
                                   static_cast<double>(counters.errors)));
        families.push_back(counter("rqxx_redis_commands_total", "Commands sent by this process",
                                   static_cast<double>(counters.commands)));
        families.push_back(counter("rqxx_redis_round_trips_total",
                                   "Requests sent; a pipeline or script counts once",
                                   static_cast<double>(counters.round_trips)));
        if (scheduler != nullptr) {
            families.push_back(gauge("rqxx_scheduler_locks",
                                     "Queues whose scheduled jobs this process promotes",
                                     static_cast<double>(scheduler->locks())));
            families.push_back(counter("rqxx_scheduler_promoted_total",
                                       "Scheduled jobs that this process moved to their queues",
                                       static_cast<double>(scheduler->promoted())));
            families.push_back(
                gauge("rqxx_scheduler_lag_seconds",
                      "How late scheduled jobs were promoted: the worst of the last minute",
                      Seconds(scheduler->lag()).count()));
        }
        if (live != nullptr)
            families.push_back(gauge("rqxx_sse_clients", "Readers of live events",
                                     static_cast<double>(live->readers())));
        return families;
    }
};

Metrics::Metrics(RedisClient& redis, MetricsOptions options)
    : impl_(std::make_unique<Impl>(redis, options)) {}
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

void Metrics::observe(Worker& worker) {
    impl_->jobs = std::make_unique<JobMetrics>(worker, impl_->options.functions);
}

void Metrics::observe(runtime::RedisPulse& pulse) {
    auto& times = impl_->ping_seconds.Add({}, redis_buckets);
    pulse.on_answer([&times](Seconds time) { times.Observe(time.count()); });
}

void Metrics::observe(const RequestRecord& request) {
    const std::string route = request.route.empty() ? "none" : std::string(request.route);
    impl_->requests.Add({{"route", route}, {"code", std::to_string(request.status)}}).Increment();
    impl_->request_seconds.Add({{"route", route}}, request_buckets)
        .Observe(request.duration.count());
}

}  // namespace rqxx::http
