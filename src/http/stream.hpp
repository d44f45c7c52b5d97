#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <chrono>
#include <filesystem>
#include <memory>
#include <rqxx/log.hpp>
#include <string>
#include <utility>
#include <variant>

namespace rqxx::http {

/// A client's connection, with TLS or without: an AsyncStream of Asio with the time limits of
/// `beast::tcp_stream`.
class Stream {
    using Plain = boost::beast::tcp_stream;
    using Tls = boost::asio::ssl::stream<boost::beast::tcp_stream>;
    using Context = boost::asio::ssl::context;

public:
    using executor_type = boost::asio::any_io_executor;

    /// @param context  null for no TLS.
    Stream(boost::asio::ip::tcp::socket socket, std::shared_ptr<Context> context)
        : context_(std::move(context)) {
        if (context_)
            stream_.emplace<std::unique_ptr<Tls>>(
                std::make_unique<Tls>(std::move(socket), *context_));
        else
            stream_.emplace<Plain>(std::move(socket));
    }

    executor_type get_executor() { return transport().get_executor(); }
    boost::asio::ip::tcp::socket& socket() { return transport().socket(); }
    void expires_after(std::chrono::nanoseconds limit) { transport().expires_after(limit); }
    void expires_never() { transport().expires_never(); }
    void cancel() { transport().cancel(); }
    void close() { transport().close(); }

    template <class Buffers, class Token>
    auto async_read_some(const Buffers& buffers, Token&& token) {
        return boost::asio::async_initiate<Token, void(boost::system::error_code, std::size_t)>(
            [this](auto handler, const Buffers& into) {
                this->visit(
                    [&](auto& stream) { stream.async_read_some(into, std::move(handler)); });
            },
            token, buffers);
    }
    template <class Buffers, class Token>
    auto async_write_some(const Buffers& buffers, Token&& token) {
        return boost::asio::async_initiate<Token, void(boost::system::error_code, std::size_t)>(
            [this](auto handler, const Buffers& from) {
                this->visit(
                    [&](auto& stream) { stream.async_write_some(from, std::move(handler)); });
            },
            token, buffers);
    }

    /// Before anything else is read or written; nothing to do without TLS.
    boost::asio::awaitable<bool> handshake() {
        auto* tls = secure();
        if (tls == nullptr) co_return true;
        const auto [error] =
            co_await tls->async_handshake(boost::asio::ssl::stream_base::server,
                                          boost::asio::as_tuple(boost::asio::use_awaitable));
        co_return !error;
    }
    /// Nothing more is written.
    boost::asio::awaitable<void> end() {
        if (auto* tls = secure()) {
            expires_after(std::chrono::seconds(1));
            co_await tls->async_shutdown(boost::asio::as_tuple(boost::asio::use_awaitable));
        }
        boost::system::error_code ignored;
        socket().shutdown(boost::asio::ip::tcp::socket::shutdown_send, ignored);
    }

private:
    Tls* secure() {
        auto* tls = std::get_if<std::unique_ptr<Tls>>(&stream_);
        return tls == nullptr ? nullptr : tls->get();
    }
    Plain& transport() {
        if (auto* tls = secure()) return tls->next_layer();
        return std::get<Plain>(stream_);
    }
    template <class Use>
    void visit(Use use) {
        if (auto* tls = secure())
            use(*tls);
        else
            use(std::get<Plain>(stream_));
    }

    std::shared_ptr<Context> context_;
    std::variant<std::monostate, Plain, std::unique_ptr<Tls>> stream_;
};

/// Certificate and key of our own port, read again when the files change.
class Certificate {
public:
    /// @throws Error `Errc::usage` that names flag and file.
    Certificate(std::filesystem::path certificate, std::filesystem::path key, Logger& log);
    /// For a new connection. Looks at the files once a second at most; where they cannot be used,
    /// that is logged and the old ones stay.
    [[nodiscard]] std::shared_ptr<boost::asio::ssl::context> context();
    /// Looks at them with the next connection.
    void reload() noexcept { checked_ = {}; }

private:
    using Times = std::pair<std::filesystem::file_time_type, std::filesystem::file_time_type>;
    [[nodiscard]] Times changed() const;
    [[nodiscard]] std::shared_ptr<boost::asio::ssl::context> read() const;

    std::filesystem::path certificate_, key_;
    Logger& log_;
    std::shared_ptr<boost::asio::ssl::context> context_;
    Times times_;
    std::chrono::steady_clock::time_point checked_;
};

}  // namespace rqxx::http
