#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/system/system_error.hpp>
#include <charconv>
#include <list>
#include <map>
#include <rqxx/codec.hpp>
#include <rqxx/job.hpp>
#include <rqxx/webhooks.hpp>

#include "base/task_group.hpp"
#include "base/utf8.hpp"
#include "ops/webhook_outbox.hpp"
#include "runtime/http_client.hpp"
#include "runtime/signing.hpp"

namespace rqxx {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;
using ops::WebhookAttempt;
using ops::WebhookDelivery;
using ops::WebhookSettled;
using Clock = std::chrono::steady_clock;

namespace {

constexpr auto poll_interval = 1s;
constexpr auto stop_limit = 5s;
/// A receiver all of whose places have been busy for so long is slow.
constexpr auto slow_after = 1s;
constexpr std::size_t receivers_at_once = 4;
constexpr std::size_t max_exc_info = 16u << 20;
constexpr std::size_t max_error = 300;

/// `2026-11-23T17:47:37.728246+00:00`, without the fraction where there is none: as Python writes
/// it.
Value iso_time(const std::string& stored) {
    const auto time = parse_utc(stored);
    if (!time) return {};
    std::string text = format_utc(*time);
    text.pop_back();
    if (text.ends_with(".000000")) text.resize(text.size() - 7);
    return Value(text + "+00:00");
}

std::string exc_info(const std::string& stored) {
    const auto packed = base64_decode(stored);
    if (!packed || packed->empty()) return {};
    const auto text = zlib_decompress(*packed, max_exc_info);
    return text ? *text : std::string();
}

/// Source: rq/webhook.py Webhook.get_payload (RQ 2.10).
std::string payload(const WebhookDelivery& delivery) {
    const auto call = decode_call(delivery.field("data"));
    const std::string& status = delivery.field("job_status");
    Value::Pairs pairs{{Value("job_id"), Value(delivery.field("job_id"))},
                       {Value("func_name"), call ? Value(call->func_name) : Value()},
                       {Value("status"), Value(status)},
                       {Value("enqueued_at"), iso_time(delivery.field("enqueued_at"))},
                       {Value("ended_at"), iso_time(delivery.field("ended_at"))}};
    if (status == "failed")
        pairs.push_back({Value("exc_info"), Value(exc_info(delivery.field("exc_string")))});
    return encode_json(Value::dict(std::move(pairs)));
}

void add_user_headers(runtime::HttpRequest& request, const std::string& stored) {
    if (stored.empty()) return;
    boost::system::error_code error;
    const auto headers = json::parse(stored, error);
    if (error || !headers.is_object())
        throw Error(Errc::usage, "the headers are not an object of texts");
    for (const auto& [name, value] : headers.as_object()) {
        if (value.is_string())
            request.headers.emplace_back(name, value.as_string());
        else if (value.is_int64())
            request.headers.emplace_back(name, std::to_string(value.as_int64()));
        else
            throw Error(Errc::usage, "the headers are not an object of texts");
    }
}

/// @throws Error `Errc::usage` for what must not be sent.
runtime::HttpRequest make_request(const WebhookDelivery& delivery,
                                  const std::vector<std::string>& secrets) {
    runtime::HttpRequest request;
    auto url = runtime::parse_http_url(delivery.field("url"));
    if (!url) throw Error(Errc::usage, "url: " + url.error().message);
    request.url = std::move(*url);
    request.method = delivery.field("method");
    if (request.method == "POST") {
        request.body = payload(delivery);
        request.headers.emplace_back("Content-Type", "application/json");
    } else if (request.method != "GET") {
        throw Error(Errc::usage, "the method is neither GET nor POST");
    }
    int seconds = 10;
    const std::string& timeout = delivery.field("timeout");
    std::from_chars(timeout.data(), timeout.data() + timeout.size(), seconds);
    request.timeout = std::chrono::seconds(std::clamp(seconds, 1, 300));
    add_user_headers(request, delivery.field("headers"));
    const std::string id = delivery.message_id();
    request.headers.emplace_back("webhook-id", id);
    runtime::sign(request, secrets, id);
    return request;
}

WebhookAttempt judge(const runtime::HttpResponse& response) {
    WebhookAttempt attempt;
    attempt.status = response.status;
    if (response.status >= 200 && response.status < 300) {
        attempt.outcome = WebhookAttempt::Outcome::delivered;
        return attempt;
    }
    attempt.error = fmt::format("the receiver answered {}", response.status);
    if (response.status == 410) attempt.outcome = WebhookAttempt::Outcome::failed_for_good;
    if (response.status == 429 || response.status == 503)
        attempt.asked_to_wait = runtime::retry_after(response).value_or(0s);
    return attempt;
}

}  // namespace

struct WebhookDeliverer::Impl {
    Impl(RedisClient& redis_, WebhookOptions options_, Logger& log_)
        : redis(redis_),
          options(std::move(options_)),
          log(log_),
          http(redis_.executor()),
          changed(redis_.executor()),
          tasks(redis_.executor()) {}

    struct InFlight {
        std::string delivery, token, receiver;
        Clock::time_point since = Clock::now();
    };

    RedisClient& redis;
    WebhookOptions options;
    Logger& log;
    runtime::HttpClient http;
    std::list<InFlight> in_flight;
    bool ended = false;  ///< A delivery has, since the last look at the outbox.
    Event changed;
    TaskGroup tasks;

    asio::awaitable<void> run() {
        try {
            co_await loop();
        } catch (const Cancelled&) {
        } catch (const boost::system::system_error& error) {
            if (error.code() != asio::error::operation_aborted) throw;
        }
        co_await asio::this_coro::reset_cancellation_state();
        co_await finish();
    }

