#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <map>
#include <optional>
#include <rqxx/monitor.hpp>
#include <string>
#include <string_view>
#include <vector>

/// The state of all queues and workers at once, for metrics and alerts. Reads only.
namespace rqxx::ops {

struct QueueCensus {
    QueueStats stats;
    /// How long the job has waited that is next; nothing for an empty queue, or where it is not
    /// known.
    std::optional<Seconds> oldest_age;
    std::int64_t listeners = 0;  ///< Workers that take jobs of it.
    std::int64_t due = 0;        ///< Scheduled jobs whose time came more than a second ago.
    std::int64_t lapsed = 0;     ///< Started jobs that nobody has vouched for for a minute.
    bool has_scheduler = false;  ///< Somebody holds RQ's lock of its scheduler.
};

struct WorkerCensus {
    std::string name, state, queues;  ///< As RQ stores them: queues by commas.
    std::int64_t successful = 0, failed = 0;
    double working_seconds = 0;
    std::optional<Seconds> heartbeat_age;
    std::int64_t slots = 1;  ///< Jobs at once; of a stock worker one.
};

/// The sections of INFO, field by field.
class ServerInfo {
public:
    ServerInfo() = default;
    explicit ServerInfo(std::string_view text);
    [[nodiscard]] std::string text(std::string_view field) const;
    /// Nothing where there is no such field, or it is no number.
    [[nodiscard]] std::optional<double> number(std::string_view field) const;

private:
    std::map<std::string, std::string, std::less<>> fields_;
};

struct Census {
    Timestamp now;                      ///< Redis' clock.
    Seconds skew{};                     ///< How far this host's clock is ahead of it.
    std::vector<QueueCensus> queues;    ///< By name.
    std::vector<WorkerCensus> workers;  ///< By name; of more than 1000 some.
    std::int64_t registered_workers = 0;
    std::map<std::string, std::int64_t> totals;  ///< As `Monitor::totals`.
    /// Fields of the performance figures, summed since they have been kept. See
    /// lua/includes/metrics.lua.
    std::map<std::string, double> figures;
    std::int64_t pending_webhooks = 0;
    bool suspended = false;
    ServerInfo info;
};

/// Three round trips, O(queues); looks at 1000 workers at most.
[[nodiscard]] boost::asio::awaitable<Census> take_census(RedisClient& redis);

/// What is told of a queue's next job: the commands of two round trips, and what came back.
class OldestJob {
public:
    static constexpr std::size_t first_replies = 2;
    static void ask(Pipeline& first, const std::string& queue);
    /// @param replies  of `ask`.
    OldestJob(std::string queue, const Reply* replies);
    /// How many commands it adds.
    std::size_t ask_more(Pipeline& second) const;
    [[nodiscard]] std::optional<Seconds> age(const Reply* replies, Timestamp now) const;

private:
    std::string queue_;
    std::string next_;                ///< Of the list.
    std::vector<std::string> lanes_;  ///< Where rules have moved jobs; of many some.
};

/// The sum of the replies to HGETALL of buckets of figures.
void add_figures(std::map<std::string, double>& sum, const Reply& hash);

}  // namespace rqxx::ops
