#pragma once

#include <boost/asio/thread_pool.hpp>
#include <filesystem>
#include <functional>
#include <optional>
#include <rqxx/batch.hpp>
#include <string>

#include "runtime/job_lines.hpp"

namespace rqxx::runtime {

namespace asio = boost::asio;

/// What is said of a batch that comes as lines.
struct UploadOptions {
    std::string name;  ///< Empty: a new UUID.
    std::string queue = "default";
    bool partial = false;
    std::string parent;
    std::chrono::seconds ttl = BatchOptions().ttl;
    std::string on_complete, on_success, on_first_failure;  ///< Functions; empty for none.
    std::string follow_queue;                               ///< Empty: `queue`.
    Serializer serializer = Serializer::pickle;
    std::filesystem::path folder;          ///< Of the temporary file.
    std::vector<std::string> functions{};  ///< That may be enqueued, `*` for any text; empty: all.
};

/// A batch made from lines: they are all there and good (or chosen) before the first is enqueued.
class BatchUpload {
public:
    /// @throws Error `Errc::usage` for options out of range.
    explicit BatchUpload(UploadOptions options);
    /// Whether the batch can be made, as far as is known before its jobs are there.
    /// @throws Error `Errc::usage`.
    asio::awaitable<void> check(RedisClient& redis);
    [[nodiscard]] JobLines& lines() noexcept { return lines_; }
    /// Makes the batch, adds all jobs, seals it. The file is read on the pool.
    asio::awaitable<Batch> enqueue(RedisClient& redis, asio::thread_pool& blocking,
                                   std::function<void(std::uint64_t done)> report = {});
    [[nodiscard]] std::uint64_t added() const noexcept { return added_; }
    [[nodiscard]] std::uint64_t duplicates() const noexcept { return duplicates_; }

private:
    [[nodiscard]] std::optional<FollowUp> follow_up(const std::string& function) const;

    UploadOptions options_;
    JobLines lines_;
    std::uint64_t added_ = 0, duplicates_ = 0;
};

}  // namespace rqxx::runtime
