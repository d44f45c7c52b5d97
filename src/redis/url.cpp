#include <fmt/format.h>

#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>
#include <charconv>
#include <rqxx/redis/url.hpp>

namespace rqxx {
namespace {

Parsed<int> parse_database(std::string_view text) {
    int database = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), database);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size() || database < 0)
        return ParseError(fmt::format("database \"{}\" is not a number from 0", text.substr(0, 20)),
                          "redis-url");
    return database;
}

}  // namespace

std::string RedisUrl::redacted() const {
    std::string text = transport == Transport::tls           ? "rediss://"
                       : transport == Transport::unix_socket ? "unix://"
                                                             : "redis://";
    if (!user.empty() || !password.empty())
        text += fmt::format("{}{}@", user, password.empty() ? "" : ":***");
    if (transport == Transport::unix_socket)
        return text + path + (database ? fmt::format("?db={}", database) : "");
    return text + endpoint() + fmt::format("/{}", database);
}

std::string RedisUrl::endpoint() const {
    if (transport == Transport::unix_socket) return path;
    return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port)
                                               : fmt::format("[{}]:{}", host, port);
}

Parsed<RedisUrl> parse_redis_url(std::string_view text) noexcept {
    const auto fail = [](std::string message) {
        return ParseError(std::move(message), "redis-url");
    };
    const auto parsed = boost::urls::parse_uri(text);
    // The text itself is not repeated: it may hold a password.
    if (!parsed) return fail("not a URL like redis://localhost:6379/0 or unix:///run/redis.sock");
    const boost::urls::url_view& url = *parsed;

    RedisUrl result;
    const std::string_view scheme = url.scheme();
    if (scheme == "redis")
        result.transport = RedisUrl::Transport::tcp;
    else if (scheme == "rediss")
        result.transport = RedisUrl::Transport::tls;
    else if (scheme == "unix")
        result.transport = RedisUrl::Transport::unix_socket;
    else
        return fail(
            fmt::format("scheme \"{}\" is none of redis, rediss, unix", scheme.substr(0, 20)));

    result.user = url.user();
    result.password = url.password();
    if (result.transport == RedisUrl::Transport::unix_socket) {
        if (!url.host().empty()) return fail("a unix URL has three slashes: unix:///path/to.sock");
        result.path = url.path();
        if (result.path.size() < 2) return fail("the path of the unix socket is missing");
    } else {
        if (!url.host().empty())
            result.host =
                url.host_type() == boost::urls::host_type::ipv6 ? url.host_address() : url.host();
        if (url.has_port() && !url.port().empty()) {
            const std::string_view port = url.port();
            std::uint16_t number = 0;
            const auto [end, error] =
                std::from_chars(port.data(), port.data() + port.size(), number);
            if (error != std::errc{} || number == 0)
                return fail(fmt::format("\"{}\" is not a port", port.substr(0, 20)));
            result.port = port;
        }
        std::string path = url.path();
        if (path.size() > 1) {
            const auto database = parse_database(std::string_view(path).substr(1));
            if (!database) return database.error();
            result.database = *database;
        }
    }
    for (const auto& param : url.params()) {
        if (param.key != "db") continue;
        const auto database = parse_database(param.value);
        if (!database) return database.error();
        result.database = *database;
    }
    return result;
}

}  // namespace rqxx
