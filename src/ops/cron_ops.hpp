#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <optional>
#include <rqxx/cron_service.hpp>
#include <span>
#include <string>

/// What a cron process does in Redis.
namespace rqxx::ops {

namespace asio = boost::asio;

/// What is known of a schedule's past.
struct CronPast {
    Slot last_slot;
    std::optional<Timestamp> last_enqueued_at;
    std::string last_job;
};

struct Lease {
    bool leads = false;
    Timestamp now;       ///< Redis' clock.
    bool known = false;  ///< The process's hash was there.
};

struct Fired {
    enum class Code { repeated = 0, enqueued = 1, overlaps = 2, paused = 3 };
    Code code = Code::repeated;
    Timestamp at;          ///< When it was enqueued.
    std::string last_job;  ///< The unfinished one.
};

class CronOps {
public:
    /// `group` is common to all processes that are to share the work.
    CronOps(RedisClient& redis, std::string name, std::string config_file, std::string_view group);

    /// Signs on or stays known; asks to lead. `jobs`, as `describe` gives it, is shown by RQ's
    /// monitors; nothing: as it is.
    asio::awaitable<Lease> lease(std::chrono::milliseconds duration,
                                 std::optional<std::string> jobs);
    /// `leads`: write down where a new schedule begins.
    asio::awaitable<CronPast> resume(const CronSchedule& schedule, bool leads);
    asio::awaitable<Fired> fire(const CronSchedule& schedule, Slot slot);
    asio::awaitable<void> retire();

    /// RQ's JSON of one schedule.
    static Value describe(const CronSchedule& schedule, std::optional<Timestamp> latest,
                          std::optional<Timestamp> next);

private:
    RedisClient* redis_;
    std::string name_;
    std::string config_file_;
    Timestamp created_at_;
    std::string leader_key_;
    std::string key_;
};

}  // namespace rqxx::ops
