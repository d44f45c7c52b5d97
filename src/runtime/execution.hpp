#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <rqxx/job.hpp>
#include <rqxx/worker.hpp>
#include <stop_token>
#include <string>
#include <vector>

#include "runtime/output.hpp"

namespace rqxx::runtime {

/// Why a running job was asked to stop.
enum class StopReason { none, time_limit, canceled, lease_lost, shutdown, stopped, killed };

class Executor;
struct Execution;

/// What the jobs of one call have in common, where a function takes several.
///
/// Worker's executor only, but for the list, which stays as it is.
struct SharedCall {
    std::vector<std::weak_ptr<Execution>> jobs;  ///< The first stands for all towards executors.
    const Execution* first = nullptr;            ///< The same, to tell calls apart.
    std::size_t unsettled = 0;                   ///< Its slot is taken until there is none.
    bool given_up = false;                       ///< What runs it has been replaced.
};

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
    std::optional<std::chrono::steady_clock::time_point> function_deadline;
    std::int64_t time_limit = 180;       ///< In seconds, that of its call; 0 or less: none.
    bool aggregated = false;             ///< Its function takes a list of jobs.
    std::shared_ptr<SharedCall> shared;  ///< Null where it has a call of its own.

    std::stop_source stop;                                  ///< Of the function. Any thread.
    std::atomic<StopReason> stop_reason{StopReason::none};  ///< Any thread.
    /// When its time was over: ticks of the steady clock, 0 before. Any thread.
    std::atomic<std::chrono::steady_clock::rep> over_since{0};
    std::stop_source callback_stop;             ///< Of a callback. Any thread.
    std::atomic<bool> callback_overran{false};  ///< Any thread.
    std::mutex progress_mutex;
    std::string progress;  ///< JSON; guarded by the mutex above.
    Output output;         ///< Any thread.

    // Worker's executor only.
    Executor* runs_in = nullptr;
    ResourceLimits limits;
    bool settled = false;      ///< Its outcome is decided; a later one is ignored.
    bool out_of_call = false;  ///< Of a shared one, which has yet to begin: it ends without.
    bool in_callback = false;
    bool output_stored = false;  ///< Some of its output has been sent to Redis.
    bool being_killed = false;   ///< What runs it has been killed; its end is on the way.
    std::optional<std::chrono::steady_clock::time_point>
        deadline;  ///< Of the function, later of the callback that runs.
    std::optional<std::chrono::steady_clock::time_point>
        give_up_at;  ///< Asked to stop: until when it may take.

    void request_stop(StopReason reason) {
        StopReason none = StopReason::none;
        stop_reason.compare_exchange_strong(none, reason);
        if (reason == StopReason::time_limit && over_since == 0)
            over_since = std::chrono::steady_clock::now().time_since_epoch().count();
        stop.request_stop();
        if (reason != StopReason::time_limit) callback_stop.request_stop();
    }
    void callback_over_limit() {
        callback_overran = true;
        callback_stop.request_stop();
    }
};

/// The jobs of its call, those that are over and forgotten excepted: most often it alone.
[[nodiscard]] std::vector<std::shared_ptr<Execution>> jobs_of_call(
    const std::shared_ptr<Execution>& execution);
/// Whether its call has to go on for others. Worker's executor only.
[[nodiscard]] bool others_need_its_call(const Execution& execution);

/// How a run ended.
struct RunOutcome {
    enum class Kind {
        success,
        failure,
        stopped,
        retry,      ///< Asked for by the function.
        postponed,  ///< Not now: without using an attempt; `payload`: the
                    ///< seconds to wait, " limit" behind them where its limits wait as well.
    };
    Kind kind = Kind::failure;
    /// As stored: `return_value` or `exc_string`; of a retry, what lua/settle.lua asks for.
    std::string payload;
    std::string error;                  ///< One line for the log; empty on success.
    std::string cause{};                ///< See Settlement.
    std::optional<ops::Usage> usage{};  ///< See Settlement.
    /// Called when the outcome stands in Redis, with what became of the job.
    std::function<void(ops::Settled::Code)> on_settled{};
};

/// A run that ended without success: `text` is stored as its exception, and its last line logged.
[[nodiscard]] RunOutcome failed_with(RunOutcome::Kind kind, std::string_view text,
                                     std::string cause = {});
/// To be run later, because somebody else asked for it: the limits under which it ran wait too.
[[nodiscard]] RunOutcome rate_limited(std::chrono::seconds delay, std::string why);
/// How a run ends that took no notice of being asked to stop, by the reason that it was given.
[[nodiscard]] RunOutcome ended_by_force(const Execution& execution);

/// Runs executions. The worker's engine knows nothing of how.
///
/// Called on the worker's executor; what it reports is reported there as well.
class Executor {
public:
    struct Events {
        /// Once per execution.
        std::function<void(std::shared_ptr<Execution>, RunOutcome)> on_done;
        /// The function has ended and a callback with this time limit begins.
        std::function<void(const std::shared_ptr<Execution>&, std::chrono::seconds)> on_callback;
    };

    virtual ~Executor() = default;
    /// Before the first job. @throws Error when nothing can be run.
    virtual boost::asio::awaitable<void> prepare() { co_return; }
    /// Whether jobs that are started now have something to run in.
    [[nodiscard]] virtual bool available() const { return true; }
    /// After the last job: nothing is reported any more, and nothing keeps the event loop running.
    virtual void close() {}
    /// The first of its call, where it shares one: all of it is started.
    virtual void start(std::shared_ptr<Execution> execution) = 0;
    /// The job has been asked to stop: for executors whose jobs do not look at its stop token.
    virtual void interrupt(const std::shared_ptr<Execution>& execution, StopReason reason) {
        (void)execution;
        (void)reason;
    }
    /// Ends what runs it by force, with an outcome soon after. False where that is impossible.
    virtual bool kill(const std::shared_ptr<Execution>& execution) {
        (void)execution;
        return false;
    }
    /// The execution is given up: its outcome no longer matters and its resources are replaced. So
    /// is each other of its call.
    virtual void abandon(const std::shared_ptr<Execution>& execution) = 0;
};

}  // namespace rqxx::runtime
