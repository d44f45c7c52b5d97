#include "runtime/http_client.hpp"

#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>
#include <cerrno>
#include <charconv>
#include <list>
#include <map>
#include <rqxx/codec.hpp>
#include <variant>

#include "base/task_group.hpp"

namespace rqxx::runtime {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace wire = boost::beast::http;
using tcp = asio::ip::tcp;
using Clock = std::chrono::steady_clock;

namespace {

constexpr auto as_result = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t max_headers = 100, max_header_bytes = 32u << 10, max_url_bytes = 16u << 10;
constexpr std::size_t resolver_threads = 4;

/// With what a URL may hold only escaped, escaped.
std::string escaped(std::string_view url) {
    const auto authority = url.find("://");
    const auto path = authority == std::string_view::npos ? std::string_view::npos
                                                          : url.find_first_of("/?#", authority + 3);
    std::string text;
    for (std::size_t i = 0; i < url.size(); ++i) {
        const char c = url[i];
        const bool escape =
            i >= path && std::string_view("\"<>\\^`{|}[]").find(c) != std::string_view::npos;
        text += escape ? fmt::format("%{:02X}", static_cast<unsigned char>(c)) : std::string(1, c);
    }
    return text;
}

bool is_host_name(std::string_view text) {
    return !text.empty() && text.size() <= 253 && std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-' || c == '.' || c == '_';
    });
}

bool is_token(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
    });
}

bool is_header_value(std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) {
        return c == '\t' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
    });
}

/// Whoever sets these could make one request look like two, or keep the connection.
constexpr std::string_view framing[] = {
    "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Expect", "TE",
    "Trailer",        "Keep-Alive"};
bool frames_the_message(std::string_view name) {
    return std::any_of(std::begin(framing), std::end(framing),
                       [&](std::string_view one) { return beast::iequals(name, one); });
}

using Message = wire::request<wire::string_body>;

Message to_message(HttpRequest& request, bool keep_alive) {
    const auto verb = wire::string_to_verb(request.method);
    if (verb == wire::verb::unknown) throw Error(Errc::usage, "the method is not known");
    Message message(verb, request.url.target, 11);
    message.set(wire::field::host, request.url.authority);
    message.set(wire::field::user_agent, "rqxx/" RQXX_VERSION);
    message.set(wire::field::accept_encoding, "identity");
    if (!request.url.credentials.empty())
        message.set(wire::field::authorization, "Basic " + base64_encode(request.url.credentials));
    if (request.headers.size() > max_headers) throw Error(Errc::usage, "too many headers");
    std::size_t bytes = 0;
    for (const auto& [name, value] : request.headers) {
        bytes += name.size() + value.size();
        if (bytes > max_header_bytes) throw Error(Errc::usage, "the headers are too large");
        if (!is_token(name)) throw Error(Errc::usage, "the name of a header is not allowed");
        if (!is_header_value(value) || frames_the_message(name))
            throw Error(Errc::usage,
                        fmt::format("the header {} is not allowed", name.substr(0, 60)));
        message.set(name, value);
    }
    if (!keep_alive) message.set(wire::field::connection, "close");
    message.body() = std::move(request.body);
    if (!message.body().empty() || verb != wire::verb::get) message.prepare_payload();
    return message;
}

[[noreturn]] void failed(std::string_view what, const boost::system::error_code& error) {
    if (error == asio::error::operation_aborted) throw Cancelled();
    if (error == beast::error::timeout)
        throw Error(Errc::timeout, fmt::format("{}: no answer in time", what));
    if (error.category() == wire::make_error_code(wire::error::end_of_stream).category() &&
        error != wire::error::end_of_stream)
        throw Error(Errc::protocol, fmt::format("{}: {}", what, error.message()));
    throw Error(Errc::connection, fmt::format("{}: {}", what, error.message()));
}

/// An open connection to a server.
struct Connection {
    std::variant<beast::tcp_stream, asio::ssl::stream<beast::tcp_stream>> stream;
    bool used = false;      ///< For a request before this one.
    bool reusable = false;  ///< For another one.
    Clock::time_point idle_until;

