#pragma once

#include <memory>
#include <optional>
#include <rqxx/monitor.hpp>
#include <rqxx/queue.hpp>
#include <rqxx/redis/reply.hpp>
#include <string>
#include <string_view>
#include <vector>

/// For programs that do not use Asio: the same operations as plain calls that wait.
namespace rqxx::blocking {

/// A connection to Redis with a thread of its own.
///
/// Thread safety: any thread; calls run side by side. Lifetime: no call may be under way when it is
/// destroyed. Errors: as the asynchronous operations of the same names.
class Client {
public:
    /// @param url  see `RedisUrl`. Connects at once, waiting up to five seconds.
    /// @throws Error `Errc::usage` for a bad URL, `Errc::connection`, `Errc::timeout`,
    /// `Errc::authentication`.
    explicit Client(std::string_view url);
    ~Client();
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    /// Any command. @throws ServerError for an error reply.
    Reply command(const std::vector<std::string>& arguments);
    /// As `Queue::enqueue`.
    Enqueued enqueue(std::string queue, Call call, EnqueueOptions options = {},
                     Serializer serializer = Serializer::pickle);
    /// As `Queue::enqueue_many`.
    std::vector<Enqueued> enqueue_many(std::string queue, std::vector<NewJob> jobs,
                                       Serializer serializer = Serializer::pickle);
    /// As `Monitor::job_info`.
    std::optional<JobInfo> job(std::string id);
    /// As `Monitor::queue_stats`.
    QueueStats queue_stats(std::string queue);

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace rqxx::blocking
