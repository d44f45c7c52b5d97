#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/fwd.hpp>
#include <chrono>
#include <optional>
#include <rqxx/redis/client.hpp>
#include <rqxx/time.hpp>
#include <string>
#include <string_view>
#include <vector>

/// The tokens and sessions that may use the HTTP API, as they stand in Redis, for all servers on
/// it.
///
/// `rqxx:tokens` is a hash: id -> JSON. A token reads `rqxx_<id>_<secret>`; the secret has 192
/// random bits, so that SHA-256 alone keeps it, and only its hash is stored. `rqxx:session:<hash>`
/// says whose session it is and how long it may last at most.
namespace rqxx::ops {

struct AccessToken {
    std::string id;
    std::string name;
    std::string secret_sha256;
    std::string scope = "read";            ///< read, operate or admin.
    std::vector<std::string> queues{"*"};  ///< `*` stands for any text.
    bool redact = false;                   ///< Data of jobs is hidden.
    Timestamp created_at{};
    std::optional<Timestamp> expires_at;
};

struct NewAccessToken {
    AccessToken token;
    std::string text;  ///< What the client sends; nobody can tell it later.
};

/// Makes a token of `wanted`'s name, scope, queues and redact. @throws Error `Errc::usage` that
/// names the field.
boost::asio::awaitable<NewAccessToken> create_access_token(
    RedisClient& redis, AccessToken wanted, std::optional<std::chrono::seconds> expires_in);
/// By time of creation, expired ones included.
boost::asio::awaitable<std::vector<AccessToken>> list_access_tokens(RedisClient& redis);
/// Whether there was one. Its sessions end with it.
boost::asio::awaitable<bool> revoke_access_token(RedisClient& redis, std::string id);
/// Nothing for one that is unknown or has expired. One round trip.
boost::asio::awaitable<std::optional<AccessToken>> find_access_token(RedisClient& redis,
                                                                     std::string id);

/// What is told of a token: all but its secret's hash.
[[nodiscard]] boost::json::object to_json(const AccessToken& token);

struct TokenText {
    std::string id, secret;
};
/// Nothing for what is no token of ours.
[[nodiscard]] std::optional<TokenText> parse_token(std::string_view text) noexcept;
/// Whether `text` has this SHA-256, in constant time.
[[nodiscard]] bool has_sha256(std::string_view text, std::string_view hash) noexcept;
/// So many bytes of the system's randomness, as hexadecimal digits.
[[nodiscard]] std::string random_hex(std::size_t bytes);

struct AccessSession {
    std::string token_id;
    Timestamp ends{};  ///< At the latest; unused ones end earlier.
};
inline constexpr std::chrono::hours unused_session_lives{12};
inline constexpr std::chrono::hours session_lives{7 * 24};

/// Begins a session of `token_id`; `hash` is that of what the browser keeps.
boost::asio::awaitable<void> begin_session(RedisClient& redis, std::string hash,
                                           std::string token_id);
/// Nothing for one that is unknown or has ended. One used lives on; two round trips at most.
boost::asio::awaitable<std::optional<AccessSession>> find_session(RedisClient& redis,
                                                                  std::string hash);
boost::asio::awaitable<void> end_session(RedisClient& redis, std::string hash);

}  // namespace rqxx::ops
