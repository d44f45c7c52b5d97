#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>
#include <random>
#include <rqxx/redis/client.hpp>

#include "redis/connection.hpp"

namespace rqxx {
namespace {

namespace asio = boost::asio;
constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

/// Commands written together, and the caller who waits for their replies.
struct Request {
    Request(const asio::any_io_executor& executor, std::string bytes_, std::size_t expected_)
        : bytes(std::move(bytes_)), expected(expected_), done(executor) {
        replies.reserve(expected);
    }
    std::string bytes;
    std::size_t expected;
    std::vector<Reply> replies;
    std::chrono::milliseconds timeout{};
    std::exception_ptr failure;
    bool finished = false;
    asio::steady_timer done;  ///< The deadline; cancelled when finished.

    void finish() {
        finished = true;
        done.cancel();
    }
    void fail(std::exception_ptr why) {
        failure = std::move(why);
        finish();
    }
};

/// Growing pauses with jitter, so that many clients do not come back at the same moment.
class Backoff {
public:
    explicit Backoff(std::chrono::milliseconds max) : max_(max) {}
    std::chrono::milliseconds next() {
        const auto ceiling = std::min<std::int64_t>(max_.count(), 20LL << std::min(attempt_++, 10));
        return std::chrono::milliseconds(
            std::uniform_int_distribution<std::int64_t>(ceiling / 2, ceiling)(random_));
    }
    void reset() { attempt_ = 0; }
    [[nodiscard]] int attempts() const { return attempt_; }

private:
    std::chrono::milliseconds max_;
    int attempt_ = 0;
    std::minstd_rand random_{std::random_device{}()};
};

}  // namespace

struct RedisClient::Impl : std::enable_shared_from_this<Impl> {
    Impl(asio::any_io_executor executor_, RedisOptions options_, Logger& log_)
        : executor(executor_),
          options(std::move(options_)),
          log(log_),
          wake_writer(executor_),
          pause(executor_),
          connected_event(executor_) {}

    asio::any_io_executor executor;
    RedisOptions options;
    Logger& log;
    std::deque<std::shared_ptr<Request>> waiting;  ///< Not written.
    std::deque<std::shared_ptr<Request>> sent;     ///< Written, in the order of their replies.
    std::shared_ptr<Connection> connection;        ///< Shared with a write in progress.
    asio::steady_timer wake_writer;                ///< Cancelled when something waits.
    asio::steady_timer pause;                      ///< Between attempts.
    asio::steady_timer connected_event;            ///< Cancelled when the state changes.
    std::string last_error;
    std::exception_ptr last_failure;
    Counters counters;
    bool closed = false;
    bool ever_connected = false;

    static asio::awaitable<void> maintain(std::shared_ptr<Impl> self) {
        Backoff backoff(self->options.max_backoff);
        while (!self->closed) {
            try {
                auto connection = co_await Connection::open(self->executor, self->options);
                if (self->closed) break;
                self->connection = std::move(connection);
                if (self->ever_connected) {
                    ++self->counters.reconnects;
                    self->log.info("Redis is back", "redis", self->options.url.redacted());
                }
                self->ever_connected = true;
                self->last_error.clear();
                self->last_failure = nullptr;
                self->connected_event.cancel();
                backoff.reset();
                co_await serve(self);
            } catch (const Error& error) {
                ++self->counters.errors;
                self->last_error = error.message();
                self->last_failure = std::current_exception();
                if (!self->closed && backoff.attempts() == 0)
                    self->log.warning("Redis is not available", "redis",
                                      self->options.url.redacted(), "error", error.message());
            }
            self->connection.reset();
            self->fail_sent();
            self->connected_event.cancel();
            if (self->closed) break;
            self->pause.expires_after(backoff.next());
            co_await self->pause.async_wait(as_result);
        }
    }

    /// Reads and writes until the connection breaks.
    static asio::awaitable<void> serve(std::shared_ptr<Impl> self) {
        asio::co_spawn(self->executor, write_loop(self, self->connection), asio::detached);
        for (;;) {
            Reply reply = co_await self->connection->read();
            do {
                self->deliver(std::move(reply));
                auto next = self->connection->buffered();
                if (!next) break;
                reply = std::move(*next);
            } while (true);
        }
    }

    /// Writes whatever waits, all in one go. Shares the client's state until the connection is
    /// replaced.
    static asio::awaitable<void> write_loop(std::shared_ptr<Impl> self,
                                            std::shared_ptr<Connection> connection) {
        std::string batch;
        while (self->connection == connection) {
            if (self->waiting.empty()) {
                self->wake_writer.expires_at(asio::steady_timer::time_point::max());
                co_await self->wake_writer.async_wait(as_result);
                continue;
            }
            batch.clear();
            while (!self->waiting.empty() && batch.size() < (256u << 10)) {
                auto request = std::move(self->waiting.front());
                self->waiting.pop_front();
                if (batch.empty())
                    batch = std::move(request->bytes);
                else
                    batch += request->bytes;
                request->bytes = {};
                self->counters.commands += request->expected;
                ++self->counters.round_trips;
                self->sent.push_back(std::move(request));
            }
            try {
                co_await connection->write(batch);
            } catch (const Error&) {
                // The reader sees the same break and handles it.
                connection->close();
                co_return;
            }
        }
    }

