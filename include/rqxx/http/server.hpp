#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <rqxx/http/router.hpp>
#include <rqxx/log.hpp>
#include <string>

namespace rqxx::http {

struct ServerOptions {
    std::string host = "127.0.0.1";
    unsigned short port = 8000;  ///< 0 picks a free one.
    /// Who may do what. Without it everybody may do everything.
    Guard guard{};
    bool authenticated =
        false;  ///< The guard lets nobody in without proof; so it must be off loopback.
    std::string tls_certificate, tls_key;  ///< PEM files; both or none.
    std::string
        path_prefix;  ///< Such as `/rqxx`: where a proxy has us. Paths without it count too.
    bool trust_proxy = false;  ///< X-Forwarded-For and -Proto say where requests come from.
    std::size_t max_connections = 1024;        ///< Further ones get 503 and are closed.
    std::size_t max_header_bytes = 16 * 1024;  ///< More is 431.
    std::size_t max_body_bytes = 1024 * 1024;  ///< More is 413.
    std::chrono::seconds header_timeout{10};
    std::chrono::seconds body_timeout{30};
    std::chrono::seconds idle_timeout{60};  ///< Between requests of one connection.
    std::chrono::seconds write_timeout{30};
    bool access_log = true;
};

/// What a finished request was, for metrics.
struct RequestRecord {
    std::string_view route;  ///< The pattern; empty where none matched.
    int status = 0;
    Seconds duration{};
};

/// HTTP/1.1 on one listener.
///
/// Binding to an address that is not loopback without proof of who asks (`authenticated`) is
/// refused. At the limit of connections the one that has been idle for longest makes room for a new
/// one. Lifetime: router and logger outlive the server.
class Server {
public:
    Server(boost::asio::any_io_executor executor, const Router& router, ServerOptions options,
           Logger& log);
    ~Server();
    /// Binds and listens. @throws Error `Errc::usage` (public address open to everybody, bad host,
    /// prefix or certificate) or `Errc::io` (address in use), each message naming host and port.
    void listen();
    /// The port bound.
    [[nodiscard]] unsigned short port() const noexcept;
    /// `http://127.0.0.1:8000/`, with TLS `https://…`.
    [[nodiscard]] std::string url() const;
    /// Called after each request, on the server's executor.
    void on_request(std::function<void(const RequestRecord&)> observer);
    /// Accepts until `stop`; returns when every connection has ended.
    [[nodiscard]] boost::asio::awaitable<void> run();
    /// Reads the certificate again, for connections to come.
    void reload_certificate();
    /// Stops accepting; idle connections close at once, requests in progress have `grace`.
    void stop(std::chrono::milliseconds grace);
    [[nodiscard]] std::size_t connections() const noexcept;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace rqxx::http
