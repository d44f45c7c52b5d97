#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <functional>
#include <rqxx/redis/client.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace rqxx {

/// What becomes of the jobs that wait for one that is canceled or deleted.
enum class Dependents {
    leave,    ///< They stay deferred, as in RQ.
    enqueue,  ///< They no longer wait for it.
    cascade,  ///< The same happens to them, and to those that wait for them.
};
[[nodiscard]] Parsed<Dependents> parse_dependents(std::string_view text) noexcept;

/// What an action did to one job.
struct ActionResult {
    enum class Code { no_such_job = 0, done = 1, refused = 2 };
    std::string job_id;
    Code code = Code::no_such_job;
    std::string status;           ///< That the job had.
    std::int64_t dependents = 0;  ///< Jobs concerned with it, or left waiting for it.
};

/// What became of the wish to stop a running job.
struct StopResult : ActionResult {
    bool listens = true;  ///< False: it is started, and nobody hears of it.
    /// Its worker is told by its record, too, and notes that it has read it: see
    /// `ExecutionInfo::stop`.
    bool acknowledges = false;
};

/// Which jobs of a queue an action is for.
struct JobFilter {
    std::string queue;
    /// queued, started, finished, failed (stopped ones too), deferred, scheduled or canceled.
    std::string status;
    std::string func;         ///< Name of the function, `*` for any text; empty: any.
    std::string error;        ///< Part of the last line of the error, in any case; empty: any.
    std::uint64_t limit = 0;  ///< At most so many; 0: all.
    std::uint64_t most_looked_at = 0;  ///< Ends after the page that reaches it; 0: goes on.
    /// Only jobs whose own status it is as well, which leaves out stopped ones in the place of the
    /// failed.
    bool own_status = false;
};

/// How far an action on many jobs has got.
struct ActionProgress {
    std::uint64_t looked_at = 0, total = 0;  ///< Jobs of that queue and status.
    std::uint64_t matched = 0, done = 0, refused = 0;
};

/// Changes of jobs that somebody asks for. Each job changes in one atomic step.
///
/// Many jobs go in batches whose size follows the time that Redis takes for one, so that others are
/// served in between: about 3 ms each.
/// Thread safety and lifetime: as for the client. With `dry_run` nothing is written.
class JobActions {
public:
    /// @param by  who asks, for the jobs' timelines.
    explicit JobActions(RedisClient& redis, std::string by = {})
        : redis_(&redis), by_(std::move(by)) {}

    struct CancelOptions {
        Dependents dependents = Dependents::leave;
        /// Take it out of the lists of those that wait for its own dependencies.
        bool remove_from_dependencies = false;
        bool dry_run = false;
    };
    /// Whatever has not been canceled yet. A running job is asked to stop and ends canceled.
    /// Source: rq/job.py Job.cancel (RQ 2.10).
    boost::asio::awaitable<std::vector<ActionResult>> cancel(std::vector<std::string> ids,
                                                             CancelOptions options);
    struct RemoveOptions {
        Dependents dependents = Dependents::leave;
        bool dry_run = false;
    };
    /// With all that is kept of it, results included. Source: rq/job.py Job.delete (RQ 2.10).
    boost::asio::awaitable<std::vector<ActionResult>> remove(std::vector<std::string> ids,
                                                             RemoveOptions options);
    struct RequeueOptions {
        bool at_front = false;
        bool dry_run = false;
    };
    /// Failed, stopped and canceled jobs. Source: rq/registry.py BaseRegistry.requeue (RQ 2.10).
    boost::asio::awaitable<std::vector<ActionResult>> requeue(std::vector<std::string> ids,
                                                              RequeueOptions options);
    /// Asks the worker that runs the job to stop it, by the command of RQ and, where it is a worker
    /// of rqxx, by a mark that its next heartbeat finds: a command has no answer and may be lost.
    /// The job ends `stopped` some time later; refused where it does not run.
    /// Source: rq/command.py send_stop_job_command (RQ 2.10).
    boost::asio::awaitable<StopResult> stop(std::string id, bool dry_run = false);

    /// Scheduled jobs, before their time. Source: rq/scheduler.py enqueue_scheduled_jobs (RQ 2.10).
    boost::asio::awaitable<std::vector<ActionResult>> run_now(std::vector<std::string> ids,
                                                              bool dry_run);

    using Action = std::function<boost::asio::awaitable<std::vector<ActionResult>>(
        std::vector<std::string> ids)>;
    /// Applies `action` to each job of the filter that was there when it began. Jobs that it
    /// refuses or that are not meant are stepped over. `stays`: the action leaves jobs where they
    /// are, as every dry run does.
    /// @throws Error `Errc::usage` for a status that is none of those above.
    boost::asio::awaitable<ActionProgress> for_each(
        JobFilter filter, bool stays, Action action,
        std::function<void(const ActionProgress&)> report = {});
    /// Those of `ids` whose jobs are of such queues.
    /// @param queues  names; `*` stands for any text.
    boost::asio::awaitable<std::vector<std::string>> of_queues(std::vector<std::string> ids,
                                                               std::vector<std::string> queues);
    /// Takes ids without a job off a queue. How many. Source: rq/queue.py Queue.compact (RQ 2.10).
    boost::asio::awaitable<std::uint64_t> compact(std::string queue, bool dry_run);

private:
    boost::asio::awaitable<std::vector<ActionResult>> run(const Script& script,
                                                          std::vector<std::string> head,
                                                          std::vector<std::string> ids);

    RedisClient* redis_;
    std::string by_;
};

}  // namespace rqxx