    void deliver(Reply reply) {
        if (sent.empty()) throw Error(Errc::protocol, "Redis sent a reply that nobody asked for");
        Request& request = *sent.front();
        request.replies.push_back(std::move(reply));
        if (request.replies.size() < request.expected) return;
        const auto keep = std::move(sent.front());
        sent.pop_front();
        keep->finish();
    }

    void fail_sent() {
        auto failed = std::move(sent);
        sent.clear();
        for (const auto& request : failed) {
            request->fail(std::make_exception_ptr(
                Error(Errc::connection,
                      last_error.empty() ? "the connection to Redis was closed" : last_error,
                      Error::Doubt::yes)));
        }
    }

    void drop_connection() {
        if (connection) connection->close();
        wake_writer.cancel();
    }

    void close() {
        closed = true;
        drop_connection();
        pause.cancel();
        connected_event.cancel();
        for (auto* list : {&waiting, &sent}) {
            auto failed = std::move(*list);
            list->clear();
            for (const auto& request : failed)
                request->fail(std::make_exception_ptr(Cancelled()));
        }
    }

    std::shared_ptr<Request> submit(Pipeline pipeline, std::chrono::milliseconds timeout) {
        if (closed) throw Cancelled();
        const std::size_t expected = pipeline.size();
        auto request = std::make_shared<Request>(executor, pipeline.take_bytes(), expected);
        request->timeout = timeout.count() == 0 ? options.command_timeout : timeout;
        request->done.expires_after(request->timeout);
        if (expected == 0) {
            request->finished = true;
        } else {
            waiting.push_back(request);
            wake_writer.cancel();
        }
        return request;
    }

    static asio::awaitable<std::vector<Reply>> wait(std::shared_ptr<Impl> self,
                                                    std::shared_ptr<Request> request) {
        if (!request->finished) co_await request->done.async_wait(as_result);
        if (request->finished) {
            if (request->failure) std::rethrow_exception(request->failure);
            co_return std::move(request->replies);
        }
        // The deadline has passed, or the caller was cancelled.
        const bool timed_out = request->done.expiry() <= std::chrono::steady_clock::now();
        const auto unsent = std::find(self->waiting.begin(), self->waiting.end(), request);
        const bool was_sent = unsent == self->waiting.end();
        if (!was_sent) self->waiting.erase(unsent);
        if (!timed_out)
            throw Cancelled();  // A late reply finds the request and is dropped with it.
        ++self->counters.errors;
        if (was_sent) {
            self->drop_connection();
            throw Error(Errc::timeout,
                        fmt::format("Redis at {} did not answer within {} ms",
                                    self->options.url.endpoint(), request->timeout.count()),
                        Error::Doubt::yes);
        }
        throw Error(Errc::connection,
                    fmt::format("no connection to Redis at {} within {} ms{}{}",
                                self->options.url.endpoint(), request->timeout.count(),
                                self->last_error.empty() ? "" : ": ", self->last_error));
    }

    static asio::awaitable<std::vector<Reply>> run(std::shared_ptr<Impl> self, Pipeline pipeline,
                                                   std::chrono::milliseconds timeout) {
        auto request = self->submit(std::move(pipeline), timeout);
        co_return co_await wait(std::move(self), std::move(request));
    }
};

struct RedisClient::Pending::State {
    std::shared_ptr<Impl> client;
    std::shared_ptr<Request> request;
};

asio::awaitable<std::vector<Reply>> RedisClient::Pending::replies() {
    return Impl::wait(state_->client, state_->request);
}

RedisClient::Pending RedisClient::submit(Pipeline pipeline, std::chrono::milliseconds timeout) {
    Pending pending;
    pending.state_ = std::make_shared<Pending::State>(
        Pending::State{impl_, impl_->submit(std::move(pipeline), timeout)});
    return pending;
}

RedisClient::RedisClient(asio::any_io_executor executor, RedisOptions options, Logger& log)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(options), log)) {
    // Ends after close(); shares the state, so the client itself may be gone by then.
    asio::co_spawn(impl_->executor, Impl::maintain(impl_), asio::detached);
}

RedisClient::~RedisClient() {
    impl_->close();
}

asio::awaitable<Reply> RedisClient::run_one(Pipeline one, std::chrono::milliseconds timeout) {
    auto replies = co_await Impl::run(impl_, std::move(one), timeout);
    replies.front().throw_if_error();
    co_return std::move(replies.front());
}

asio::awaitable<std::vector<Reply>> RedisClient::run(Pipeline pipeline,
                                                     std::chrono::milliseconds timeout) {
    co_return co_await Impl::run(impl_, std::move(pipeline), timeout);
}

