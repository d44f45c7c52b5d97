#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <map>
#include <optional>
#include <rqxx/codec.hpp>
#include <rqxx/job.hpp>
#include <rqxx/log.hpp>
#include <rqxx/redis/client.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace rqxx {

/// Automatic retries of a failing job. Source: rq/job.py Retry.
struct Retry {
    std::int64_t max = 0;                         ///< Further executions after the first.
    std::vector<std::chrono::seconds> intervals;  ///< Waits; the last one repeats. Empty: at once.
    bool enqueue_at_front = false;
};

/// Jobs that must have finished before a job may run. Source: rq/job.py Dependency.
struct Dependency {
    std::vector<std::string> job_ids;  ///< A job that does not exist holds nothing back, as in RQ.
    bool allow_failure = false;        ///< A failed one holds nothing back either.
    bool enqueue_at_front = false;     ///< Once released, the job is next to be taken.
};

/// A function that is called when a job ends: a dotted path for Python executors, the name of a
/// registered callback for native ones. Source: rq/job.py Callback.
struct Callback {
    std::string name;
    std::optional<std::chrono::seconds> timeout;  ///< RQ's default: 60 s.
};

/// Further executions after a success. Source: rq/repeat.py Repeat.
struct Repeat {
    std::int64_t times = 0;
    std::vector<std::chrono::seconds>
        intervals;  ///< Used up from the end, as in RQ; empty: at once.
};

/// A request that is sent when a job ends. Source: rq/webhooks.py Webhook.
struct Webhook {
    std::string url;                             ///< http or https.
    std::string job_status = "finished";         ///< or `failed`.
    std::string method = "GET";                  ///< or `POST`, which tells about the job.
    std::map<std::string, std::string> headers;  ///< Beside ours.
    std::chrono::seconds timeout{10};
};

/// How many jobs with one key may be queued or running at once, wherever they are enqueued and run.
///
/// Of several jobs that differ in it, the one that was enqueued last counts for all of its key. The
/// others wait with the status `rate_limited` on no queue. Older processes of RQ than 3.0 cannot
/// read that status. Source: rq/rate_limit.py RateLimit (RQ 3.0).
struct RateLimit {
    std::string key;               ///< Not empty.
    std::int64_t concurrency = 1;  ///< At least 1.
};

/// What becomes of a job whose deduplication key has been used before. Decided on Redis' clock, in
/// one step with enqueueing.
enum class DedupMode {
    unique,    ///< Refused while the job of the key waits or runs, whoever runs it.
    throttle,  ///< Refused within `period` after the last one that was let in.
    debounce,  ///< Takes the place of the one that waits; starts when none came for `period`.
    replace    ///< Takes the place of the one that waits, on its queue where that stays the same.
};
/// @returns an error that names the accepted words.
[[nodiscard]] Parsed<DedupMode> parse_dedup_mode(std::string_view text) noexcept;
[[nodiscard]] std::string_view to_string(DedupMode mode) noexcept;

/// Jobs of one key are taken for the same. A job that takes another's place has its id; a job that
/// has started is not replaced: a new one is enqueued behind it.
struct Dedup {
    DedupMode mode = DedupMode::unique;
    std::string key;  ///< Up to 512 bytes. Empty: the function and a hash of its arguments.
    std::optional<std::chrono::seconds> period;     ///< Of throttle and debounce, at least 1 s.
    std::optional<std::chrono::seconds> max_delay;  ///< Of debounce: starts so long after the first
                                                    ///< at the latest. Not below `period`.
};
/// The key of a call that names none: the function and a hash of its arguments. The order of
/// keywords does not count.
/// @throws Error `Errc::usage` for arguments that cannot be encoded.
[[nodiscard]] std::string default_dedup_key(const Call& call);

