#include "ops/webhook_outbox.hpp"

#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"

namespace rqxx::ops {

const std::string& WebhookDelivery::field(std::string_view name) const {
    static const std::string none;
    const auto found = fields.find(name);
    return found == fields.end() ? none : found->second;
}

std::string WebhookDelivery::message_id() const {
    // The number starts anew in an emptied Redis; the time does not.
    std::string text = "msg_" + id + "_";
    for (char c : field("created_at"))
        if (c >= '0' && c <= '9') text += c;
    return text;
}

asio::awaitable<TakenWebhooks> take_webhooks(RedisClient& redis, std::string token,
                                             std::size_t limit, std::size_t per_receiver,
                                             std::map<std::string, BusyReceiver> busy) {
    std::vector<std::string> args{std::move(token), std::to_string(limit),
                                  std::to_string(per_receiver)};
    for (const auto& [receiver, state] : busy) {
        args.push_back(receiver);
        args.push_back(std::to_string(state.deliveries));
        args.emplace_back(state.slow ? "1" : "0");
    }
    const Reply reply =
        co_await redis.eval(lua::webhook_take, {std::string(keys::webhooks)}, std::move(args));
    const auto& parts = reply.as_array();
    TakenWebhooks taken;
    taken.more = parts.at(0).as_integer() == 1;
    for (const auto& row : parts.at(1).as_array()) {
        WebhookDelivery delivery{row.elements.at(0).text, row.elements.at(1).text, {}};
        for (const auto& [field, value] : row.elements.at(2).as_pairs())
            delivery.fields.emplace(field, value);
        taken.deliveries.push_back(std::move(delivery));
    }
    co_return taken;
}

asio::awaitable<WebhookSettled> settle_webhook(RedisClient& redis, std::string delivery,
                                               std::string token, WebhookAttempt attempt) {
    std::vector<std::string> args{std::move(delivery),
                                  std::move(token),
                                  std::string(1, static_cast<char>(attempt.outcome)),
                                  attempt.status == 0 ? "" : std::to_string(attempt.status),
                                  std::move(attempt.error),
                                  std::to_string(attempt.asked_to_wait.count())};
    const Reply reply =
        co_await redis.eval(lua::webhook_done, {std::string(keys::webhooks)}, std::move(args));
    const auto& parts = reply.as_array();
    co_return WebhookSettled{static_cast<WebhookSettled::Code>(parts.at(0).as_integer()),
                             parts.at(1).as_integer(), parts.at(2).as_integer(),
                             std::chrono::seconds(parts.at(3).as_integer())};
}

}  // namespace rqxx::ops
