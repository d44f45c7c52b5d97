#include "cli/metrics_endpoint.hpp"

#include "base/task_group.hpp"

namespace rqxx::cli {

namespace asio = boost::asio;

namespace {

http::AccessOptions access_options(const MetricsEndpoint::Options& options) {
    http::AccessOptions settings;
    settings.token = options.token;
    settings.required = !options.token.empty();
    settings.read_only = true;
    return settings;
}

http::ServerOptions server_options(const MetricsEndpoint::Options& options, http::Guard guard) {
    http::ServerOptions settings;
    settings.host = options.host;
    settings.port = options.port;
    settings.guard = std::move(guard);
    settings.authenticated = !options.token.empty();
    settings.max_connections = 64;
    settings.access_log = false;  // A scrape is not worth a line.
    return settings;
}

}  // namespace

MetricsEndpoint::MetricsEndpoint(RedisClient& redis, Worker& worker, Options options, Logger& log)
    : router_(log),
      metrics_(redis, {.cluster = false, .rq_exporter = false, .functions = options.functions}),
      pulse_(redis),
      access_(redis, access_options(options), log),
      server_(redis.executor(), router_, server_options(options, access_.guard()), log),
      executor_(redis.executor()) {
    metrics_.observe(worker);
    metrics_.observe(pulse_);
    metrics_.add_route(router_);
    http::add_health_routes(router_, redis,
                            [&worker] { return std::optional(worker.last_poll()); });
    server_.on_request([this](const http::RequestRecord& record) { metrics_.observe(record); });
    server_.listen();
    log.info("Metrics", "url", server_.url() + "metrics");
}

asio::awaitable<void> MetricsEndpoint::run() {
    TaskGroup asking(executor_);
    asking.spawn("pulse", pulse_.run());
    co_await server_.run();
    asking.cancel();
    co_await asking.join();
}

}  // namespace rqxx::cli