asio::awaitable<Reply> RedisClient::eval(const Script& script, std::vector<std::string> keys,
                                         std::vector<std::string> args) {
    Pipeline call;
    call.eval(script, keys, args);
    auto replies = co_await Impl::run(impl_, std::move(call), {});
    if (replies.front().is_error() && replies.front().text.starts_with("NOSCRIPT")) {
        Pipeline again;
        again.add("SCRIPT", "LOAD", script.body);
        again.eval(script, keys, args);
        replies = co_await Impl::run(impl_, std::move(again), {});
        replies.front().throw_if_error();
    }
    replies.back().throw_if_error();
    co_return std::move(replies.back());
}

asio::awaitable<void> RedisClient::connect(std::chrono::milliseconds timeout) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    const auto self = impl_;
    while (!self->connection) {
        if (self->closed) throw Cancelled();
        if (self->last_failure) {
            try {
                std::rethrow_exception(self->last_failure);
            } catch (const Error& error) {
                // A wrong password or TLS set-up does not mend itself.
                if (!error.retryable() || std::chrono::steady_clock::now() >= deadline) throw;
            }
        } else if (std::chrono::steady_clock::now() >= deadline) {
            throw Error(Errc::timeout, fmt::format("no connection to Redis at {} within {} ms",
                                                   self->options.url.endpoint(), timeout.count()));
        }
        self->connected_event.expires_at(deadline);
        co_await self->connected_event.async_wait(as_result);
    }
}

void RedisClient::close() {
    impl_->close();
}
void RedisClient::reset() {
    impl_->drop_connection();
}
bool RedisClient::connected() const noexcept {
    return impl_->connection != nullptr;
}
void RedisClient::require_connection() const {
    if (connected()) return;
    throw Error(Errc::connection,
                fmt::format("no connection to Redis at {}{}{}", impl_->options.url.endpoint(),
                            impl_->last_error.empty() ? "" : ": ", impl_->last_error));
}
std::string RedisClient::last_error() const {
    return impl_->last_error;
}
const RedisOptions& RedisClient::options() const noexcept {
    return impl_->options;
}
asio::any_io_executor RedisClient::executor() const {
    return impl_->executor;
}
const RedisClient::Counters& RedisClient::counters() const noexcept {
    return impl_->counters;
}

// ---- subscriptions -----------------------------------------------------------------------------

struct RedisSubscriber::Impl {
    Impl(asio::any_io_executor executor_, RedisOptions options_, std::vector<std::string> channels_,
         Logger& log_)
        : executor(executor_),
          options(std::move(options_)),
          channels(std::move(channels_)),
          log(log_),
          arrived(executor_),
          pause(executor_) {}

    asio::any_io_executor executor;
    RedisOptions options;
    std::vector<std::string> channels;
    Logger& log;
    std::unique_ptr<Connection> connection;
    std::deque<Message> messages;
    asio::steady_timer arrived;
    asio::steady_timer pause;
    bool closed = false;

    static asio::awaitable<void> maintain(std::shared_ptr<Impl> self) {
        Backoff backoff(self->options.max_backoff);
        while (!self->closed) {
            try {
                auto connection = co_await Connection::open(self->executor, self->options);
                if (self->closed) break;
                self->connection = std::move(connection);
                backoff.reset();
                Pipeline subscribe;
                subscribe.begin(1 + self->channels.size());
                subscribe.argument(std::string_view("SUBSCRIBE"));
                for (const auto& channel : self->channels)
                    subscribe.argument(std::string_view(channel));
                co_await self->connection->write(subscribe.bytes());
                for (;;) {
                    const Reply push = co_await self->connection->read();
                    push.throw_if_error();
                    if (push.elements.size() != 3 || push.elements[0].text != "message") continue;
                    if (self->messages.size() == 1024) self->messages.pop_front();
                    self->messages.push_back({push.elements[1].text, push.elements[2].text});
                    self->arrived.cancel();
                }
            } catch (const Error& error) {
                self->log.debug("Subscription lost", "error", error.message());
            }
            self->connection.reset();
            if (self->closed) break;
            self->pause.expires_after(backoff.next());
            co_await self->pause.async_wait(as_result);
        }
    }
};

RedisSubscriber::RedisSubscriber(asio::any_io_executor executor, RedisOptions options,
                                 std::vector<std::string> channels, Logger& log)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(options), std::move(channels),
                                   log)) {
    asio::co_spawn(impl_->executor, Impl::maintain(impl_), asio::detached);  // as in RedisClient
}

RedisSubscriber::~RedisSubscriber() {
    close();
}

asio::awaitable<RedisSubscriber::Message> RedisSubscriber::next() {
    const auto self = impl_;
    while (self->messages.empty()) {
        if (self->closed) throw Cancelled();
        self->arrived.expires_at(asio::steady_timer::time_point::max());
        co_await self->arrived.async_wait(as_result);
        const auto cancellation = co_await asio::this_coro::cancellation_state;
        if (self->messages.empty() && cancellation.cancelled() != asio::cancellation_type::none)
            throw Cancelled();
    }
    Message message = std::move(self->messages.front());
    self->messages.pop_front();
    co_return message;
}

void RedisSubscriber::close() {
    impl_->closed = true;
    if (impl_->connection) impl_->connection->close();
    impl_->arrived.cancel();
    impl_->pause.cancel();
}

}  // namespace rqxx
