#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <rqxx/redis/client.hpp>
#include <rqxx/time.hpp>
#include <string>
#include <vector>

#include "ops/census.hpp"

/// How the Redis server is doing, and what is wrong with it for a queue. Reads only.
namespace rqxx::ops {

/// Something that a person should look at.
struct HealthFinding {
    enum class Level { warning, error };
    Level level = Level::warning;
    std::string code;   ///< Stable, as `eviction_policy`.
    std::string text;   ///< One sentence.
    std::string queue;  ///< That it is about; empty: about all.
};
[[nodiscard]] std::string_view to_string(HealthFinding::Level level) noexcept;

struct SlowCommand {
    Timestamp at;
    std::chrono::microseconds took{};
    std::string command;  ///< Its name, and its first key where that is RQ's or ours; no arguments.
};

/// Keys whose names begin alike, from a sample.
struct KeyFamily {
    std::string name;        ///< As `rq:job`.
    std::int64_t keys = 0;   ///< Estimated from the sample, unless all keys were looked at.
    std::int64_t bytes = 0;  ///< The same.
};

struct LargeKey {
    std::string key;
    std::int64_t bytes = 0;
};

struct RedisHealth {
    Timestamp now;  ///< Redis' clock.
    Seconds skew{};
    ServerInfo info;
    bool snapshots = false;         ///< They are made after some time, or number of changes.
    std::vector<SlowCommand> slow;  ///< Newest first.
    std::int64_t keys = 0;
    bool counted = false;  ///< All keys were looked at; else a sample of 300.
    std::vector<KeyFamily> families;
    std::vector<LargeKey> largest;  ///< Of those looked at.
};

/// Two round trips; looks at 300 keys, or all of up to 1000. What an ACL forbids is missing.
[[nodiscard]] boost::asio::awaitable<RedisHealth> read_redis_health(RedisClient& redis);

/// `rtt_p99`: as this process sees it.
[[nodiscard]] std::vector<HealthFinding> findings_of(const RedisHealth& health,
                                                     std::optional<Seconds> rtt_p99);
/// What is wrong with the queues just now.
[[nodiscard]] std::vector<HealthFinding> alerts_of(const Census& census);

}  // namespace rqxx::ops
