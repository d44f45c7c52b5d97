#pragma once

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <rqxx/redis/client.hpp>
#include <string>

/// Reading much in commands that each take little of Redis' time.
namespace rqxx::ops::doctor {

namespace asio = boost::asio;

inline constexpr std::size_t window = 1000;  ///< Entries that one command reads.

using Visit = std::function<void(const std::string&)>;

/// Each entry of a list that is there all the time, once, from its end: what workers take from
/// the front moves nothing, and what is pushed meanwhile is stepped over.
///
/// Returns false if the key is no list.
asio::awaitable<bool> walk_list(RedisClient& redis, std::string key, const Visit& visit);

/// Members and scores of a sorted set. Returns false if the key is none.
asio::awaitable<bool> walk_scores(RedisClient& redis, std::string key,
                                  std::function<void(const std::string&, double)> visit);

/// Runs one command for each of `names`, and hands name and reply on.
template <class Names, class Add, class VisitReply>
asio::awaitable<void> for_each(RedisClient& redis, const Names& names, Add add_command,
                               VisitReply visit) {
    auto at = names.begin();
    while (at != names.end()) {
        const auto first = at;
        Pipeline pipeline;
        for (; at != names.end() && pipeline.size() < 250; ++at)
            add_command(pipeline, *at);
        const auto replies = co_await redis.run(std::move(pipeline));
        auto name = first;
        for (const auto& reply : replies)
            visit(*name++, reply);
    }
}

}  // namespace rqxx::ops::doctor
