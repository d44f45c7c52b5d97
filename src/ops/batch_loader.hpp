#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <rqxx/queue.hpp>
#include <rqxx/redis/client.hpp>
#include <string>
#include <unordered_set>

namespace rqxx::ops {

namespace asio = boost::asio;

/// A job as lua/add_to_batch.lua takes it: encoded for Redis, so that it can be kept in a file.
struct EncodedJob {
    std::size_t arguments = 0;
    std::string bytes;
};

/// @throws Error `Errc::usage` that names the option which is out of range or has no place here.
[[nodiscard]] EncodedJob encode_for_batch(const std::string& batch, const std::string& queue,
                                          Serializer serializer, const Call& call,
                                          EnqueueOptions options, std::optional<Timestamp> due,
                                          std::string& job_id);

/// Refuses a job that others, which came before it, depend on: they would not have waited.
class DependencyOrder {
public:
    /// @throws Error `Errc::usage`.
    void check(const EnqueueOptions& options);

private:
    std::unordered_set<std::string> wanted_;
};

/// Adds jobs to an open batch: 64 in a call, several calls on their way at once.
///
/// A call whose reply is lost is repeated; its number keeps it from adding anything twice.
class BatchLoader {
public:
    BatchLoader(RedisClient& redis, std::string batch);
    /// @throws Error `Errc::usage` where the batch takes no more jobs.
    asio::awaitable<void> put(EncodedJob job);
    /// Returns when Redis has all of them.
    asio::awaitable<void> finish();
    /// Called for each job, in order: 0 one of its id was in the way, 1 queued, 2 scheduled, 3
    /// deferred.
    void on_job(std::function<void(std::int64_t)> observer) { on_job_ = std::move(observer); }
    [[nodiscard]] std::uint64_t added() const noexcept { return added_; }
    [[nodiscard]] std::uint64_t duplicates() const noexcept { return duplicates_; }

private:
    struct Call {
        std::uint64_t number = 0;
        std::size_t jobs = 0, arguments = 0;
        std::string bytes;
        std::optional<RedisClient::Pending> pending;
    };

    void send(Call& call);
    asio::awaitable<void> send_next();
    asio::awaitable<void> finish_oldest();
    asio::awaitable<Reply> repeat(Call& call);
    void take(const Call& call, const Reply& reply);

    RedisClient& redis_;
    std::string batch_;
    std::vector<std::string> keys_;
    Call next_;
    std::deque<Call> in_flight_;
    bool broken_ = false;  ///< A call got no answer: those behind it are repeated, too.
    std::uint64_t added_ = 0, duplicates_ = 0;
    std::function<void(std::int64_t)> on_job_;
};

}  // namespace rqxx::ops
