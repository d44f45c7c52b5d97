#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <rqxx/error.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace rqxx::runtime {

/// What a request needs of an http or https URL.
struct HttpUrl {
    bool tls = false;
    std::string host;         ///< Name or address, without brackets.
    std::string port;         ///< As digits; the scheme's own unless given.
    std::string authority;    ///< For the Host header.
    std::string target;       ///< Path and query.
    std::string credentials;  ///< `user:password`, decoded; empty for none.
};

/// As Python's urllib, takes characters that a URL should have escaped. The error does not repeat
/// the URL: it may hold a password.
[[nodiscard]] Parsed<HttpUrl> parse_http_url(std::string_view text) noexcept;
/// `https://host/path`: what may be shown. Neither credentials nor the query, which may be secret.
[[nodiscard]] std::string shown_url(const HttpUrl& url);

struct HttpRequest {
    std::string method = "GET";
    HttpUrl url;
    /// Later ones replace earlier ones of the same name, and those that `send` would add. The
    /// length and the connection are not theirs to set.
    std::vector<std::pair<std::string, std::string>> headers;
    std::string body;
    std::chrono::milliseconds timeout{10000};  ///< From the name look-up to the last byte.
    std::optional<std::chrono::milliseconds> connect_timeout{};  ///< Until the request can go out.
    std::size_t max_body = 64u << 10;  ///< Of the answer; more is cut off.
};

struct HttpResponse {
    int status = 0;
    std::vector<std::pair<std::string, std::string>> headers;
    std::string body;
    std::string cut_short;  ///< Why the body is not whole, if it is not.
    /// Names are compared without case.
    [[nodiscard]] std::optional<std::string> header(std::string_view name) const;
};

/// The `Retry-After` of an answer, 0 to 3600 s; nothing where there is none that can be read.
[[nodiscard]] std::optional<std::chrono::seconds> retry_after(const HttpResponse& response);

/// Which connections stay open for further requests to the same scheme, host and port.
struct HttpKeepAlive {
    std::size_t connections = 0;  ///< Idle ones at most, to all servers; 0: each is closed.
    std::chrono::seconds idle{30};
};

/// Sends HTTP/1.1 requests. Follows no redirects. Verifies certificates against the system's
/// authorities (or SSL_CERT_FILE, SSL_CERT_DIR).
///
/// A request for which a kept connection turns out to have been closed before a byte of the answer
/// has come is sent once more, on a new one: servers close idle connections at any time.
/// Thread safety: use from the executor only. Outlives its requests. Its destructor waits for name
/// look-ups that are under way.
class HttpClient {
public:
    explicit HttpClient(boost::asio::any_io_executor executor, HttpKeepAlive keep_alive = {});
    ~HttpClient();

    /// @throws Error `Errc::usage` for a request that must not be sent, `Errc::timeout`,
    /// `Errc::connection`, or `Errc::protocol` where the peer does not speak HTTP.
    boost::asio::awaitable<HttpResponse> send(HttpRequest request);
    /// Closes what is idle, and keeps nothing any more: an idle connection keeps an event loop
    /// running.
    void close();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace rqxx::runtime
