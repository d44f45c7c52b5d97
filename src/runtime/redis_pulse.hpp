#pragma once

#include <array>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <functional>
#include <optional>
#include <rqxx/redis/client.hpp>
#include <rqxx/time.hpp>

namespace rqxx::runtime {

/// How fast Redis answers, as this process sees it: one question a second.
///
/// Use from the client's executor only. The client outlives it.
class RedisPulse {
public:
    explicit RedisPulse(RedisClient& redis) : redis_(&redis) {}
    /// Until it is cancelled; goes on through outages.
    boost::asio::awaitable<void> run();
    /// Called with each answer's time.
    void on_answer(std::function<void(Seconds)> observer) { observer_ = std::move(observer); }
    /// Of the last minute; nothing before the first answer.
    struct RoundTrip {
        Seconds p50, p99;
    };
    [[nodiscard]] std::optional<RoundTrip> last_minute() const;

private:
    RedisClient* redis_;
    std::function<void(Seconds)> observer_;
    std::array<Seconds, 60> times_{};
    std::size_t count_ = 0;  ///< Of all answers; the ring holds the last.
};

}  // namespace rqxx::runtime
