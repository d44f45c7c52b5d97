#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <memory>
#include <rqxx/log.hpp>
#include <rqxx/redis/reply.hpp>
#include <rqxx/redis/script.hpp>
#include <rqxx/redis/url.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rqxx {

struct RedisOptions {
    RedisUrl url;
    std::string client_name;  ///< CLIENT SETNAME; empty for none.
    std::chrono::milliseconds connect_timeout{5000};
    std::chrono::milliseconds command_timeout{10000};  ///< From the call to the reply, waiting
                                                       ///< for a connection included.
    std::chrono::milliseconds max_backoff{2000};       ///< Between attempts to connect.
    std::string tls_ca_file;                           ///< Empty: the system's.
    bool tls_verify = true;
};

/// Commands to be sent together, encoded as they are added.
class Pipeline {
public:
    /// Adds one command: strings, string views and integers.
    template <class... Args>
    Pipeline& add(const Args&... args) {
        begin(sizeof...(args));
        (argument(args), ...);
        return *this;
    }
    /// Adds one command of any length: `begin(n)`, then n times `argument`.
    void begin(std::size_t arguments);
    void argument(std::string_view text);
    template <std::integral T>
    void argument(T number) {
        argument(std::string_view(std::to_string(number)));
    }
    void eval(const Script& script, std::span<const std::string> keys,
              std::span<const std::string> args);
    /// Arguments that another pipeline has encoded.
    void encoded_arguments(std::string_view bytes) { bytes_.append(bytes); }
    void reserve(std::size_t bytes) { bytes_.reserve(bytes); }

    [[nodiscard]] std::size_t size() const noexcept { return commands_; }
    [[nodiscard]] bool empty() const noexcept { return commands_ == 0; }
    [[nodiscard]] const std::string& bytes() const noexcept { return bytes_; }
    [[nodiscard]] std::string take_bytes() noexcept {
        commands_ = 0;
        return std::move(bytes_);
    }

private:
    std::string bytes_;
    std::size_t commands_ = 0;
};

/// One connection to Redis, shared by any number of coroutines of one executor.
///
/// Commands issued at the same time travel together. A broken connection is re-made with growing,
/// jittered pauses; commands not yet sent wait for it until their deadline, commands that were sent
/// fail with `in_doubt()`. Scripts are loaded on each connect, and reloaded on NOSCRIPT.
/// Thread safety: none; use from the executor only.
/// Errors: any call may throw `Errc::connection`, `Errc::timeout`, `Errc::authentication`,
/// `ServerError`; `Cancelled` after `close`.
class RedisClient {
public:
    RedisClient(boost::asio::any_io_executor executor, RedisOptions options,
                Logger& log = null_logger());
    ~RedisClient();
    RedisClient(const RedisClient&) = delete;
    RedisClient& operator=(const RedisClient&) = delete;

    /// One command. @throws ServerError for an error reply.
    template <class... Args>
    boost::asio::awaitable<Reply> command(const Args&... args) {
        Pipeline one;
        one.add(args...);
        return run_one(std::move(one), {});
    }
    /// One command with a deadline of its own, such as a blocking one.
    boost::asio::awaitable<Reply> run_one(Pipeline one, std::chrono::milliseconds timeout);
    /// All commands in one write; error replies are returned, not thrown.
    boost::asio::awaitable<std::vector<Reply>> run(Pipeline pipeline,
                                                   std::chrono::milliseconds timeout = {});
    /// A request on its way. The replies may be awaited later, once.
    class Pending {
    public:
        boost::asio::awaitable<std::vector<Reply>> replies();

    private:
        friend class RedisClient;
        struct State;
        std::shared_ptr<State> state_;  // shared with the connection, which fills in the replies
    };
    /// Queues the commands now; they leave as soon as the executor gets to it.
    Pending submit(Pipeline pipeline, std::chrono::milliseconds timeout = {});
    /// EVALSHA, with the script loaded where Redis lost it.
    boost::asio::awaitable<Reply> eval(const Script& script, std::vector<std::string> keys,
                                       std::vector<std::string> args);
    /// Waits until connected. @throws Error of the last attempt when `timeout` has passed.
    boost::asio::awaitable<void> connect(std::chrono::milliseconds timeout);
    /// Fails everything that waits with `Cancelled` and disconnects. Final.
    void close();
    /// Drops the current connection (and what blocks on it); a new one is made. For waking a
    /// blocked command at shutdown.
    void reset();

    [[nodiscard]] bool connected() const noexcept;
    /// For who would rather fail than wait until Redis is back. @throws Error `Errc::connection`
    /// where there is no connection now.
    void require_connection() const;
    /// Why the last attempt to connect failed; empty while connected.
    [[nodiscard]] std::string last_error() const;
    [[nodiscard]] const RedisOptions& options() const noexcept;
    [[nodiscard]] boost::asio::any_io_executor executor() const;

    struct Counters {
        std::uint64_t commands = 0;     ///< Sent.
        std::uint64_t round_trips = 0;  ///< Requests: a pipeline or script counts once.
        std::uint64_t reconnects = 0;
        std::uint64_t errors = 0;
    };
    [[nodiscard]] const Counters& counters() const noexcept;

private:
    struct Impl;
    std::shared_ptr<Impl>
        impl_;  // shared with the connection's coroutines, which end after close()
};

/// Messages of pub/sub channels, on a connection of its own that re-subscribes after a break.
class RedisSubscriber {
public:
    RedisSubscriber(boost::asio::any_io_executor executor, RedisOptions options,
                    std::vector<std::string> channels, Logger& log = null_logger());
    ~RedisSubscriber();
    struct Message {
        std::string channel;
        std::string payload;
    };
    /// The next message. At most 1024 wait; the oldest are dropped. @throws Cancelled after
    /// `close`.
    boost::asio::awaitable<Message> next();
    void close();

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // as in RedisClient
};

/// Scripts that every client loads when it connects. Called once, before the first connection.
void register_scripts(std::span<const Script* const> scripts);

}  // namespace rqxx
