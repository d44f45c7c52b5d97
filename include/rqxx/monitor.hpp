#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/fwd.hpp>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <rqxx/dependencies.hpp>
#include <rqxx/job.hpp>
#include <rqxx/redis/client.hpp>
#include <rqxx/why.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace rqxx::ops {
class HistoryRecorder;
}

namespace rqxx {

/// How many jobs of a queue are where.
struct QueueStats {
    std::string queue_name;
    std::int64_t queued = 0, started = 0, finished = 0, failed = 0, deferred = 0, scheduled = 0,
                 canceled = 0;
    std::int64_t waiting_under_limits = 0;  ///< Of `queued`: in lanes, by limits or keys.
    bool paused = false;                    ///< Not in sums.

    QueueStats& operator+=(const QueueStats& other) noexcept;
};

/// A limit of RQ 3.0 on how many jobs with one key are queued or running at once.
struct RateLimitInfo {
    std::string key;
    std::int64_t concurrency = 0;
    std::int64_t allowed = 0;       ///< Queued or running.
    std::int64_t rate_limited = 0;  ///< Waiting, on no queue.
};

/// One run of a job, past or present.
struct ExecutionInfo {
    std::string id;
    std::string worker;
    std::optional<Timestamp> started_at, ended_at;
    std::string outcome;       ///< started, successful, failed, stopped, retried, …
    std::string return_value;  ///< Serializer bytes; empty for none.
    std::string error;         ///< Traceback; empty for none.
    std::string progress;      ///< JSON text; empty for none.
    std::string cause;         ///< See Result.
    std::optional<std::int64_t> max_rss_kb;
    std::optional<double> cpu_seconds;
    std::string stop{};  ///< Of a running one: "asked" to stop, or "acknowledged" by its worker.
};

/// A webhook that is to be sent, or an attempt at one.
struct WebhookInfo {
    std::string delivery;     ///< The same for all attempts.
    std::string job_status;   ///< Of which it tells.
    std::string method, url;  ///< Without password.
    std::string outcome;      ///< pending, delivered, retried or failed (for good).
    std::int64_t attempt = 0;
    std::optional<std::int64_t> code;  ///< Status of the answer.
    std::string error;
    std::optional<Timestamp> at;  ///< When it was tried; of a pending one, when it is due.
};

/// All that is known of one job.
struct JobInfo {
    Job job;
    std::vector<ParseError> problems;       ///< Fields that could not be read.
    std::vector<ExecutionInfo> executions;  ///< Newest first.
    std::vector<WebhookInfo> webhooks;      ///< Pending ones, then attempts, newest first. Of
                                            ///< `Monitor::job_info` only.
    Timestamp now;                          ///< Redis' clock when it was read.
};

/// Which part of a job's output is wanted.
struct OutputQuery {
    static constexpr std::size_t most_bytes = std::size_t{1} << 20;
    std::string execution;  ///< Id, or the beginning of one; empty: the newest.
    std::string after;      ///< `JobOutput::next_after` of the last answer; empty: all.
    std::size_t max_bytes = std::size_t{256} << 10;  ///< Of text; one entry always fits.
};

/// Whether `text` can stand in `OutputQuery::after`.
[[nodiscard]] bool is_output_place(std::string_view text) noexcept;

/// A piece of what a job has written.
struct OutputEntry {
    enum class Stream : char { out, err, cut };
    std::string id;  ///< In Redis' stream.
    Timestamp at;
    Stream stream = Stream::out;
    std::string text;                 ///< Bytes, maybe no valid UTF-8; a character may be split.
    std::uint64_t missing_bytes = 0;  ///< Of `cut`: so many are not kept.
};
[[nodiscard]] std::string_view to_string(OutputEntry::Stream stream) noexcept;

/// Part of what an execution of a job has written.
struct JobOutput {
    enum class Found { yes, no_such_execution, several };
    Found found = Found::yes;
    std::string job_id, job_status;
    std::vector<std::string> executions;  ///< Those with output, newest first.
    std::string execution;                ///< Whose output this is; empty: not run yet.
    std::vector<OutputEntry> entries;
    std::string after, next_after;  ///< Asked for those behind the one, goes on behind the other.
    bool more = false;              ///< There are entries behind these.
    bool ended = false;  ///< Nothing comes behind these: the execution (without one: the job) has
                         ///< ended.
};

/// A worker's record, as `rq info` shows it.
struct WorkerInfo {
    std::string name, state, hostname, version, current_job;
    std::int64_t pid = 0, successful_job_count = 0, failed_job_count = 0;
    std::vector<std::string> queues;
    std::optional<Timestamp> birth, last_heartbeat;
    double total_working_time = 0;
    std::vector<std::string> jobs;  ///< Running now.
};

/// Figures of jobs that ended within a span of time.
struct Performance {
    std::int64_t successful = 0, failed = 0;
    struct Distribution {
        std::int64_t count = 0;
        double avg = 0, median = 0, min = 0, max = 0, p95 = 0, p99 = 0;  ///< Seconds.
    };
    Distribution duration;    ///< Of finished jobs.
    Distribution queue_time;  ///< Of all that started.
    double hours = 0;
    Timestamp from, to;  ///< [from, to): whole minutes.

    [[nodiscard]] std::int64_t total() const noexcept { return successful + failed; }
    [[nodiscard]] double success_rate() const noexcept;  ///< Percent.
    [[nodiscard]] double throughput_per_hour() const noexcept;
};

/// Reads; never changes anything in Redis. Each call costs at most three round trips, whatever is
/// stored.
///
/// Thread safety and lifetime: as for the client.
class Monitor {
public:
    explicit Monitor(RedisClient& redis) : redis_(&redis) {}

