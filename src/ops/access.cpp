#include "ops/access.hpp"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <rqxx/error.hpp>

#include "base/utf8.hpp"
#include "ops/deduplication.hpp"
#include "ops/keys.hpp"
#include "ops/new_job.hpp"

namespace rqxx::ops {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

constexpr std::size_t most_tokens = 1000;
constexpr std::string_view token_prefix = "rqxx_";

Timestamp redis_time(const Reply& reply) {
    reply.throw_if_error();
    const auto& parts = reply.as_array();
    if (parts.size() != 2) throw Error(Errc::protocol, "TIME: two numbers were expected");
    return Timestamp(std::chrono::seconds(parts[0].as_integer()) +
                     std::chrono::microseconds(parts[1].as_integer()));
}

bool is_hex(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    });
}

bool is_plain(std::string_view text) {
    return is_valid_utf8(text) && std::none_of(text.begin(), text.end(), [](char c) {
               return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
           });
}

void check(const AccessToken& token) {
    if (token.name.empty() || token.name.size() > 100 || !is_plain(token.name))
        refuse("name", "must be 1 to 100 bytes of text without control characters");
    static constexpr std::array<std::string_view, 3> scopes{"read", "operate", "admin"};
    if (std::ranges::find(scopes, token.scope) == scopes.end())
        refuse("scope", "must be read, operate or admin");
    if (token.queues.empty() || token.queues.size() > 100)
        refuse("queues", "must be 1 to 100 names or patterns");
    for (const auto& queue : token.queues)
        if (queue.empty() || queue.size() > 200 || !is_plain(queue))
            refuse("queues", "a name or pattern must be 1 to 200 bytes of text");
    if (token.scope == "admin" && std::ranges::find(token.queues, "*") == token.queues.end())
        refuse("queues", "admin is for all queues");
}

/// Nothing for what nobody of us has written: such an entry lets nobody in.
std::optional<AccessToken> token_from(std::string id, std::string_view text) {
    try {
        boost::system::error_code error;
        const json::value parsed = json::parse(text, error);
        if (error || !parsed.is_object()) return std::nullopt;
        const json::object& fields = parsed.get_object();
        AccessToken token;
        token.id = std::move(id);
        token.name = fields.at("name").as_string();
        token.secret_sha256 = fields.at("sha256").as_string();
        token.scope = fields.at("scope").as_string();
        token.queues.clear();
        for (const auto& queue : fields.at("queues").as_array())
            token.queues.emplace_back(queue.as_string());
        token.redact = fields.at("redact").as_bool();
        const auto time = [&](std::string_view name) {
            return parse_utc(std::string_view(fields.at(name).as_string())).value();
        };
        token.created_at = time("created_at");
        if (!fields.at("expires_at").is_null()) token.expires_at = time("expires_at");
        check(token);
        return token;
    } catch (const std::exception&) {
        return std::nullopt;
    }
}

std::string session_key(std::string_view hash) {
    return keys::join("rqxx:session:", hash);
}

std::int64_t seconds_of(Timestamp time) {
    return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
}

}  // namespace

json::object to_json(const AccessToken& token) {
    json::object object{
        {"id", token.id},         {"name", token.name},
        {"scope", token.scope},   {"queues", json::array(token.queues.begin(), token.queues.end())},
        {"redact", token.redact}, {"created_at", format_utc(token.created_at)},
        {"expires_at", nullptr}};
    if (token.expires_at) object["expires_at"] = format_utc(*token.expires_at);
    return object;
}

asio::awaitable<NewAccessToken> create_access_token(
    RedisClient& redis, AccessToken wanted, std::optional<std::chrono::seconds> expires_in) {
    check(wanted);
    constexpr std::chrono::hours longest{24 * 3660};
    if (expires_in && (expires_in->count() <= 0 || *expires_in > longest))
        refuse("expires_in", "must be more than nothing, and at most ten years");
    Pipeline look;
    look.add("TIME");
    look.add("HLEN", keys::tokens);
    const auto replies = co_await redis.run(std::move(look));
    wanted.created_at = redis_time(replies.at(0));
    if (replies.at(1).as_integer() >= static_cast<std::int64_t>(most_tokens))
        refuse("name", fmt::format("there are {} tokens already; revoke some", most_tokens));
    if (expires_in) wanted.expires_at = wanted.created_at + *expires_in;
    wanted.id = random_hex(8);
    const std::string secret = random_hex(24);
    wanted.secret_sha256 = sha256_hex(secret);
    json::object stored = to_json(wanted);
    stored.erase("id");
    stored["sha256"] = wanted.secret_sha256;
    (co_await redis.command("HSETNX", keys::tokens, wanted.id, json::serialize(stored)))
        .throw_if_error();
    std::string text = fmt::format("{}{}_{}", token_prefix, wanted.id, secret);
    co_return NewAccessToken{std::move(wanted), std::move(text)};
}

