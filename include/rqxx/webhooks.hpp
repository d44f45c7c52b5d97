#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <rqxx/log.hpp>
#include <rqxx/redis/client.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace rqxx {

struct WebhookOptions {
    /// Keys of the signatures, as bytes: see `parse_webhook_secrets`. Empty: nothing is signed.
    /// Several, while receivers change from one to the next: each signs.
    std::vector<std::string> secrets;
    std::size_t concurrency = 16;  ///< Requests at once; a quarter of them to one receiver.
};

/// A secret per line: `whsec_` and base64 (Standard Webhooks), or any text as it is.
[[nodiscard]] Parsed<std::vector<std::string>> parse_webhook_secrets(
    std::string_view text) noexcept;

/// `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`: a `webhook-signature`.
[[nodiscard]] std::string webhook_signature(std::string_view secret, std::string_view id,
                                            std::string_view timestamp, std::string_view body);

/// Sends the webhooks of jobs that have ended, whichever worker of ours ran them.
///
/// Each is written with the job's end and stays until a receiver has answered with 2xx, or eight
/// attempts over about two hours have failed. Sent at least once: a receiver tells repeats by
/// `webhook-id`. Any number of these may run; what a dead one had taken comes back when its lease
/// (a minute and the time limit) has run out.
///
/// Thread safety: use from the client's executor only. The client outlives it.
/// Source: rq/webhook.py (RQ 2.10).
class WebhookDeliverer {
public:
    WebhookDeliverer(RedisClient& redis, WebhookOptions options, Logger& log);
    ~WebhookDeliverer();

    /// Delivers until cancelled; then what is due goes out, for five seconds at most, and the rest
    /// is left to others. Goes on through outages of Redis.
    boost::asio::awaitable<void> run();
    /// Delivers until nothing is due.
    boost::asio::awaitable<void> run_once();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace rqxx
