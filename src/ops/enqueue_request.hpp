#pragma once

#include <boost/asio/awaitable.hpp>
#include <optional>
#include <rqxx/queue.hpp>
#include <string>

/// What the command line and the HTTP API ask for: one job, where it goes, and when.
namespace rqxx::ops {

struct EnqueueRequest {
    Call call;
    std::string queue = "default";
    std::optional<Priority> priority;  ///< The optimized queue's policy, instead of `queue`.
    Serializer serializer = Serializer::pickle;
    std::optional<Timestamp> at;
    std::optional<std::chrono::seconds> in;
    EnqueueOptions options;
};

/// Whether the parts go together. What each may be is looked at by `enqueue`.
/// @throws Error `Errc::usage` whose message begins with the name of a member and a colon.
void check_combination(const EnqueueRequest& request);

/// Enqueues and logs it. @throws Error as `Queue::enqueue` and `check_combination`.
boost::asio::awaitable<Enqueued> enqueue(RedisClient& redis, Logger& log, EnqueueRequest request);

/// Why nothing was enqueued. Only for what is a duplicate.
[[nodiscard]] std::string refusal(const Enqueued& enqueued, const EnqueueRequest& request);

}  // namespace rqxx::ops
