#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <optional>
#include <rqxx/redis/client.hpp>
#include <span>
#include <string>

#include "redis/reply_parser.hpp"

namespace rqxx {

/// One established connection: transport, authentication, database, name, scripts.
///
/// TCP, TLS and unix sockets are one code path from here on.
class Connection {
public:
    /// Connects and logs in. @throws Error `connection`, `timeout`, `authentication`, `server`.
    static boost::asio::awaitable<std::unique_ptr<Connection>> open(
        boost::asio::any_io_executor executor, RedisOptions options);

    explicit Connection(const boost::asio::any_io_executor& executor) : socket_(executor) {}

    /// The whole of `bytes`, which must stay alive. @throws Error `connection`.
    boost::asio::awaitable<void> write(std::string_view bytes);
    /// Reads at least one whole reply. @throws Error `connection`, `protocol`.
    boost::asio::awaitable<Reply> read();
    /// A reply that has been received already.
    std::optional<Reply> buffered();
    /// Ends pending reads and writes with an error. Idempotent.
    void close() noexcept;

private:
    using Socket = boost::asio::generic::stream_protocol::socket;

    boost::asio::awaitable<void> connect(const RedisOptions& options);
    boost::asio::awaitable<void> log_in(const RedisOptions& options);

    Socket socket_;
    std::optional<boost::asio::ssl::context> tls_context_;
    std::optional<boost::asio::ssl::stream<Socket&>> tls_;
    ReplyParser parser_;
    std::array<char, 16 * 1024> buffer_;
};

/// The scripts given to `register_scripts`.
[[nodiscard]] std::span<const Script* const> registered_scripts() noexcept;

}  // namespace rqxx
