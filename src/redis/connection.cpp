#include "redis/connection.hpp"

#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

namespace rqxx {
namespace {

namespace asio = boost::asio;
constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

std::span<const Script* const> scripts;

[[noreturn]] void connection_failed(const RedisUrl& url, const boost::system::error_code& error) {
    throw Error(Errc::connection,
                fmt::format("cannot connect to Redis at {}: {}", url.endpoint(), error.message()));
}

}  // namespace

void register_scripts(std::span<const Script* const> list) {
    scripts = list;
}
std::span<const Script* const> registered_scripts() noexcept {
    return scripts;
}

asio::awaitable<std::unique_ptr<Connection>> Connection::open(asio::any_io_executor executor,
                                                              RedisOptions options) {
    using namespace asio::experimental::awaitable_operators;
    auto connection = std::make_unique<Connection>(executor);
    asio::steady_timer deadline(executor, options.connect_timeout);
    // `||` waits for the first success: a failure has to be a result, or it would wait for the
    // deadline.
    auto establish = [](Connection& self,
                        const RedisOptions& how) -> asio::awaitable<std::exception_ptr> {
        try {
            co_await self.connect(how);
            co_await self.log_in(how);
        } catch (...) {
            co_return std::current_exception();
        }
        co_return nullptr;
    };
    const auto outcome =
        co_await (establish(*connection, options) || deadline.async_wait(asio::use_awaitable));
    if (outcome.index() == 1)
        throw Error(Errc::timeout,
                    fmt::format("no answer from Redis at {} within {} ms", options.url.endpoint(),
                                options.connect_timeout.count()));
    if (std::get<0>(outcome)) std::rethrow_exception(std::get<0>(outcome));
    co_return connection;
}

asio::awaitable<void> Connection::connect(const RedisOptions& options) {
    const RedisUrl& url = options.url;
    const auto executor = co_await asio::this_coro::executor;
    if (url.transport == RedisUrl::Transport::unix_socket) {
        if (url.path.size() > 100)
            throw Error(
                Errc::connection,
                fmt::format("the path of a unix socket has at most 100 bytes: {}", url.path));
        asio::local::stream_protocol::socket socket(executor);
        const auto [error] = co_await socket.async_connect(
            asio::local::stream_protocol::endpoint(url.path), as_result);
        if (error) connection_failed(url, error);
        socket_ = std::move(socket);
        co_return;
    }
    asio::ip::tcp::resolver resolver(executor);
    const auto [resolve_error, endpoints] =
        co_await resolver.async_resolve(url.host, url.port, as_result);
    if (resolve_error) connection_failed(url, resolve_error);
    asio::ip::tcp::socket socket(executor);
    const auto [connect_error, endpoint] =
        co_await asio::async_connect(socket, endpoints, as_result);
    if (connect_error) connection_failed(url, connect_error);
    boost::system::error_code ignored;
    socket.set_option(asio::ip::tcp::no_delay(true), ignored);
    socket.set_option(asio::socket_base::keep_alive(true), ignored);
    socket_ = std::move(socket);
    if (url.transport != RedisUrl::Transport::tls) co_return;

    try {
        tls_context_.emplace(asio::ssl::context::tls_client);
        if (options.tls_ca_file.empty())
            tls_context_->set_default_verify_paths();
        else
            tls_context_->load_verify_file(options.tls_ca_file);
    } catch (const boost::system::system_error& error) {
        throw Error(Errc::usage, fmt::format("cannot read the CA file {}: {}", options.tls_ca_file,
                                             error.what()));
    }
    tls_.emplace(socket_, *tls_context_);
    if (options.tls_verify) {
        tls_->set_verify_mode(asio::ssl::verify_peer);
        tls_->set_verify_callback(asio::ssl::host_name_verification(url.host));
    }
    SSL_set_tlsext_host_name(tls_->native_handle(), url.host.c_str());
    const auto [error] = co_await tls_->async_handshake(asio::ssl::stream_base::client, as_result);
    if (error)
        throw Error(Errc::connection, fmt::format("TLS with Redis at {} failed: {}", url.endpoint(),
                                                  error.message()));
}

asio::awaitable<void> Connection::log_in(const RedisOptions& options) {
    const RedisUrl& url = options.url;
    Pipeline hello;
    if (!url.password.empty() && url.user.empty())
        hello.add("AUTH", url.password);
    else if (!url.password.empty())
        hello.add("AUTH", url.user, url.password);
    if (url.database != 0) hello.add("SELECT", url.database);
    if (!options.client_name.empty()) hello.add("CLIENT", "SETNAME", options.client_name);
    // Always something to answer, so that a server that is loading or refuses us is noticed here.
    hello.add("PING");
    const std::size_t required = hello.size();
    const std::string greeting = hello.take_bytes();
    co_await write(greeting);
    for (std::size_t i = 0; i < required; ++i)
        (co_await read()).throw_if_error();
    // Only now: Redis hangs up on who sends more than 16 kB before it has let them in.
    Pipeline loading;
    for (const Script* script : scripts)
        loading.add("SCRIPT", "LOAD", script->body);
    const std::size_t count = loading.size();
    if (count == 0) co_return;
    const std::string bodies = loading.take_bytes();
    co_await write(bodies);
    // A user without the right to load scripts learns so when it runs one.
    for (std::size_t i = 0; i < count; ++i)
        co_await read();
}

asio::awaitable<void> Connection::write(std::string_view bytes) {
    const auto buffer = asio::buffer(bytes.data(), bytes.size());
    const auto [error, size] = tls_ ? co_await asio::async_write(*tls_, buffer, as_result)
                                    : co_await asio::async_write(socket_, buffer, as_result);
    if (error)
        throw Error(Errc::connection, fmt::format("writing to Redis failed: {}", error.message()));
}

asio::awaitable<Reply> Connection::read() {
    for (;;) {
        if (auto reply = buffered()) co_return std::move(*reply);
        const auto [error, size] =
            tls_ ? co_await tls_->async_read_some(asio::buffer(buffer_), as_result)
                 : co_await socket_.async_read_some(asio::buffer(buffer_), as_result);
        if (error)
            throw Error(Errc::connection,
                        error == asio::error::eof
                            ? std::string("Redis closed the connection")
                            : fmt::format("reading from Redis failed: {}", error.message()));
        parser_.feed(std::string_view(buffer_.data(), size));
    }
}

std::optional<Reply> Connection::buffered() {
    auto reply = parser_.next();
    if (!reply) throw Error(Errc::protocol, reply.error().describe());
    return std::move(*reply);
}

void Connection::close() noexcept {
    boost::system::error_code ignored;
    socket_.close(ignored);
}

}  // namespace rqxx
