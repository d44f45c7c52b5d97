#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/fwd.hpp>
#include <memory>
#include <optional>
#include <rqxx/cron_service.hpp>
#include <rqxx/value.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace rqxx {

/// The one leader of all processes that follow the schedules kept in Redis (`rqxx:cron:leader:…`).
inline constexpr std::string_view stored_cron_group = "stored";

/// What their processes show in the place of a file's name.
inline constexpr std::string_view stored_cron_file = "redis";

/// A schedule as the API takes it and as it is kept in Redis: an object with the keys of a table of
/// `rqxx cron`'s file, durations as there or in whole seconds, `args`, `kwargs` and `meta` as JSON.
/// @throws Error `Errc::usage` that begins with the key.
[[nodiscard]] CronSchedule read_cron_entry(std::string name, const boost::json::object& entry);

/// `0 3 * * 1-5` as `at 03:00, Monday to Friday`; empty where that is not simple.
[[nodiscard]] std::string cron_in_words(std::string_view expression);

/// One run of a schedule.
struct CronRun {
    Timestamp at;
    std::string job_id;
    std::string status;  ///< Empty: its job is gone.
};

/// A schedule, wherever it comes from, and how it stands.
struct CronListing {
    std::string name;
    bool stored = false;  ///< Kept in Redis, so that it can be changed; else of a file.
    std::string json;     ///< Of a stored one.
    std::string etag;     ///< Of a stored one: SHA1 of `json`.
    std::string expression, timezone, func_name, queue, args, kwargs;
    std::optional<std::int64_t> interval;  ///< Seconds, instead of an expression.
    std::vector<Slot> next;                ///< Five.
    std::vector<CronRun> runs;             ///< The newest 24, newest first.
    std::optional<double> lag;             ///< Seconds by which the last slot was late.
    bool paused = false;
    bool heeds_pause = false;  ///< False: a process of RQ's own fires it, which knows no pauses.
    Value shown;               ///< Of one that is not stored: as a process shows it.
    std::vector<std::string> processes;  ///< That show it.
    std::string leader;                  ///< Of stored ones; empty: nobody fires them just now.
    std::string problem;                 ///< Why it is not fired: it cannot be read.
};
[[nodiscard]] boost::json::object to_json(const CronListing& schedule);

/// A part of all schedules.
struct CronPage {
    std::vector<CronListing> schedules;
    bool more = false;  ///< There are others behind these.
};
/// What is needed to enqueue the job of a listed schedule, stored or only shown by a process.
/// @throws Error `Errc::usage` that says what cannot be read, or is not shown as it is.
[[nodiscard]] CronSchedule schedule_of(const CronListing& listing);

/// Schedules that can be changed while everything runs, and what is known of all others.
class CronEntries {
public:
    static constexpr std::size_t most = 1000;
    explicit CronEntries(RedisClient& redis) : redis_(&redis) {}

    /// By name, those behind `after`; those of `rqxx cron` and of RQ's own cron processes, too.
    /// Three round trips; for each schedule of the page its state, its runs and their jobs are
    /// read.
    boost::asio::awaitable<CronPage> list(std::string after, std::size_t limit);
    boost::asio::awaitable<std::optional<CronListing>> find(std::string name);
    enum class Edit { none = 0, done = 1, changed = 2, too_many = 3 };
    /// `none`: the name is taken.
    boost::asio::awaitable<Edit> add(std::string name, std::string json);
    /// `etag`: only where that is what is there; empty: whatever is there.
    boost::asio::awaitable<Edit> replace(std::string name, std::string json, std::string etag);
    boost::asio::awaitable<Edit> remove(std::string name, std::string etag);
    /// Slots that come meanwhile are left out and not made up for. False where that was so already.
    boost::asio::awaitable<bool> pause(std::string name, bool paused);
    /// Enqueues its job at once, beside its slots. The job's id.
    boost::asio::awaitable<std::string> run_now(CronSchedule schedule);

private:
    boost::asio::awaitable<CronPage> read(std::optional<std::string> only, std::string after,
                                          std::size_t limit);
    RedisClient* redis_;
};

/// Fires the schedules that are kept in Redis, and follows their changes. Any number may run.
class StoredCron {
public:
    StoredCron(RedisClient& redis, Logger& log);
    ~StoredCron();
    boost::asio::awaitable<void> run();
    void request_stop();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace rqxx