    explicit Connection(const asio::any_io_executor& executor)
        : stream(std::in_place_index<0>, executor) {}
    Connection(const asio::any_io_executor& executor, asio::ssl::context& tls)
        : stream(std::in_place_index<1>, executor, tls) {}

    beast::tcp_stream& tcp() {
        if (auto* plain = std::get_if<0>(&stream)) return *plain;
        return std::get<1>(stream).next_layer();
    }
    /// Nothing has come since, neither the end nor something that nobody asked for.
    bool is_silent() {
        char byte;
        const auto size = ::recv(tcp().socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        return size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    }
};

/// How long the server says it keeps an idle connection: `Keep-Alive: timeout=5`.
std::optional<std::chrono::seconds> kept_by_server(const HttpResponse& response) {
    const auto text = response.header("Keep-Alive");
    const auto at = text ? text->find("timeout=") : std::string::npos;
    if (at == std::string::npos) return std::nullopt;
    unsigned seconds = 0;
    std::from_chars(text->data() + at + 8, text->data() + text->size(), seconds);
    return std::chrono::seconds(seconds);
}

void switch_on(tcp::socket& socket, int option) {
    const int on = 1;
    ::setsockopt(socket.native_handle(), IPPROTO_TCP, option, &on, sizeof(on));
}

/// Nothing where a connection that had been used before was closed instead of being answered on.
template <class Stream>
asio::awaitable<std::optional<HttpResponse>> exchange(Stream& stream, Connection& connection,
                                                      const Message& message,
                                                      std::size_t max_body) {
    const auto [write_error, written] = co_await wire::async_write(stream, message, as_result);
    // A server may answer before it has read all, and close.
    if (write_error &&
        (write_error == asio::error::operation_aborted || write_error == beast::error::timeout))
        failed("sending", write_error);
    // A server that writes head and body apart, as simple ones do, sends the second when we have
    // acknowledged the first. The kernel would wait for 40 ms with that, and forgets what it was
    // told with the next request.
    switch_on(connection.tcp().socket(), TCP_QUICKACK);
    beast::flat_buffer buffer;
    for (int informational = 0;; ++informational) {
        wire::response_parser<wire::string_body> parser;
        parser.header_limit(static_cast<std::uint32_t>(max_header_bytes));
        parser.body_limit(boost::none);  // The header is of interest, whatever follows.
        const auto [error, size] =
            co_await wire::async_read_header(stream, buffer, parser, as_result);
        if (error) {
            const bool nothing_came =
                informational == 0 && !parser.got_some() && buffer.size() == 0;
            if (connection.used && nothing_came && error != asio::error::operation_aborted &&
                error != beast::error::timeout)
                co_return std::nullopt;
            failed(write_error ? "sending" : "reading", write_error ? write_error : error);
        }
        const int status = parser.get().result_int();
        if (status >= 100 && status < 200 && informational < 5) continue;
        HttpResponse response;
        response.status = status;
        for (const auto& field : parser.get())
            response.headers.emplace_back(field.name_string(), field.value());
        const std::string too_large = fmt::format("it is larger than {} bytes", max_body);
        const auto length = parser.content_length();
        if (length && *length > max_body) {
            response.cut_short = too_large;
            co_return response;
        }
        parser.body_limit(max_body);
        // The status counts, however the body ends.
        const auto [body_error, rest] =
            co_await wire::async_read(stream, buffer, parser, as_result);
        if (body_error == asio::error::operation_aborted) throw Cancelled();
        if (body_error == wire::error::body_limit)
            response.cut_short = too_large;
        else if (body_error)
            response.cut_short = body_error.message();
        else
            connection.reusable = parser.keep_alive() && !write_error && buffer.size() == 0;
        response.body = std::move(parser.get().body());
        co_return response;
    }
}

/// With why a certificate was refused.
[[noreturn]] void tls_failed(SSL* tls, const boost::system::error_code& error) {
    const long reason = ::SSL_get_verify_result(tls);
    if (reason == X509_V_OK || error == asio::error::operation_aborted ||
        error == beast::error::timeout)
        failed("TLS", error);
    throw Error(Errc::connection, fmt::format("TLS: {} ({})", error.message(),
                                              X509_verify_cert_error_string(reason)));
}

/// Idle connections, by the server that they lead to.
class Idle : public std::enable_shared_from_this<Idle> {
public:
    Idle(const asio::any_io_executor& executor, HttpKeepAlive options)
        : options_(options), timer_(executor) {}

