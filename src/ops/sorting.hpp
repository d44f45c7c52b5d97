#pragma once

#include <boost/asio/awaitable.hpp>
#include <rqxx/redis/client.hpp>
#include <string>
#include <string_view>

#include "ops/rule_set.hpp"

/// Putting jobs into the lanes in which their queue's rules make them wait.
namespace rqxx::ops {

struct SortResult {
    bool rules_changed = false;
    bool busy = false;  ///< Another worker is at it.
    std::size_t moved = 0;
};

/// The lane of a job with this `data` and `meta`; empty: on the list.
[[nodiscard]] std::string lane_for(const QueueRules& rules, const std::string& queue,
                                   std::string_view data, std::string_view meta);
/// Sorts some of the jobs that stand on the queue's list.
boost::asio::awaitable<SortResult> sort_some(RedisClient& redis, std::string queue,
                                             const QueueRules& rules, std::string version);
/// Moves some of the jobs that stand in lanes of rules that hold no more: to others, or back to
/// the list. `moved` is 0 when there are none.
boost::asio::awaitable<SortResult> sort_some_again(RedisClient& redis, std::string queue,
                                                   const QueueRules& rules, std::string version);

}  // namespace rqxx::ops
