#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <rqxx/job.hpp>
#include <rqxx/worker.hpp>
#include <stop_token>
#include <string>

namespace rqxx::runtime {

/// Why a running job was asked to stop.
enum class StopReason { none, time_limit, canceled, lease_lost, shutdown };

/// One run of one job, from the claim until it is settled.
///
/// Written by the worker's executor before the run and after it; while it runs, only the members
/// that say so are touched from both sides.
struct Execution {
    Job job;
    Call call;
    Serializer serializer = Serializer::pickle;
    std::string id;
    Timestamp started_at;  ///< Redis' clock.
    std::optional<std::chrono::microseconds> queued_for;
    std::chrono::steady_clock::time_point started;  ///< This process' clock.
    std::optional<std::chrono::steady_clock::time_point> deadline;

    std::stop_source stop;                                  ///< Any thread.
    std::atomic<StopReason> stop_reason{StopReason::none};  ///< Any thread.
    std::mutex progress_mutex;
    std::string progress;  ///< JSON; guarded by the mutex above.

    bool settled =
        false;  ///< Its outcome is decided; a later one is ignored. Worker's executor only.

    void request_stop(StopReason reason) {
        StopReason none = StopReason::none;
        stop_reason.compare_exchange_strong(none, reason);
        stop.request_stop();
    }
};

/// How a run ended.
struct RunOutcome {
    bool success = false;
    std::string payload;  ///< As stored: `return_value` or `exc_string`.
    std::string error;    ///< One line for the log; empty on success.
};

/// Runs executions. The worker's engine knows nothing of how.
///
/// Called on the worker's executor; `on_done` is called there as well, once per execution.
class Executor {
public:
    using OnDone = std::function<void(std::shared_ptr<Execution>, RunOutcome)>;

    virtual ~Executor() = default;
    virtual void start(std::shared_ptr<Execution> execution) = 0;
    /// The execution is given up: its outcome no longer matters and its resources are replaced.
    virtual void abandon(const std::shared_ptr<Execution>& execution) = 0;
};

}  // namespace rqxx::runtime