/// Makes a request safe to repeat: for `lifetime` after the first one, the same key is answered as
/// the first time, and no second job is enqueued.
struct Idempotency {
    std::string key;    ///< 1 to 255 bytes. One per request, such as a UUID.
    std::string asked;  ///< What the request asks for, such as a hash of it; not empty. Another one
                        ///< with the same key is refused.
    std::chrono::seconds lifetime{24 * 3600};
};

/// Per-job settings; a member left alone means RQ's default.
struct EnqueueOptions {
    std::string job_id;  ///< Empty: a new UUID.
    std::optional<std::chrono::seconds>
        timeout;  ///< Run time limit; -1 s: none. RQ's default is 180 s.
    std::optional<std::chrono::seconds>
        result_ttl;  ///< How long the result stays; 0 keeps none, -1 for ever.
    std::optional<std::chrono::seconds>
        failure_ttl;                          ///< The same for a failed job. RQ's default: a year.
    std::optional<std::chrono::seconds> ttl;  ///< Lifetime while it waits; > 0.
    std::optional<Retry> retry;
    std::optional<std::string> description;  ///< Default: the call as text.
    Value meta;                              ///< A dict, or None for no meta.
    bool at_front = false;                   ///< Next to be taken, instead of last.
    bool unique = false;  ///< Refuse the job if one with its id exists, even one that has ended.
    std::optional<Dedup> dedup;
    std::optional<Idempotency> idempotency;
    std::optional<Dependency> depends_on;
    std::optional<Callback> on_success, on_failure, on_stopped;
    std::optional<Repeat> repeat;
    std::string group;  ///< Name of an RQ Group to join; empty for none.
    std::vector<Webhook> webhooks;
    std::optional<RateLimit> rate_limit;  ///< Does not go with `unique`, as in RQ.
};

/// One job of `enqueue_many`.
struct NewJob {
    Call call;
    EnqueueOptions options;
};

/// What `Queue::enqueue` did.
struct Enqueued {
    std::string job_id;
    /// A job with this id waits or runs (or, with `unique`, exists), or `dedup` refuses the job: it
    /// was not written. `job_id` names the one in the way.
    bool duplicate = false;
    /// queued, scheduled, deferred, rate_limited; of a duplicate, that of the job there (empty: it
    /// is gone).
    std::string status;
    bool replaced = false;  ///< Took the place of a job that waited (`dedup`), and has its id.
    bool repeated = false;  ///< What an earlier request of the same `idempotency` key was told.
};

/// A named list of job ids (`rq:queue:<name>`), shared with Python RQ.
///
/// A cheap handle without state of its own: copy freely.
/// Thread safety: use from the client's executor only.
/// Lifetime: the client outlives every handle and every call in flight.
class Queue {
public:
    /// @param name  not empty, no comma, no control characters. Nothing is created in Redis until
    /// first use.
    /// @throws Error  `Errc::usage` if the name is not valid.
    Queue(RedisClient& redis, std::string name, Serializer serializer = Serializer::pickle);

    /// Saves the job and adds its id to the queue, in one atomic step. One EVALSHA.
    ///
    /// Without an explicit id a new one is made. With one, a job that has ended makes way; RQ would
    /// merge the two. A job whose dependencies are not met is deferred. If the error thrown says
    /// `in_doubt()`, the job may or may not be there: repeat the call only with its id and
    /// `unique`, or with the same `idempotency`.
    /// @throws Error  `Errc::usage` for options out of range, naming the option, and for an
    /// idempotency key that belongs to another request; nothing was changed.
    /// Source: rq/queue.py Queue.enqueue_job, rq/scripts.py UNIQUE_ENQUEUE_SCRIPT (RQ 2.10).
    boost::asio::awaitable<Enqueued> enqueue(Call call, EnqueueOptions options = {});

    /// The same for a job that is not to run before `due`; a scheduler puts it on the queue then.
    /// Cannot be combined with `depends_on`, which RQ's schedulers would not look at.
    /// Source: rq/queue.py Queue.enqueue_at, enqueue_in (RQ 2.10).
    boost::asio::awaitable<Enqueued> enqueue_at(Timestamp due, Call call,
                                                EnqueueOptions options = {});
    boost::asio::awaitable<Enqueued> enqueue_in(std::chrono::seconds delay, Call call,
                                                EnqueueOptions options = {});