    static std::string key(const HttpUrl& url) {
        return fmt::format("{} {} {}", url.tls ? "https" : "http", url.host, url.port);
    }

    [[nodiscard]] bool keeps() const { return options_.connections > 0 && !closed_; }

    /// The one that was used last: the others are older.
    std::unique_ptr<Connection> take(const std::string& key) {
        for (auto one = connections_.end(); one != connections_.begin();) {
            --one;
            if (one->first != key) continue;
            auto connection = std::move(one->second);
            one = connections_.erase(one);
            if (connection->idle_until > Clock::now() && connection->is_silent()) return connection;
        }
        return nullptr;
    }

    void put(const std::string& key, std::unique_ptr<Connection> connection,
             std::optional<std::chrono::seconds> kept_by_server) {
        if (!keeps() || !connection->reusable) return;
        auto idle = options_.idle;
        // A second for the way there.
        if (kept_by_server) idle = std::min(idle, *kept_by_server - std::chrono::seconds(1));
        if (idle.count() <= 0) return;
        connection->tcp().expires_never();
        connection->used = true;
        connection->reusable = false;
        connection->idle_until = Clock::now() + idle;
        connections_.emplace_back(key, std::move(connection));
        if (connections_.size() > options_.connections) connections_.pop_front();
        if (!waiting_) wait();
    }

    void close() {
        closed_ = true;
        connections_.clear();
        timer_.cancel();
    }

private:
    void wait() {
        waiting_ = true;
        timer_.expires_after(std::chrono::seconds(1));
        timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
            const auto self = weak.lock();
            if (error || !self) return;
            std::erase_if(self->connections_, [now = Clock::now()](const auto& one) {
                return one.second->idle_until <= now || !one.second->is_silent();
            });
            self->waiting_ = false;
            if (!self->connections_.empty()) self->wait();
        });
    }

    HttpKeepAlive options_;
    std::list<std::pair<std::string, std::unique_ptr<Connection>>> connections_;  ///< Oldest first.
    asio::steady_timer timer_;
    bool waiting_ = false;
    bool closed_ = false;
};

}  // namespace

Parsed<HttpUrl> parse_http_url(std::string_view text) noexcept {
    const auto fail = [](std::string message) { return ParseError(std::move(message), "url"); };
    try {
        if (text.size() > max_url_bytes) return fail("it is too long");
        const std::string clean = escaped(text);
        const auto parsed = boost::urls::parse_uri(clean);
        if (!parsed) return fail("it is not a URL");
        const boost::urls::url_view& view = *parsed;
        HttpUrl url;
        if (view.scheme_id() == boost::urls::scheme::https)
            url.tls = true;
        else if (view.scheme_id() != boost::urls::scheme::http)
            return fail("it is neither http nor https");
        const bool ipv6 = view.host_type() == boost::urls::host_type::ipv6;
        url.host = ipv6 ? view.host_address() : view.host();
        if (view.host_type() == boost::urls::host_type::ipvfuture ||
            (!ipv6 && !is_host_name(url.host)))
            return fail("its host is not a name or an address");
        url.authority = ipv6 ? "[" + url.host + "]" : url.host;
        const std::string_view standard = url.tls ? "443" : "80";
        url.port = standard;
        if (view.has_port() && !view.port().empty()) {
            const std::string_view port = view.port();
            std::uint16_t number = 0;
            const auto [end, error] =
                std::from_chars(port.data(), port.data() + port.size(), number);
            if (error != std::errc{} || end != port.data() + port.size() || number == 0)
                return fail("its port is not from 1 to 65535");
            url.port = std::to_string(number);
            if (url.port != standard) url.authority += ":" + url.port;
        }
        if (view.has_userinfo()) url.credentials = view.user() + ":" + view.password();
        url.target = view.encoded_path();
        // Boost 1.81 takes what is no port for the beginning of the path.
        if (!url.target.empty() && url.target.front() != '/')
            return fail("its port is not a number");
        if (!url.target.starts_with('/')) url.target.insert(0, "/");
        if (view.has_query()) url.target += "?" + std::string(view.encoded_query());
        return url;
    } catch (const std::exception& error) {
        return fail(error.what());
    }
}

