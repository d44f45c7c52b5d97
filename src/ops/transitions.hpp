#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <rqxx/job.hpp>
#include <rqxx/redis/client.hpp>
#include <rqxx/worker.hpp>
#include <span>
#include <string>
#include <vector>

#include "ops/claim_plan.hpp"

/// The state changes of jobs and workers, each one atomic script. What `runtime` is made of.
namespace rqxx::ops {

namespace asio = boost::asio;

/// A piece of what an execution has written.
struct OutputChunk {
    /// As the field's name in Redis; `cut`: how many bytes are missing here, as text.
    enum class Stream : char { out = '1', err = '2', cut = 'x' };
    Stream stream = Stream::out;
    std::string text;
};
using OutputChunks = std::vector<OutputChunk>;

/// What a process has used, as its parent is told when it ends.
struct Usage {
    std::int64_t max_rss_kb = 0;  ///< Peak resident memory since the process began.
    double cpu_seconds = 0;       ///< Of this execution.
};

struct Settlement {
    enum class Outcome : char {
        success = 'S',
        failure = 'F',
        terminal_failure = 'T',
        returned = 'R',
        stopped = 'X',
        retry = 'Y',     ///< Asked for by the function.
        postponed = 'L'  ///< To be run later without using an attempt.
    };
    std::string job_id;
    std::string execution_id;
    std::string origin;
    Outcome outcome = Outcome::success;
    std::string payload{};  ///< As stored: base64.
    Timestamp started_at;
    std::chrono::microseconds run_time{};
    std::optional<std::chrono::microseconds> queued_for{};
    /// Of a job without repeats, group, dependencies, webhooks and rate limit its result TTL, as
    /// text ("-" for none): saves looking. Empty: all is looked up.
    std::string known_result_ttl{};
    /// Why it ended as it did, where that is more than the exception: "time limit (hard)",
    /// "memory limit", "signal 11 (SIGSEGV)". Empty: nothing to add.
    std::string cause{};
    std::optional<Usage> usage{};  ///< Of executions that ran in a process of their own.
};

struct Settled {
    enum class Code {
        refused = 0,
        finished = 1,
        failed = 2,
        retried = 3,
        returned = 4,
        canceled = 5,
        deleted = 6,
        stopped = 7,
        postponed = 8
    };
    Code code = Code::refused;
    std::chrono::seconds next_in{};    ///< Of a retry, or of one that is postponed.
    std::int64_t attempt = 0, of = 0;  ///< This retry's number, and how many there are.
};

struct Running {
    std::string job_id;
    std::string execution_id;
    std::string origin;
    std::string progress;  ///< JSON text; empty when unchanged.
};

struct HeartbeatResult {
    bool lease_held = true;
    struct Notice {
        enum class Why { lease_lost = 0, canceled = 1, asked_to_stop = 2 };
        std::string execution_id;
        Why why = Why::lease_lost;
    };
    std::vector<Notice> notices;
    std::int64_t orphans = 0;  ///< Jobs put back whose claim was never answered.
};

/// One worker's record and leases in Redis.
class WorkerOps {
public:
    WorkerOps(RedisClient& redis, std::string name, const WorkerOptions& options);

    struct Birth {
        bool registered = false;
        std::string other_host, other_pid;  ///< Of the living worker with this name.
    };
    asio::awaitable<Birth> register_birth();
    /// Declares a worker of this name dead, so that `recover` takes its jobs back.
    asio::awaitable<void> expire_lease();
    /// Up to `limit` jobs, and no more than would make `capacity` executions of this worker stand
    /// in Redis.
    asio::awaitable<ClaimResult> claim(std::size_t limit, std::size_t capacity,
                                       std::string current_job, const RunningByQueue& running = {});
    /// Learns the rules that hold now.
    asio::awaitable<void> load_rules();
    /// Whether rules hold for its queues.
    [[nodiscard]] const ClaimPlan& plan() const noexcept { return plan_; }
    /// The hashes of jobs that were claimed without, as the start left them. A job that was deleted
    /// meanwhile stays without fields.
    asio::awaitable<void> read_hashes(std::vector<Claimed>& jobs);
    asio::awaitable<std::vector<Settled>> settle(std::vector<Settlement> batch,
                                                 std::string current_job,
                                                 std::chrono::seconds default_result_ttl);
    /// Adds to what is kept of an execution's output; the last piece sets how long: as the result.
    /// Of a job that is gone nothing is stored.
    asio::awaitable<void> append_output(const std::string& job_id, const std::string& execution_id,
                                        std::int64_t ttl, OutputChunks chunks);
    asio::awaitable<HeartbeatResult> heartbeat(std::vector<Running> running, std::string oldest_job,
                                               Seconds oldest_run_time);
    asio::awaitable<void> set_state(std::string state);
    /// Tells monitors that it ends when what it runs has ended.
    asio::awaitable<void> note_shutdown();
    /// Where RQ's commands to this worker are published. Source: rq/command.py (RQ 2.10).
    [[nodiscard]] std::string command_channel() const;
    /// Signs off. What is claimed under this name without being known here goes back to its queue.
    asio::awaitable<void> register_death();
    /// Blocks until the list `queue_key` has an element, without removing any, then claims up to
    /// `limit` jobs in the same round trip (0: none). False when `timeout` passed.
    ///
    /// BLMOVE of the head onto itself: waits like a pop, changes nothing. The claim behind it in
    /// the pipeline runs the moment it wakes.
    asio::awaitable<bool> wait_for_job(RedisClient& blocking, std::string queue_key,
                                       std::chrono::seconds timeout, std::size_t limit,
                                       std::size_t capacity, ClaimResult& result);
    [[nodiscard]] const std::vector<std::string>& queue_keys() const noexcept {
        return plan_.queue_keys();
    }

private:
    RedisClient* redis_;
    std::string name_;
    std::vector<std::string> queues_;
    std::string key_;
    std::string executions_key_;
    std::chrono::microseconds lease_;
    std::size_t slots_;  ///< Told to who asks whether it is busy.
    ClaimPlan plan_;
};

/// Until when RQ's own maintenance leaves an execution alone after a heartbeat. Source: RQ's
/// default job monitoring interval (30 s) + 60 s.
inline constexpr std::chrono::seconds rq_heartbeat_ttl{90};

}  // namespace rqxx::ops
