#pragma once

#include <array>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <rqxx/redis/client.hpp>
#include <rqxx/time.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

/// The history that charts are drawn from, kept in Redis: a point a second for 15 minutes, a point
/// a minute for 72 hours, of all queues together and of each of the 50 busiest.
///
/// Each series of points is a string of rows, used as a ring: `rqxx:history:<s|m>`, and of a queue
/// `rqxx:history:<s|m>:<queue>`. A row is the time (4 bytes, seconds), then a float (4 bytes) for
/// each field; all little-endian, not a number where it is not known. 52 bytes of all queues, 28 of
/// one: 271 kB, and 146 kB for each queue, at most 7.6 MB.
namespace rqxx::ops {

/// In the order of a row. A queue has the first six.
inline constexpr std::array<std::string_view, 12> history_fields{
    "queued",   "started",  "finished", "failed", "retried",   "oldest_age",
    "wait_p50", "wait_p95", "busy",     "slots",  "redis_ops", "redis_memory"};
inline constexpr std::size_t history_queue_fields = 6;

/// A ring of points.
struct HistoryRing {
    char letter;
    std::int64_t step;  ///< Seconds between points.
    std::int64_t size;  ///< Points.
    std::int64_t ttl;   ///< Seconds that it stays behind the last.
};
inline constexpr HistoryRing seconds_ring{'s', 1, 900, 3600};
inline constexpr HistoryRing minutes_ring{'m', 60, 4320, 288000};

/// `queue` empty: of all.
[[nodiscard]] std::string history_key(const HistoryRing& ring, std::string_view queue);

using HistoryValues = std::array<float, history_fields.size()>;

/// Values over time, with gaps.
struct HistorySeries {
    std::int64_t step = 1;            ///< Seconds between points.
    std::vector<std::int64_t> times;  ///< Where each point begins: seconds since 1970.
    /// A value for each time by field, in the order of `history_fields`.
    std::vector<std::vector<std::optional<double>>> fields;
};

/// What is read of a ring.
struct HistorySpan {
    std::chrono::seconds span{900};
    std::size_t points = 1000;  ///< At most; more are joined, evenly.
};

/// Of all queues (an empty name) or of some; a queue that is not kept has only gaps. Two round
/// trips.
[[nodiscard]] boost::asio::awaitable<std::vector<HistorySeries>> read_history(
    RedisClient& redis, HistorySpan span, std::vector<std::string> queues);

/// What is measured at one moment. Counts that only grow become rates.
struct HistorySample {
    Timestamp now;  ///< Redis' clock.
    struct Queue {
        std::string name;
        std::int64_t queued = 0, started = 0;
        std::optional<double> oldest_age;
        std::array<std::int64_t, 3> totals{};  ///< finished, failed, retried.
    };
    std::vector<Queue> queues;
    std::int64_t queued = 0, started = 0;  ///< Of further queues, which have no series.
    double slots = 0;
    std::optional<double> redis_ops, redis_memory;
    std::map<std::string, double> figures;  ///< As of `Census`.
};

/// Makes rows of samples. Knows nothing of Redis.
class HistoryRows {
public:
    struct Row {
        std::string key;
        std::int64_t offset;
        std::string bytes;
        std::string ttl;  ///< Empty: as it is.
    };
    /// The first is that of all queues and this second.
    [[nodiscard]] std::vector<Row> add(const HistorySample& sample);
    /// What comes next does not follow on what came before.
    void forget();

private:
    struct Counters {
        Timestamp at;
        std::map<std::string, std::array<std::int64_t, 3>> queues;
        std::map<std::string, double> figures;
    };
    [[nodiscard]] std::vector<const HistorySample::Queue*> busiest(const HistorySample& sample);
    [[nodiscard]] static HistoryValues of_all(const HistorySample& sample, const Counters& before,
                                              const Counters& now);
    [[nodiscard]] static HistoryValues of_queue(const HistorySample::Queue& queue,
                                                const Counters& before, Timestamp now);

    std::optional<Counters> last_, minute_;  ///< The pass before; where the minute began.
    std::map<std::string, double> activity_;
    std::int64_t kept_until_ = 0;  ///< When all keys are to be given their TTL again.
    std::set<std::string, std::less<>> with_ttl_;  ///< Queues whose keys have it until then.
};

/// Takes a sample a second and puts it into the history, for who has the sampler's lock.
class HistoryRecorder {
public:
    explicit HistoryRecorder(RedisClient& redis) : redis_(&redis) {}
    /// One pass. `queues`: all, by name; `token`: as the sampler's. Redis' clock at its begin.
    boost::asio::awaitable<Timestamp> record(std::vector<std::string> queues, std::string token);
    void forget();

private:
    boost::asio::awaitable<HistorySample> take(std::vector<std::string> queues);
    boost::asio::awaitable<void> count_further(HistorySample& sample,
                                               std::vector<std::string> queues);

    RedisClient* redis_;
    HistoryRows rows_;
    /// Queued and started jobs of queues beyond the first, looked at in turn.
    std::map<std::string, std::pair<std::int64_t, std::int64_t>> further_;
    std::size_t next_further_ = 0;
};

}  // namespace rqxx::ops