std::string shown_url(const HttpUrl& url) {
    return fmt::format("{}://{}{}", url.tls ? "https" : "http", url.authority,
                       url.target.substr(0, url.target.find('?')));
}

std::optional<std::string> HttpResponse::header(std::string_view name) const {
    for (const auto& [field, value] : headers) {
        if (beast::iequals(field, name)) return value;
    }
    return std::nullopt;
}

std::optional<std::chrono::seconds> retry_after(const HttpResponse& response) {
    constexpr std::int64_t most = 3600;
    const auto text = response.header("Retry-After");
    if (!text || text->empty()) return std::nullopt;
    std::int64_t seconds = most;
    if (text->find_first_not_of("0123456789") == std::string::npos) {
        std::from_chars(text->data(), text->data() + text->size(), seconds);
    } else {
        const char* end = nullptr;
        std::tm date{};
        // The forms of RFC 9110, 5.6.7.
        for (const char* form :
             {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"}) {
            date = {};
            end = ::strptime(text->c_str(), form, &date);
            if (end != nullptr && *end == '\0') break;
            end = nullptr;
        }
        if (end == nullptr) return std::nullopt;
        seconds = ::timegm(&date) - ::time(nullptr);
    }
    return std::chrono::seconds(std::clamp<std::int64_t>(seconds, 0, most));
}

struct HttpClient::Impl {
    Impl(asio::any_io_executor executor_, HttpKeepAlive keep_alive)
        : executor(std::move(executor_)), idle(std::make_shared<Idle>(executor, keep_alive)) {}
    ~Impl() {
        idle->close();
        resolvers.stop();
        resolvers.join();
    }

    asio::any_io_executor executor;
    std::optional<asio::ssl::context> tls;
    std::shared_ptr<Idle> idle;  ///< Its timer may fire once after us.
    /// Not the executor's own: that one has a single thread, which others need too.
    asio::thread_pool resolvers{resolver_threads};

    asio::ssl::context& tls_context() {
        if (!tls) {
            tls.emplace(asio::ssl::context::tls_client);
            tls->set_default_verify_paths();
            tls->set_verify_mode(asio::ssl::verify_peer);
        }
        return *tls;
    }

    /// A look-up cannot be stopped, only left alone.
    struct LookUp {
        explicit LookUp(asio::any_io_executor on) : done(std::move(on)) {}
        Event done;
        bool ended = false;
        boost::system::error_code error;
        tcp::resolver::results_type endpoints;
    };
    std::map<std::string, std::weak_ptr<LookUp>> look_ups;  ///< By host and port.

    void look_up_in_thread(std::shared_ptr<LookUp> look_up, const HttpUrl& url) {
        asio::post(resolvers, [look_up, on = executor, host = url.host, port = url.port] {
            asio::io_context none;
            tcp::resolver resolver(none);
            boost::system::error_code failure;
            auto endpoints = resolver.resolve(host, port, failure);
            asio::post(on, [look_up, failure, endpoints = std::move(endpoints)]() mutable {
                look_up->error = failure;
                look_up->endpoints = std::move(endpoints);
                look_up->ended = true;
                look_up->done.notify();
            });
        });
    }

    asio::awaitable<tcp::resolver::results_type> resolve(HttpUrl url, Clock::time_point deadline) {
        boost::system::error_code error;
        const auto address = asio::ip::make_address(url.host, error);
        if (!error) {
            std::uint16_t port = 0;
            std::from_chars(url.port.data(), url.port.data() + url.port.size(), port);
            co_return tcp::resolver::results_type::create(tcp::endpoint(address, port), url.host,
                                                          url.port);
        }
        // One for all who ask: a name that nobody answers for must not take all the threads.
        std::erase_if(look_ups, [](const auto& one) { return one.second.expired(); });
        auto& under_way = look_ups[url.host + ' ' + url.port];
        auto look_up = under_way.lock();
        if (!look_up || look_up->ended) {
            // shared with the thread, which may end after us
            look_up = std::make_shared<LookUp>(executor);
            under_way = look_up;
            look_up_in_thread(look_up, url);
        }
        while (!look_up->ended) {
            if (Clock::now() >= deadline)
                throw Error(Errc::timeout, "resolving the name: no answer in time");
            co_await look_up->done.wait(deadline - Clock::now());
        }
        if (look_up->error) failed("resolving the name", look_up->error);
        co_return look_up->endpoints;
    }

    asio::awaitable<HttpResponse> send(HttpRequest request) {
        const auto began = Clock::now();
        const auto deadline = began + request.timeout;
        const auto connected_by = request.connect_timeout
                                      ? std::min(deadline, began + *request.connect_timeout)
                                      : deadline;
        const Message message = to_message(request, idle->keeps());
        const std::string server = Idle::key(request.url);
        auto connection = idle->take(server);
        for (;;) {
            if (!connection) connection = co_await open(request.url, connected_by);
            connection->tcp().expires_at(deadline);
            auto response = co_await std::visit(
                [&](auto& stream) {
                    return exchange(stream, *connection, message, request.max_body);
                },
                connection->stream);
            if (response) {
                idle->put(server, std::move(connection), kept_by_server(*response));
                co_return std::move(*response);
            }
            connection.reset();
        }
    }

    asio::awaitable<std::unique_ptr<Connection>> open(const HttpUrl& url,
                                                      Clock::time_point deadline) {
        const auto endpoints = co_await resolve(url, deadline);
        auto connection = url.tls ? std::make_unique<Connection>(executor, tls_context())
                                  : std::make_unique<Connection>(executor);
        beast::tcp_stream& tcp = connection->tcp();
        tcp.expires_at(deadline);
        const auto [error, endpoint] = co_await tcp.async_connect(endpoints, as_result);
        if (error) failed("connecting", error);
        switch_on(tcp.socket(), TCP_NODELAY);
        notice_vanished_peer(tcp.socket());
        if (!url.tls) co_return connection;
        auto& stream = std::get<1>(connection->stream);
        stream.set_verify_callback([verify = asio::ssl::host_name_verification(url.host)](
                                       bool preverified, asio::ssl::verify_context& context) {
            const bool verified = verify(preverified, context);
            if (preverified && !verified)
                ::X509_STORE_CTX_set_error(context.native_handle(), X509_V_ERR_HOSTNAME_MISMATCH);
            return verified;
        });
        boost::system::error_code no_address;
        asio::ip::make_address(url.host, no_address);
        if (no_address) SSL_set_tlsext_host_name(stream.native_handle(), url.host.c_str());
        const auto [tls_error] =
            co_await stream.async_handshake(asio::ssl::stream_base::client, as_result);
        if (tls_error) tls_failed(stream.native_handle(), tls_error);
        co_return connection;
    }

    /// Whoever waits long for an answer must not wait for ever for one from a host that is gone.
    static void notice_vanished_peer(tcp::socket& socket) {
        boost::system::error_code ignored;
        socket.set_option(asio::socket_base::keep_alive(true), ignored);
        for (const auto& [option, value] :
             {std::pair(TCP_KEEPIDLE, 60), {TCP_KEEPINTVL, 15}, {TCP_KEEPCNT, 4}})
            ::setsockopt(socket.native_handle(), IPPROTO_TCP, option, &value, sizeof(value));
    }
};

HttpClient::HttpClient(asio::any_io_executor executor, HttpKeepAlive keep_alive)
    : impl_(std::make_unique<Impl>(std::move(executor), keep_alive)) {}
HttpClient::~HttpClient() = default;

asio::awaitable<HttpResponse> HttpClient::send(HttpRequest request) {
    return impl_->send(std::move(request));
}

void HttpClient::close() {
    impl_->idle->close();
}

}  // namespace rqxx::runtime
