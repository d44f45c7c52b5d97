#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/fwd.hpp>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <rqxx/audit.hpp>
#include <rqxx/http/router.hpp>
#include <rqxx/http/server.hpp>
#include <rqxx/monitor.hpp>
#include <rqxx/operations.hpp>
#include <rqxx/redis/client.hpp>
#include <rqxx/scheduler.hpp>
#include <rqxx/worker.hpp>
#include <string>
#include <vector>

#include "runtime/redis_pulse.hpp"

namespace rqxx::index {
class JobIndex;
struct JobFilter;
}  // namespace rqxx::index

namespace rqxx::runtime {
class Examiner;
}

namespace rqxx::http {

class LiveFeed;

/// `/api/rq/…`, `/api/jobs/{id}`: what the monitor knows.
void add_monitor_routes(Router& router, Monitor& monitor);

/// What may be enqueued over HTTP.
struct EnqueueRights {
    bool any = true;
    std::vector<std::string> functions;  ///< `*` stands for any text; empty: all.
};

/// `POST /api/v1/jobs`. `log`: where `Job enqueued` is told; outlives the router.
void add_job_routes(Router& router, RedisClient& redis, EnqueueRights rights, Logger& log);
/// `/api/v1/batches…`, `/api/rq/batches/{id}`. Bodies that arrive are kept in files in `folder`.
void add_batch_routes(Router& router, RedisClient& redis, std::filesystem::path folder,
                      EnqueueRights rights, Logger& log);
/// `/api/v1/limits…`, pausing and resuming of queues and functions, suspending.
void add_rule_routes(Router& router, RedisClient& redis);

/// `GET /api/v1/jobs`, `/api/v1/failures…`, `/api/v1/suggest`. `index`: outlives the router;
/// nullptr where it is switched off.
void add_index_routes(Router& router, index::JobIndex* index, RedisClient& redis);
/// The same search for the index.
[[nodiscard]] index::JobFilter index_filter(const JobSearch& search);

/// `/api/v1/history…`: what charts are drawn from.
void add_history_routes(Router& router, RedisClient& redis);

/// `/api/v1/redis`, `/api/v1/alerts`: what an operator should know. `pulse` outlives the router.
void add_redis_routes(Router& router, RedisClient& redis, const runtime::RedisPulse& pulse);
/// `/api/v1/doctor`. `examiner` outlives the router.
void add_doctor_route(Router& router, RedisClient& redis, runtime::Examiner& examiner);
/// `/api/v1/jobs/{id}/cancel` and so on, `/api/v1/jobs/bulk`, `/api/v1/operations…`.
void add_action_routes(Router& router, RedisClient& redis, Operations& operations);
/// For those who may see some queues only: whether the path's job is of one of them. One round
/// trip, none for others. @throws HttpError 404.
boost::asio::awaitable<void> check_job_queue(RedisClient& redis, const Request& request);
/// Begins an action on many jobs, and answers 202 with its id; 503 where too many run.
boost::asio::awaitable<Response> start_operation(Operations& operations, BulkOrder order);
/// Of a route that answers 202 so.
inline constexpr std::string_view accepted_schema =
    R"({"type":"object","required":["status","operation_id"],"properties":{"status":{"type":"string"},"operation_id":{"type":"string"}}})";
/// `/api/v1/schedules`, `/api/v1/cron…`, `/api/v1/jobs/{id}/run-now`.
void add_schedule_routes(Router& router, RedisClient& redis);
/// The ETag that a change is bound to; nothing where any will do. @throws HttpError 422.
[[nodiscard]] std::optional<std::string> if_match(const Request& request);
/// `/api/v1/queues…`, `/api/v1/workers…`.
void add_queue_routes(Router& router, Monitor& monitor, RedisClient& redis, Operations& operations);
/// `/api/v1/jobs/{id}/timeline`.
void add_timeline_route(Router& router, Monitor& monitor);
/// `/api/v1/jobs/{id}/raw`: the hash as it is stored; where jobs may be enqueued
/// `/api/v1/jobs/{id}/request`: the same as a request for another job.
void add_raw_routes(Router& router, RedisClient& redis, Monitor& monitor, bool enqueues);
/// An entry of the audit log without what is to be hidden.
[[nodiscard]] boost::json::object audit_json(const AuditEntry& entry, const Redaction& redaction);
/// `/api/v1/audit`; writes down what is done through `router`.
void add_audit_routes(Router& router, RedisClient& redis, Logger& log);

/// `/healthz`, `/readyz`. `last_poll`: when this process' worker last heard from Redis; nothing
/// without a worker.
void add_health_routes(
    Router& router, RedisClient& redis,
    std::function<std::optional<std::chrono::steady_clock::time_point>()> last_poll);

/// `/api/v1/openapi.json`: the document of `router` itself, which outlives its use.
void add_openapi_route(Router& router);

/// `/` and its assets.
void add_page_routes(Router& router);

struct MetricsOptions {
    bool cluster = true;       ///< What Redis knows of all queues and workers, read at each scrape.
    bool rq_exporter = false;  ///< That under the names of rq-exporter as well.
    bool functions = false;    ///< What this process ran, by function.
};

/// `/metrics`: the state of queues and workers at each scrape, and what this process counted.
class Metrics {
public:
    Metrics(RedisClient& redis, MetricsOptions options);
    ~Metrics();
    void add_route(Router& router);
    void observe(const RequestRecord& request);
    /// Adds the scheduler of this process, which outlives the route.
    void observe(const Scheduler& scheduler);
    /// The same of the readers of live events.
    void observe(const LiveFeed& live);
    /// Counts what it runs. Outlives the route; this, in turn, need not outlive its runs.
    void observe(Worker& worker);
    /// How fast Redis answers. Outlived by this.
    void observe(runtime::RedisPulse& pulse);

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace rqxx::http
