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

struct HttpRequest {
    std::string method = "GET";
    HttpUrl url;
    /// Later ones replace earlier ones of the same name, and those that `send` would add. The
    /// length and the connection are not theirs to set.
    std::vector<std::pair<std::string, std::string>> headers;
    std::string body;
    std::chrono::milliseconds timeout{10000};  ///< From the name look-up to the last byte.
    std::size_t max_body = 64u << 10;          ///< Of the answer; more is cut off.
};

struct HttpResponse {
    int status = 0;
    std::vector<std::pair<std::string, std::string>> headers;
    std::string body;
    /// Names are compared without case.
    [[nodiscard]] std::optional<std::string> header(std::string_view name) const;
};

/// Sends HTTP/1.1 requests, each on a connection of its own. Follows no redirects. Verifies
/// certificates against the system's authorities (or SSL_CERT_FILE, SSL_CERT_DIR).
///
/// Thread safety: use from the executor only. Outlives its requests. Its destructor waits for name
/// look-ups that are under way.
class HttpClient {
public:
    explicit HttpClient(boost::asio::any_io_executor executor);
    ~HttpClient();

    /// @throws Error `Errc::usage` for a request that must not be sent, `Errc::timeout`,
    /// `Errc::connection`, or `Errc::protocol` where the peer does not speak HTTP.
    boost::asio::awaitable<HttpResponse> send(HttpRequest request);

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace rqxx::runtime
