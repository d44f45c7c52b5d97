#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <rqxx/redis/client.hpp>
#include <string>
#include <utility>
#include <vector>

/// What a scheduler does in Redis.
namespace rqxx::ops {

namespace asio = boost::asio;

/// What happened to one queue in a call of `promote`.
struct Promoted {
    enum class Lock {
        held = 0,
        taken = 1,
        taken_over = 2,  ///< From a scheduler of ours that died.
        not_ours = 3,
        broken = 4  ///< Ours, but some or all jobs cannot be promoted; see `note`.
    };
    std::size_t queue = 0;  ///< Index into the list given.
    Lock lock = Lock::held;
    std::int64_t promoted = 0;
    std::int64_t kept = 0;     ///< Due, but neither promoted nor removed.
    std::int64_t dropped = 0;  ///< Removed, as they are not scheduled.
    bool more = false;         ///< The call's budget ended before the queue's due ids.
    std::string note;          ///< The previous or present owner of the lock, or what is broken.
};

struct PromoteResult {
    std::vector<Promoted> queues;  ///< Those about which there is something to say.
    std::int64_t promoted = 0;
    std::chrono::microseconds late_sum{}, late_max{};
    /// How many jobs were late by 100 us * 1.05^index or more, and less than the next.
    std::vector<std::pair<std::int64_t, std::int64_t>> late_buckets;
};

struct SchedulerOps {
    struct DueQueue {
        std::string name;
        std::int64_t pass_over = 0;  ///< Due ids that the last calls kept.
    };

    RedisClient* redis;
    std::string name;

    /// One step: at most `batch` ids. `renew`: take locks that are free, and renew those held.
    asio::awaitable<PromoteResult> promote(std::vector<DueQueue> queues, bool renew,
                                           std::string all_queues);
    /// Gives up the locks that are ours, the lease and the metadata.
    asio::awaitable<void> release(std::vector<std::string> queues,
                                  std::chrono::milliseconds timeout);
    /// The names of all queues that Redis knows.
    asio::awaitable<std::vector<std::string>> known_queues();
};

/// Ids that one call looks at: about 2 ms of Redis' time.
inline constexpr std::int64_t promote_batch = 300;
/// Source: rq/scheduler.py, interval + 60.
inline constexpr std::chrono::seconds scheduler_lock_ttl{61};
/// After this, a scheduler of ours that does not renew its locks may lose them to another.
inline constexpr std::chrono::microseconds scheduler_lease = std::chrono::seconds(10);

}  // namespace rqxx::ops
