#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/fwd.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <rqxx/queue.hpp>
#include <rqxx/redis/client.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace rqxx {

/// A job that is enqueued when something happens to a batch.
struct FollowUp {
    std::string queue = "default";
    Call call;
    EnqueueOptions options;  ///< Without `job_id`, `group` and `depends_on`.
};

/// What a batch is made with.
struct BatchOptions {
    std::string id;      ///< Letters, digits, _ and -, at most 200; empty: a new UUID.
    std::string parent;  ///< Batch that is not complete before this one is; empty for none.
    std::optional<FollowUp> on_complete;  ///< Once, when all jobs have ended, however they did.
    std::optional<FollowUp> on_success;   ///< Once, when all have finished, be it after retries.
    std::optional<FollowUp> on_first_failure;  ///< Once, when the first fails or is stopped.
    /// How long what is known of it stays after it is complete.
    std::chrono::seconds ttl = std::chrono::days(7);
    /// An open batch to which nothing was added for so long is `abandoned`: nobody will seal it.
    std::chrono::seconds open_for = std::chrono::hours(1);
};

/// How a batch stands. total = finished + failed + stopped + canceled + deleted + pending.
struct BatchProgress {
    std::string id;
    /// open (more jobs may come), abandoned (and do not), running, complete.
    std::string state;
    std::int64_t total = 0;
    std::int64_t pending = 0;  ///< Jobs that have not ended: waiting, running, or to be retried.
    std::int64_t finished = 0, failed = 0, stopped = 0, canceled = 0;
    /// Gone before they were known to have ended. A stock worker leaves nothing of a job that
    /// finishes with a result TTL of 0: such a one is here, too.
    std::int64_t deleted = 0;
    std::string parent;
    std::vector<std::string> children;  ///< Up to a thousand.
    std::int64_t children_total = 0, children_waiting = 0, children_failed = 0;
    std::optional<Timestamp> created_at, sealed_at, completed_at, first_failure_at;
    double jobs_per_second = 0;  ///< Over the last 10 to 20 s.
    /// Until its jobs have ended, at that rate; none where it is not known.
    std::optional<Seconds> eta;
    std::string in_progress;                                ///< cancel, retry; empty for neither.
    std::string on_complete, on_success, on_first_failure;  ///< Ids of the jobs that follow.

    [[nodiscard]] std::int64_t done() const noexcept { return total - pending; }
    [[nodiscard]] bool complete() const noexcept { return state == "complete"; }
    /// Complete, and all jobs of it and of the batches in it have finished.
    [[nodiscard]] bool successful() const noexcept;
};
[[nodiscard]] boost::json::object to_json(const BatchProgress& progress);

/// What canceling or retrying did to a batch and those in it.
struct BatchActionResult {
    std::uint64_t done = 0;  ///< Jobs canceled or put back.
    bool complete = false;   ///< Nothing was done: it was complete (of a cancellation).
};

/// A named set of jobs whose ends are counted, and which is followed by other jobs.
///
/// To Python it is a Group of that name. Each end is counted with the job's own transition, once,
/// whatever happens to workers and servers; ends by stock workers within some seconds, by any
/// worker or server of rqxx. A cheap handle: copy freely. Thread safety and lifetime: as for the
/// client.
class Batch {
public:
    /// A batch that is there, or not. @throws Error `Errc::usage` for what is no id.
    Batch(RedisClient& redis, std::string id);

    /// An open batch, without jobs yet.
    /// @throws Error `Errc::usage` for options out of range, a name in use, a parent that is not
    /// there or takes no more; nothing was written.
    static boost::asio::awaitable<Batch> create(RedisClient& redis, BatchOptions options,
                                                Serializer serializer = Serializer::pickle);
    /// The whole in one call: made, filled, sealed. If that fails half-way, the batch stays open,
    /// and what was added runs.
    static boost::asio::awaitable<Batch> create_with(RedisClient& redis, BatchOptions options,
                                                     Queue queue, std::vector<NewJob> jobs);

    /// Adds jobs, 64 in one step, so that some may have ended before the last is there; a
    /// connection that breaks is waited for up to 30 s, and nothing is added twice. A job with an
    /// id of its own is left out where one of that id exists, and is `duplicate` then. Options as
    /// in `Queue::enqueue_many`, but a job must come after those that it depends on, and no group.
    /// @throws Error `Errc::usage` where the batch is sealed, canceled or not there.
    boost::asio::awaitable<std::vector<Enqueued>> add(Queue queue, std::vector<NewJob> jobs);
    /// No more jobs; from then on it can be complete, and an empty one is at once. Again: no harm.
    boost::asio::awaitable<void> seal();

    /// Nothing where there is none, or no longer.
    boost::asio::awaitable<std::optional<BatchProgress>> progress();
    /// Until it is complete, at most `timeout`; how it stands then. @throws Error
    /// `Errc::not_found` where there is none, or no longer.
    boost::asio::awaitable<BatchProgress> wait(std::chrono::milliseconds timeout);

    using Report = std::function<void(std::uint64_t done)>;
    /// Cancels what has not ended, in it and in the batches in it, and closes it for further jobs.
    /// In steps of some milliseconds; where this call breaks off, any worker or server goes on.
    /// @throws Error `Errc::not_found`.
    boost::asio::awaitable<BatchActionResult> cancel(Report report = {});
    /// Puts its failed and stopped jobs back on their queues, in the batches in it, too. It is not
    /// complete then, and `on_success` may still follow; `on_complete` comes once only.
    /// @throws Error `Errc::not_found`; `Errc::usage` while it is being canceled.
    boost::asio::awaitable<BatchActionResult> retry_failed(Report report = {});

    [[nodiscard]] const std::string& id() const noexcept { return id_; }

private:
    RedisClient* redis_;
    std::string id_;
};

/// Batches, newest first. Those that are gone are left out.
boost::asio::awaitable<std::vector<BatchProgress>> list_batches(RedisClient& redis,
                                                                std::size_t limit,
                                                                std::size_t offset = 0);

}  // namespace rqxx
