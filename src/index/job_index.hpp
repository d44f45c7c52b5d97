#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <rqxx/log.hpp>
#include <rqxx/redis/client.hpp>
#include <rqxx/time.hpp>
#include <string>
#include <vector>

#include "index/store.hpp"

namespace rqxx::index {

/// A job of a list, as its hash is now; error and tags as the index has them.
struct JobLine {
    std::string id, status, queue, function, description, worker, error, group;
    std::optional<Timestamp> created_at, enqueued_at, started_at, ended_at;
    std::vector<std::string> tags;
};

struct JobLines {
    std::vector<JobLine> jobs;
    std::optional<std::string> next;  ///< Cursor of the next page; nothing behind the last.
    std::int64_t approx_total = 0;
    bool total_is_exact = false;
    Timestamp now;  ///< Redis' time.
};

struct JobIds {
    std::vector<std::string> ids;
    std::optional<std::string> next;
};

/// What people have decided about a group of failures; shared by way of Redis.
struct Triage {
    std::string state = "open";  ///< `open`, `muted`, `resolved`.
    std::string by;
    std::optional<Timestamp> at;
};

struct FailureReport {
    Failure failure;
    Triage triage;
    std::string traceback;  ///< Of one job, in the answer for one group.
};

struct FailureReports {
    std::vector<FailureReport> failures;
    std::optional<std::string> next;
};

struct IndexState {
    bool complete = false;  ///< All jobs have been looked at since this process began.
    std::int64_t jobs = 0;
    double progress = 0;  ///< 0 to 1, of the first look at all jobs.
    /// Seconds: how old what the index tells may be. Nothing while it is not complete.
    std::optional<double> max_age;
};

/// A list of all jobs in Redis that can be searched: a SQLite database beside the server.
///
/// It is a cache: made from Redis, kept up to date by the stream that rqxx's scripts write
/// (lua/includes/changes.lua), by looks at the places where stock RQ's changes show, and by a slow
/// walk over all jobs, which also finds what neither told of. It costs Redis no memory for a job.
/// Thread safety: use from the client's executor only; SQLite runs in two threads of its own.
/// Lifetime: outlives every call in flight.
class JobIndex {
public:
    enum class Mode {
        asks_for_changes,  ///< Has scripts tell of changes, which writes some keys of its own.
        /// Writes nothing to Redis: reads what scripts tell another index, and where there is none
        /// finds changes by looking alone.
        reads_only,
    };
    JobIndex(RedisClient& redis, std::filesystem::path file, Logger& log,
             Mode mode = Mode::asks_for_changes);
    ~JobIndex();
    JobIndex(const JobIndex&) = delete;
    JobIndex& operator=(const JobIndex&) = delete;

    /// Keeps the index up to date, until cancelled.
    boost::asio::awaitable<void> run();

    /// Calls `observer` with the transitions of jobs as they are found, on the client's executor:
    /// within about two seconds, only the last of several that came close together. Nothing is
    /// told of jobs that the first look at all jobs finds, nor of those that expire.
    void on_transition(std::function<void(std::vector<JobTransition>)> observer);

    /// A page of jobs. At most three round trips to Redis and `most_keys` keys, whatever there is.
    /// A page may be short, even empty, before the last.
    /// @param cursor  `next` of the page before; empty for the first.
    /// @throws Error `Errc::usage` for a cursor of another list.
    boost::asio::awaitable<JobLines> list(JobFilter filter, std::string cursor, std::size_t limit);
    static constexpr std::size_t most_keys = 50;
    /// Ids of jobs alone, as the index knows them, without Redis.
    boost::asio::awaitable<JobIds> find_ids(JobFilter filter, std::string cursor,
                                            std::size_t limit);

    boost::asio::awaitable<std::vector<NameCount>> suggest(NameKind kind, std::string prefix);
    boost::asio::awaitable<std::vector<NameCount>> suggest_groups(std::string prefix);

    /// @param state  empty for any.
    boost::asio::awaitable<FailureReports> failures(FailureFilter filter, std::string state,
                                                    std::string cursor, std::size_t limit);
    /// Nothing for a group without jobs.
    /// @param within  as of `FailureFilter`: as if there were no other queues.
    boost::asio::awaitable<std::optional<FailureReport>> failure(
        std::string id, std::vector<std::string> within = {});
    /// Notes in Redis what somebody has decided; `open` forgets it. @param by  who, as they say.
    boost::asio::awaitable<void> decide(std::string id, std::string state, std::string by);

    boost::asio::awaitable<IndexState> state();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace rqxx::index
