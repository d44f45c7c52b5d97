#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <rqxx/log.hpp>
#include <rqxx/redis/url.hpp>
#include <string>

namespace rqxx::runtime {

/// Exclusive use of a data directory, until destroyed or the process ends in any way.
class DataDirectory {
public:
    /// Creates the directory where it is missing.
    /// @throws Error `Errc::usage` when another process uses it, `Errc::io` when it cannot be
    /// written.
    explicit DataDirectory(std::filesystem::path path);
    ~DataDirectory();
    DataDirectory(const DataDirectory&) = delete;
    DataDirectory& operator=(const DataDirectory&) = delete;
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

private:
    std::filesystem::path path_;
    int lock_ = -1;
};

/// A private redis-server on a unix socket inside a data directory, append-only file on.
///
/// It ends with this process, however that ends. What a crashed predecessor left running is ended
/// first. Start it from the main thread: the kernel ties the child's life to the thread that made
/// it.
class EmbeddedRedis {
public:
    /// Starts the server and waits until it listens.
    /// @throws Error `Errc::io` with what to install, or what the server said in its log.
    EmbeddedRedis(const DataDirectory& directory, Logger& log,
                  std::string program = "redis-server");
    ~EmbeddedRedis();
    EmbeddedRedis(const EmbeddedRedis&) = delete;
    EmbeddedRedis& operator=(const EmbeddedRedis&) = delete;

    [[nodiscard]] RedisUrl url() const;
    /// Starts the server again if it has ended. Cheap; called now and then.
    void keep_running();
    /// Stops it, its data written. Also done by the destructor.
    void stop() noexcept;

private:
    void start();
    void end_predecessor();
    [[nodiscard]] bool accepts() const noexcept;

    std::filesystem::path directory_;
    std::filesystem::path socket_;
    std::string program_;
    Logger& log_;
    pid_t pid_ = -1;
};

/// The URL of the embedded server that runs in `data_dir`; nothing when there is none.
[[nodiscard]] std::optional<RedisUrl> find_embedded_redis(const std::filesystem::path& data_dir);

}  // namespace rqxx::runtime