asio::awaitable<std::vector<AccessToken>> list_access_tokens(RedisClient& redis) {
    const Reply all = co_await redis.command("HGETALL", keys::tokens);
    std::vector<AccessToken> tokens;
    for (const auto& [id, text] : all.as_pairs())
        if (auto token = token_from(std::string(id), text)) tokens.push_back(std::move(*token));
    std::ranges::sort(tokens, {}, [](const AccessToken& token) {
        return std::pair(token.created_at, std::string_view(token.id));
    });
    co_return tokens;
}

asio::awaitable<bool> revoke_access_token(RedisClient& redis, std::string id) {
    const Reply removed = co_await redis.command("HDEL", keys::tokens, id);
    co_return removed.as_integer() == 1;
}

asio::awaitable<std::optional<AccessToken>> find_access_token(RedisClient& redis, std::string id) {
    redis.require_connection();
    Pipeline look;
    look.add("HGET", keys::tokens, id);
    look.add("TIME");
    const auto replies = co_await redis.run(std::move(look));
    replies.at(0).throw_if_error();
    if (replies[0].is_nil()) co_return std::nullopt;
    auto token = token_from(std::move(id), replies[0].as_text());
    if (token && token->expires_at && *token->expires_at <= redis_time(replies.at(1)))
        co_return std::nullopt;
    co_return token;
}

std::optional<TokenText> parse_token(std::string_view text) noexcept {
    constexpr std::size_t id_digits = 16, secret_digits = 48;
    if (text.size() != token_prefix.size() + id_digits + 1 + secret_digits ||
        !text.starts_with(token_prefix))
        return std::nullopt;
    text.remove_prefix(token_prefix.size());
    const std::string_view id = text.substr(0, id_digits), secret = text.substr(id_digits + 1);
    if (text[id_digits] != '_' || !is_hex(id) || !is_hex(secret)) return std::nullopt;
    return TokenText{std::string(id), std::string(secret)};
}

bool has_sha256(std::string_view text, std::string_view hash) noexcept {
    const std::string own = sha256_hex(text);
    return own.size() == hash.size() && ::CRYPTO_memcmp(own.data(), hash.data(), hash.size()) == 0;
}

std::string random_hex(std::size_t bytes) {
    std::string raw(bytes, '\0');
    if (::RAND_bytes(reinterpret_cast<unsigned char*>(raw.data()), static_cast<int>(bytes)) != 1)
        throw Error(Errc::internal, "the system gives no random bytes");
    std::string text;
    for (const char c : raw)
        text += fmt::format("{:02x}", static_cast<unsigned char>(c));
    return text;
}

asio::awaitable<void> begin_session(RedisClient& redis, std::string hash, std::string token_id) {
    redis.require_connection();
    const Timestamp now = redis_time(co_await redis.command("TIME"));
    const std::string record = json::serialize(
        json::object{{"token", token_id}, {"ends", seconds_of(now + session_lives)}});
    const auto lifetime = std::chrono::seconds(unused_session_lives).count();
    (co_await redis.command("SET", session_key(hash), record, "EX", lifetime)).throw_if_error();
}

asio::awaitable<std::optional<AccessSession>> find_session(RedisClient& redis, std::string hash) {
    redis.require_connection();
    const std::string key = session_key(hash);
    Pipeline look;
    look.add("GET", key);
    look.add("TIME");
    look.add("TTL", key);
    const auto replies = co_await redis.run(std::move(look));
    replies.at(0).throw_if_error();
    if (replies[0].is_nil()) co_return std::nullopt;
    boost::system::error_code error;
    const json::value parsed = json::parse(replies[0].as_text(), error);
    const auto* fields = error ? nullptr : parsed.if_object();
    const auto* token = fields == nullptr ? nullptr : fields->if_contains("token");
    const auto* ends = fields == nullptr ? nullptr : fields->if_contains("ends");
    if (token == nullptr || !token->is_string() || ends == nullptr || !ends->is_int64())
        co_return std::nullopt;
    AccessSession session{std::string(token->get_string()),
                          Timestamp(std::chrono::seconds(ends->get_int64()))};
    const Timestamp now = redis_time(replies.at(1));
    if (session.ends <= now) co_return std::nullopt;
    // Now and then, so that looking stays reading.
    const auto lifetime = std::chrono::seconds(unused_session_lives);
    if (replies.at(2).as_integer() < (lifetime - std::chrono::hours(1)).count()) {
        const auto left = std::chrono::duration_cast<std::chrono::seconds>(session.ends - now);
        co_await redis.command("EXPIRE", key,
                               std::max<std::int64_t>(std::min(lifetime, left).count(), 1));
    }
    co_return session;
}

asio::awaitable<void> end_session(RedisClient& redis, std::string hash) {
    co_await redis.command("DEL", session_key(hash));
}

}  // namespace rqxx::ops
