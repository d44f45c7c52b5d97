#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <rqxx/http/router.hpp>
#include <rqxx/log.hpp>
#include <rqxx/monitor.hpp>
#include <rqxx/operations.hpp>
#include <rqxx/redis/client.hpp>

namespace rqxx::index {
class JobIndex;
}

namespace rqxx::http {

/// `GET /api/v1/events`: what is going on, as server-sent events, for any number of readers at the
/// cost of one.
///
/// Topics: `overview` (queues, workers, recent jobs), `jobs` (their transitions, as the index finds
/// them), `operations` (actions on many jobs), `audit` (what was done by whom). While anybody reads
/// a topic, it is read from Redis once per interval; who is slow misses what has been overtaken
/// meanwhile and gets the newest. All on one executor.
/// Source of the format: HTML Living Standard, 9.2 Server-sent events.
class LiveFeed {
public:
    LiveFeed(boost::asio::any_io_executor executor, Monitor& monitor, Logger& log = null_logger(),
             std::chrono::milliseconds interval = std::chrono::seconds(1));
    ~LiveFeed();
    /// Must not be told to anybody. Before the first reader.
    void hide(Redaction redaction);
    /// What the topics beside `overview` are read from; `index` may be nullptr. Before the first
    /// reader; all outlive the feed's last reading.
    void tell_of(RedisClient& redis, Operations& operations, index::JobIndex* index);
    /// Called when the overview has become another.
    void on_change(std::function<void()> observer);
    void add_route(Router& router);
    /// Reads the state for as long as somebody wants it. Until it is cancelled.
    [[nodiscard]] boost::asio::awaitable<void> run();
    /// Ends all streams, also those to come.
    void close();
    [[nodiscard]] std::size_t readers() const noexcept;

private:
    struct Impl;
    struct View;
    class Stream;
    std::shared_ptr<Impl> impl_;  // streams may outlive the feed by a step
};

}  // namespace rqxx::http