    /// Many jobs. Those without id, dependencies, group and keys go in transactions of up to 64,
    /// each all or nothing; the others one atomic step each, jobs of this call before those that
    /// depend on them. Results come back in the order of `jobs`.
    /// @throws Error  `Errc::usage` for jobs that wait for each other.
    /// Source: rq/queue.py Queue.enqueue_many (RQ 2.10).
    boost::asio::awaitable<std::vector<Enqueued>> enqueue_many(std::vector<NewJob> jobs);

    /// Jobs that wait.
    boost::asio::awaitable<std::int64_t> size();

    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] Serializer serializer() const noexcept { return serializer_; }

private:
    boost::asio::awaitable<void> enqueue_plain(const std::vector<NewJob>& jobs,
                                               const std::vector<std::size_t>& indices,
                                               std::vector<Enqueued>& results);
    boost::asio::awaitable<void> enqueue_one_by_one(const std::vector<NewJob>& jobs,
                                                    const std::vector<std::size_t>& indices,
                                                    std::vector<Enqueued>& results);

    RedisClient* redis_;
    std::string name_;
    Serializer serializer_;
};

enum class Priority { high, normal, low };
/// @returns an error that names the accepted words.
[[nodiscard]] Parsed<Priority> parse_priority(std::string_view text) noexcept;

/// What the caller may say; the policy decides the rest.
struct OptimizedOptions {
    std::optional<std::chrono::seconds> timeout;
    std::optional<std::int64_t> retry;  ///< Default 2.
    Priority priority = Priority::normal;
    std::optional<Dedup> dedup;
    std::optional<Idempotency> idempotency;
    std::string job_id;      ///< Empty: a new UUID.
    std::string session_id;  ///< For the log line; empty: that of the call.
};

/// The policy's decision for one job.
struct ResolvedPolicy {
    std::string queue;
    std::chrono::seconds timeout, result_ttl, failure_ttl;
    std::int64_t retry = 0;
};

/// high: queue `high`, min(timeout, 600). normal: `default`, timeout or 300. low: `low`,
/// max(timeout, 180). Retry 2, result TTL 3600, failure TTL 86400.
/// @throws Error `Errc::usage` for a timeout below 1 s or a retry outside 0…100.
[[nodiscard]] ResolvedPolicy resolve_policy(const OptimizedOptions& options);

/// The session that a call of `eval_worker.evaluate` names; empty for any other call.
[[nodiscard]] std::string session_of(const Call& call);

/// Jobs enqueued together. See `Batch`.
struct EnqueuedBatch {
    std::string batch_id;
    std::vector<std::string> job_ids;  ///< In the order asked for.
};

/// The queues high, default and low with their policy. Logs `Job enqueued`.
class OptimizedQueue {
public:
    OptimizedQueue(RedisClient& redis, Logger& log, Serializer serializer = Serializer::pickle);
    /// As `RedisClient::require_connection`; `enqueue` waits.
    void require_connection() const { redis_->require_connection(); }
    /// Any function under the policy.
    boost::asio::awaitable<Enqueued> enqueue(Call call, OptimizedOptions options);
    /// `eval_worker.evaluate(session_id)`.
    boost::asio::awaitable<Enqueued> enqueue_evaluation(std::string session_id,
                                                        OptimizedOptions options);
    /// One evaluation of each session, as a batch. Of `options` neither `job_id` nor `session_id`
    /// is looked at. @throws Error as `Batch::create_with`.
    boost::asio::awaitable<EnqueuedBatch> enqueue_evaluations(std::vector<std::string> session_ids,
                                                              OptimizedOptions options);

private:
    RedisClient* redis_;
    Logger* log_;
    Serializer serializer_;
};

}  // namespace rqxx