    /// As `RedisClient::require_connection`.
    void require_connection() const { redis_->require_connection(); }

    /// Every queue known to RQ, by name. Two round trips.
    boost::asio::awaitable<std::vector<QueueStats>> all_queue_stats();
    /// Their names, in order. One round trip, one key.
    boost::asio::awaitable<std::vector<std::string>> queue_names();
    /// Of these queues, in this order. One round trip.
    boost::asio::awaitable<std::vector<QueueStats>> queue_stats(std::vector<std::string> queues);
    /// One queue; an unknown one counts zero.
    boost::asio::awaitable<QueueStats> queue_stats(std::string queue);
    /// Rate limits, those with most waiting jobs first; of more than 1000 some. Two round trips.
    boost::asio::awaitable<std::vector<RateLimitInfo>> rate_limits();
    /// Nothing for an unknown job. Two round trips.
    boost::asio::awaitable<std::optional<JobInfo>> job_info(std::string id);
    /// What a job writes to stdout and stderr while it runs and after, piece by piece. Nothing for
    /// an unknown job. One round trip; at most 2000 entries, `max_bytes`, or one entry of 1 MiB.
    /// @throws Error `Errc::usage` where `after` is no id of an entry.
    boost::asio::awaitable<std::optional<JobOutput>> job_output(std::string id, OutputQuery query);
    /// The newest jobs by creation, from every queue and status or those given. Looks at 2000 jobs
    /// at most, from the places where the newest are to be expected. Three round trips.
    boost::asio::awaitable<std::vector<JobInfo>> recent_jobs(std::size_t limit,
                                                             std::string queue = {},
                                                             std::string status = {});
    /// Why a job does not run just now; nothing for an unknown job. One script says so; three round
    /// trips, more only where rules change meanwhile. Looks through 10 000 entries of a list.
    boost::asio::awaitable<std::optional<WaitReport>> why(std::string id);
    /// The jobs that this one depends on and those that wait for it, at most 100, the nearest
    /// first; nothing for an unknown job. One round trip.
    boost::asio::awaitable<std::optional<DependencyGraph>> dependencies(std::string id);
    /// By name; of more than 1000 some. Two round trips, two keys for each.
    boost::asio::awaitable<std::vector<WorkerInfo>> workers();
    /// Names of all that are registered, in order. One round trip, one key.
    boost::asio::awaitable<std::vector<std::string>> worker_names();
    /// Of these, in this order; those without a record are left out. One round trip.
    boost::asio::awaitable<std::vector<WorkerInfo>> workers(std::vector<std::string> names);
    /// The `hours` before now.
    boost::asio::awaitable<Performance> performance(std::int64_t hours);
    /// `count` consecutive spans of `hours`, newest first.
    boost::asio::awaitable<std::vector<Performance>> performance_periods(
        std::vector<std::int64_t> hours);
    /// `finished|queue`, `failed|queue`, `retried|queue`, `recovered|queue`, `webhook_delivered|`,
    /// `webhook_retried|`, `webhook_failed|`: counted since the beginning.
    boost::asio::awaitable<std::map<std::string, std::int64_t>> totals();

    /// Webhooks that are not delivered yet.
    boost::asio::awaitable<std::int64_t> pending_webhooks();

private:
    RedisClient* redis_;
};

/// The `job` object of the HTTP API and of `rqxx job show --json`.
[[nodiscard]] boost::json::object to_json(const JobInfo& info);
/// What the HTTP API says of it. An entry at the end that stops within a character is left for the
/// next answer, where one comes.
[[nodiscard]] boost::json::object to_json(JobOutput output);
[[nodiscard]] boost::json::object to_json(const QueueStats& stats);
[[nodiscard]] boost::json::object to_json(const RateLimitInfo& limit);
/// The same, with `paused` and `waiting_under_limits`.
[[nodiscard]] boost::json::object to_json_with_rules(const QueueStats& stats);
[[nodiscard]] boost::json::object to_json(const WorkerInfo& worker);
/// The job's result as JSON: of a finished job its value, else null.
[[nodiscard]] boost::json::value result_json(const JobInfo& info);
/// `metrics` of the HTTP API.
[[nodiscard]] boost::json::object to_json(const Performance& performance, Timestamp now);
/// `trends` of the HTTP API; `periods` newest first.
[[nodiscard]] boost::json::object trends_json(const std::vector<Performance>& periods);
/// `comparison` of the HTTP API.
[[nodiscard]] boost::json::object comparison_json(const Performance& current,
                                                  const Performance& previous, Timestamp now);

/// Sees what stock RQ workers finish, and adds it to the performance figures; keeps the history
/// that charts are drawn from.
///
/// Any number may run; one at a time works. Looks at what the last seconds put into the finished
/// and failed registries, bounded per pass. Of jobs that are kept for ever only the number is
/// known; those that keep nothing (TTL 0) are not seen.
class Sampler {
public:
    Sampler(RedisClient& redis, Logger& log);
    ~Sampler();
    /// Samples every `interval` until cancelled.
    boost::asio::awaitable<void> run(std::chrono::milliseconds interval = std::chrono::seconds(1));
    /// One pass; how many jobs it counted.
    boost::asio::awaitable<std::size_t> sample();

private:
    RedisClient* redis_;
    Logger* log_;
    std::string token_;
    std::unique_ptr<ops::HistoryRecorder> history_;
    std::optional<Timestamp> redis_time_;  ///< Of the newest point; nothing where another samples.
};

}  // namespace rqxx
