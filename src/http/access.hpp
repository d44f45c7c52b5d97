#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <rqxx/http/router.hpp>
#include <rqxx/log.hpp>
#include <rqxx/redis/client.hpp>
#include <string>
#include <string_view>

namespace rqxx::http {

/// How often somebody may be wrong: ten at once and ten a minute from one address (an IPv6 network
/// of /64), ten times as many in all. Bounded in memory. Pure: time is given.
class FailureLimiter {
public:
    using Time = std::chrono::steady_clock::time_point;
    /// How long to wait before the next attempt; nothing where it may be made now.
    [[nodiscard]] std::optional<std::chrono::seconds> wait(std::string_view address, Time now);
    void failed(std::string_view address, Time now);
    [[nodiscard]] std::size_t size() const noexcept { return addresses_.size(); }

private:
    /// Failures that are not forgiven yet.
    struct Bucket {
        double level = 0;
        Time at{};
    };
    static double level(const Bucket& bucket, Time now, double per_minute);

    std::map<std::string, Bucket, std::less<>> addresses_;
    Bucket all_;
};

/// The value of the only cookie of that name in a `Cookie` header; nothing where there are several:
/// one of them may be somebody else's.
[[nodiscard]] std::optional<std::string_view> cookie_value(std::string_view header,
                                                           std::string_view name) noexcept;

struct AccessOptions {
    std::string token;      ///< Of an administrator, beside those in Redis; empty for none.
    bool required = false;  ///< Nobody gets in without a token or session.
    bool read_only = false;
    Redaction redaction;            ///< For everybody.
    std::string cookie_path = "/";  ///< Under which the server answers.
};

/// Who asks, what he may do, and the routes for logging in and for tokens.
///
/// What Redis says of a token or session is believed for a second. While Redis is away nobody gets
/// in but who has the token of the options. Lifetime: the client and the logger outlive it, and it
/// outlives server and router.
class Access {
public:
    Access(RedisClient& redis, AccessOptions options, Logger& log);
    ~Access();
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;

    [[nodiscard]] Guard guard();
    void add_routes(Router& router);

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // shared with the handlers
};

}  // namespace rqxx::http