    asio::awaitable<void> loop() {
        for (;;) {
            bool more = false;
            ended = false;
            try {
                more = co_await take();
            } catch (const Error& error) {
                log.debug("Webhooks cannot be taken", "error", error.message());
            }
            if (in_flight.size() < options.concurrency && (more || ended)) continue;
            co_await changed.wait(poll_interval);
        }
    }

    asio::awaitable<void> run_once() {
        for (;;) {
            ended = false;
            const bool more = co_await take();
            if (in_flight.empty() && !more) co_return;
            if (!ended && (!more || in_flight.size() >= options.concurrency))
                co_await changed.wait(poll_interval);
        }
    }

    /// Takes what is due, as far as there is room, and sends it. Returns whether there may be more.
    asio::awaitable<bool> take() {
        if (in_flight.size() >= options.concurrency) co_return false;
        const std::size_t per_receiver =
            std::max<std::size_t>(options.concurrency / receivers_at_once, 1);
        std::map<std::string, ops::BusyReceiver> busy;
        std::map<std::string, Clock::time_point> latest;
        for (const auto& one : in_flight) {
            ++busy[one.receiver].deliveries;
            latest[one.receiver] = std::max(latest[one.receiver], one.since);
        }
        for (auto& [receiver, state] : busy)
            state.slow =
                state.deliveries >= per_receiver && Clock::now() - latest[receiver] > slow_after;
        const std::string token = new_execution_id();
        auto taken = co_await ops::take_webhooks(
            redis, token, options.concurrency - in_flight.size(), per_receiver, std::move(busy));
        for (auto& delivery : taken.deliveries) {
            const auto place =
                in_flight.insert(in_flight.end(), {delivery.id, token, delivery.receiver});
            tasks.spawn(place->delivery, deliver(*this, std::move(delivery), place));
        }
        co_return taken.more;
    }

    static asio::awaitable<void> deliver(Impl& self, WebhookDelivery delivery,
                                         std::list<InFlight>::iterator place) {
        WebhookAttempt attempt;
        try {
            try {
                attempt =
                    judge(co_await self.http.send(make_request(delivery, self.options.secrets)));
            } catch (const Error& error) {
                if (error.code() == Errc::usage)
                    attempt.outcome = WebhookAttempt::Outcome::failed_for_good;
                attempt.error = to_valid_utf8(error.message().substr(0, max_error));
            }
            co_await self.settle(delivery, place->token, std::move(attempt));
        } catch (const Cancelled&) {
            co_return;  // Stays in `in_flight`, to be given back.
        } catch (const boost::system::system_error& error) {
            if (error.code() == asio::error::operation_aborted) co_return;
            self.log.error("Webhook could not be sent", "id", delivery.field("job_id"), "error",
                           error.what());
        } catch (const std::exception& error) {
            // Its lease runs out, and it is taken again.
            self.log.error("Webhook could not be settled", "id", delivery.field("job_id"), "error",
                           error.what());
        }
        self.in_flight.erase(place);
        self.ended = true;
        self.changed.notify();
    }

    asio::awaitable<void> settle(const WebhookDelivery& delivery, std::string token,
                                 WebhookAttempt attempt) {
        WebhookSettled settled;
        for (int tries = 1;; ++tries) {
            std::optional<Error> failure;
            try {
                settled = co_await ops::settle_webhook(redis, delivery.id, token, attempt);
                break;
            } catch (const Error& error) {
                failure = error;
            }
            // Safe to repeat: it is fenced.
            if (!failure->retryable() || tries == 4) throw Error(*failure);
        }
        const std::string& id = delivery.field("job_id");
        const std::string& receiver = delivery.receiver;
        switch (settled.code) {
            case WebhookSettled::Code::refused:
                break;
            case WebhookSettled::Code::delivered:
                log.debug("Webhook delivered", "id", id, "receiver", receiver, "attempt",
                          settled.attempt);
                break;
            case WebhookSettled::Code::again:
                log.warning("Webhook failed", "id", id, "receiver", receiver, "attempt",
                            fmt::format("{}/{}", settled.attempt, settled.of), "next_in",
                            settled.next_in, "error", attempt.error);
                break;
            case WebhookSettled::Code::failed:
                log.error("Webhook given up", "id", id, "receiver", receiver, "attempt",
                          fmt::format("{}/{}", settled.attempt, settled.of), "error",
                          attempt.error);
                break;
        }
    }

    /// The webhooks of the last jobs go out; what takes too long is given back.
    asio::awaitable<void> finish() {
        const auto deadline = Clock::now() + stop_limit;
        bool more = true;
        while ((more || !in_flight.empty()) && redis.connected() && Clock::now() < deadline) {
            try {
                more = co_await take();
            } catch (const Error&) {
                more = false;
            }
            if (!in_flight.empty() && (!more || in_flight.size() >= options.concurrency))
                co_await changed.wait(
                    std::min<Clock::duration>(poll_interval, deadline - Clock::now()));
        }
        tasks.cancel();
        co_await tasks.join();
        WebhookAttempt none;
        none.outcome = WebhookAttempt::Outcome::returned;
        for (const auto& one : in_flight) {
            if (!redis.connected()) break;
            try {
                co_await ops::settle_webhook(redis, one.delivery, one.token, none);
            } catch (const Error&) {
                break;
            }
        }
        in_flight.clear();
    }
};

WebhookDeliverer::WebhookDeliverer(RedisClient& redis, WebhookOptions options, Logger& log)
    : impl_(std::make_unique<Impl>(redis, std::move(options), log)) {}
WebhookDeliverer::~WebhookDeliverer() = default;

asio::awaitable<void> WebhookDeliverer::run() {
    return impl_->run();
}
asio::awaitable<void> WebhookDeliverer::run_once() {
    return impl_->run_once();
}

}  // namespace rqxx
