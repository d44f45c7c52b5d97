#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <map>
#include <rqxx/redis/client.hpp>
#include <string>
#include <vector>

/// The outbox of webhooks: filled by lua/settle.lua and lua/recover.lua, emptied by deliverers.
namespace rqxx::ops {

namespace asio = boost::asio;

/// A delivery that was taken from the outbox.
struct WebhookDelivery {
    std::string id;
    std::string receiver;  ///< Host and port as the URL has them: what may be logged of it.
    std::map<std::string, std::string, std::less<>> fields;

    [[nodiscard]] const std::string& field(std::string_view name) const;
    /// Unique for ever, and the same for each attempt.
    [[nodiscard]] std::string message_id() const;
};

struct TakenWebhooks {
    bool more = false;  ///< More may be due.
    std::vector<WebhookDelivery> deliveries;
};

/// A receiver that is being sent to.
struct BusyReceiver {
    std::size_t deliveries = 0;
    bool slow = false;  ///< What else is due for it is put off.
};

struct WebhookAttempt {
    enum class Outcome : char {
        delivered = 'D',
        failed = 'F',
        failed_for_good = 'X',
        returned = 'R'
    };
    Outcome outcome = Outcome::failed;
    int status = 0;     ///< Of the answer; 0 for none.
    std::string error;  ///< Empty for none.
    std::chrono::seconds asked_to_wait{};
};

struct WebhookSettled {
    enum class Code { refused = 0, delivered = 1, failed = 2, again = 3 };
    Code code = Code::refused;
    std::int64_t attempt = 0, of = 0;
    std::chrono::seconds next_in{};
};

/// Up to `limit` that are due, leased under `token`.
asio::awaitable<TakenWebhooks> take_webhooks(RedisClient& redis, std::string token,
                                             std::size_t limit, std::size_t per_receiver,
                                             std::map<std::string, BusyReceiver> busy);
asio::awaitable<WebhookSettled> settle_webhook(RedisClient& redis, std::string delivery,
                                               std::string token, WebhookAttempt attempt);

}  // namespace rqxx::ops
