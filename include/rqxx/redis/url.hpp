#pragma once

#include <rqxx/error.hpp>
#include <string>
#include <string_view>

namespace rqxx {

/// Where a Redis is: `redis://[user[:password]@]host[:port][/db]`, `rediss://…` (TLS),
/// `unix://[user[:password]@]/path/to.sock[?db=n]`. `?db=n` works for all, as in redis-py.
struct RedisUrl {
    enum class Transport { tcp, tls, unix_socket };
    Transport transport = Transport::tcp;
    std::string host = "localhost";
    std::string port = "6379";
    std::string path;  ///< Of a unix socket.
    std::string user;
    std::string password;
    int database = 0;

    /// The URL with the password shown as `***`: fit for logs and people.
    [[nodiscard]] std::string redacted() const;
    /// `localhost:6379` or the socket's path: for error messages.
    [[nodiscard]] std::string endpoint() const;
};

/// The error names the part that is wrong and never contains the password.
[[nodiscard]] Parsed<RedisUrl> parse_redis_url(std::string_view text) noexcept;

}  // namespace rqxx
