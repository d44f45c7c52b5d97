#include "runtime/http_client.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>
#include <charconv>
#include <rqxx/codec.hpp>

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

Message to_message(HttpRequest& request) {
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
    message.set(wire::field::connection, "close");
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

template <class Stream>
asio::awaitable<HttpResponse> exchange(Stream& stream, Message& message, std::size_t max_body) {
    const auto [write_error, written] = co_await wire::async_write(stream, message, as_result);
    // A server may answer before it has read all, and close.
    if (write_error &&
        (write_error == asio::error::operation_aborted || write_error == beast::error::timeout))
        failed("sending", write_error);
    beast::flat_buffer buffer;
    for (int informational = 0;; ++informational) {
        wire::response_parser<wire::string_body> parser;
        parser.header_limit(static_cast<std::uint32_t>(max_header_bytes));
        parser.body_limit(max_body);
        const auto [error, size] =
            co_await wire::async_read_header(stream, buffer, parser, as_result);
        if (error) failed(write_error ? "sending" : "reading", write_error ? write_error : error);
        const int status = parser.get().result_int();
        if (status >= 100 && status < 200 && informational < 5) continue;
        HttpResponse response;
        response.status = status;
        for (const auto& field : parser.get())
            response.headers.emplace_back(field.name_string(), field.value());
        // The status counts, however the body ends.
        const auto [body_error, rest] =
            co_await wire::async_read(stream, buffer, parser, as_result);
        if (body_error == asio::error::operation_aborted) throw Cancelled();
        response.body = std::move(parser.get().body());
        co_return response;
    }
}

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

std::optional<std::string> HttpResponse::header(std::string_view name) const {
    for (const auto& [field, value] : headers) {
        if (beast::iequals(field, name)) return value;
    }
    return std::nullopt;
}

struct HttpClient::Impl {
    explicit Impl(asio::any_io_executor executor_) : executor(std::move(executor_)) {}
    ~Impl() {
        resolvers.stop();
        resolvers.join();
    }

    asio::any_io_executor executor;
    std::optional<asio::ssl::context> tls;
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

    asio::awaitable<tcp::resolver::results_type> resolve(HttpUrl url, Clock::time_point deadline) {
        boost::system::error_code error;
        const auto address = asio::ip::make_address(url.host, error);
        if (!error) {
            std::uint16_t port = 0;
            std::from_chars(url.port.data(), url.port.data() + url.port.size(), port);
            co_return tcp::resolver::results_type::create(tcp::endpoint(address, port), url.host,
                                                          url.port);
        }
        // shared with the thread, which may end after us
        auto look_up = std::make_shared<LookUp>(executor);
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
        while (!look_up->ended) {
            if (Clock::now() >= deadline)
                throw Error(Errc::timeout, "resolving the name: no answer in time");
            co_await look_up->done.wait(deadline - Clock::now());
        }
        if (look_up->error) failed("resolving the name", look_up->error);
        co_return look_up->endpoints;
    }

    asio::awaitable<HttpResponse> send(HttpRequest request) {
        const auto deadline = Clock::now() + request.timeout;
        Message message = to_message(request);
        const auto endpoints = co_await resolve(request.url, deadline);
        if (!request.url.tls) {
            beast::tcp_stream stream(executor);
            co_await connect(stream, endpoints, deadline);
            co_return co_await exchange(stream, message, request.max_body);
        }
        asio::ssl::stream<beast::tcp_stream> stream(executor, tls_context());
        stream.set_verify_callback(asio::ssl::host_name_verification(request.url.host));
        boost::system::error_code no_address;
        asio::ip::make_address(request.url.host, no_address);
        if (no_address) SSL_set_tlsext_host_name(stream.native_handle(), request.url.host.c_str());
        co_await connect(stream.next_layer(), endpoints, deadline);
        const auto [error] =
            co_await stream.async_handshake(asio::ssl::stream_base::client, as_result);
        if (error) failed("TLS", error);
        co_return co_await exchange(stream, message, request.max_body);
    }

    static asio::awaitable<void> connect(beast::tcp_stream& stream,
                                         const tcp::resolver::results_type& endpoints,
                                         Clock::time_point deadline) {
        stream.expires_at(deadline);  // For all that follows.
        const auto [error, endpoint] = co_await stream.async_connect(endpoints, as_result);
        if (error) failed("connecting", error);
    }
};

HttpClient::HttpClient(asio::any_io_executor executor)
    : impl_(std::make_unique<Impl>(std::move(executor))) {}
HttpClient::~HttpClient() = default;

asio::awaitable<HttpResponse> HttpClient::send(HttpRequest request) {
    return impl_->send(std::move(request));
}

}  // namespace rqxx::runtime
