#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <list>
#include <rqxx/error.hpp>
#include <rqxx/http/server.hpp>
#include <rqxx/job.hpp>

#include "base/task_group.hpp"
#include "http/gate.hpp"
#include "http/reason.hpp"
#include "http/stream.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace wire = boost::beast::http;
using tcp = asio::ip::tcp;
using Parser = wire::request_parser<wire::string_body>;
using Head = wire::request_header<>;
constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

constexpr std::string_view page_policy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src "
    "'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'";

Method method_of(wire::verb verb) {
    switch (verb) {
        case wire::verb::get:
            return Method::get;
        case wire::verb::head:
            return Method::head;
        case wire::verb::post:
            return Method::post;
        case wire::verb::put:
            return Method::put;
        case wire::verb::patch:
            return Method::patch;
        case wire::verb::delete_:
            return Method::delete_;
        case wire::verb::options:
            return Method::options;
        default:
            return Method::other;
    }
}

void set_limits(Parser& parser, const ServerOptions& options) {
    parser.header_limit(static_cast<std::uint32_t>(options.max_header_bytes));
    parser.body_limit(options.max_body_bytes);
}

/// The status that tells a client what was wrong with its bytes; 0 where there is nobody to tell.
int status_for(const boost::system::error_code& error) {
    if (error == wire::error::header_limit || error == wire::error::buffer_overflow) return 431;
    if (error == wire::error::body_limit) return 413;
    if (error == wire::error::bad_version) return 505;
    if (error == wire::error::end_of_stream || error == wire::error::partial_message) return 0;
    if (error.category() == make_error_code(wire::error::bad_target).category()) return 400;
    return 0;
}

std::string request_id(std::string_view given) {
    const bool sane =
        !given.empty() && given.size() <= 64 && std::all_of(given.begin(), given.end(), [](char c) {
            return std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
        });
    return sane ? std::string(given) : new_execution_id();
}

/// HTTP/1.1 needs one Host, and none may have two. Source: RFC 9112, 3.2.
bool names_its_host(const Head& head) {
    const auto hosts = head.count(wire::field::host);
    return hosts == 1 || (hosts == 0 && head.version() < 11);
}

/// All of it but the body.
Request to_request(const Head& head) {
    Request request;
    request.method = method_of(head.method());
    request.target = head.target();
    for (const auto& field : head)
        request.headers.emplace_back(field.name_string(), field.value());
    request.request_id = request_id(request.header("X-Request-Id").value_or(""));
    return request;
}

std::string http_date() {
    const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    char text[40];
    std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    return text;
}

bool has_header(const Response& response, std::string_view name) {
    return std::any_of(response.headers.begin(), response.headers.end(),
                       [&](const auto& header) { return header.first == name; });
}

template <class Body>
void fill_header(wire::response<Body>& message, const Response& response, const std::string& id,
                 bool keep_alive, std::size_t size) {
    message.result(static_cast<unsigned>(response.status));
    message.reason(std::string(reason(response.status)));
    message.set(wire::field::server, "rqxx");
    message.set(wire::field::date, http_date());
    message.set("X-Request-Id", id);
    message.set("X-Content-Type-Options", "nosniff");
    message.set("Referrer-Policy", "no-referrer");
    message.set("X-Frame-Options", "DENY");
    message.set("Cross-Origin-Resource-Policy", "same-origin");
    if (!has_header(response, "Cache-Control")) message.set(wire::field::cache_control, "no-store");
    if (response.status != 204 && response.status != 304) {
        message.set(wire::field::content_type, response.content_type);
        message.content_length(size);
    }
    if (response.content_type.starts_with("text/html") &&
        !has_header(response, "Content-Security-Policy"))
        message.set("Content-Security-Policy", std::string(page_policy));
    for (const auto& [name, value] : response.headers)
        message.set(name, value);
    message.keep_alive(keep_alive);
}

}  // namespace

ParsedRequest parse_request(std::string_view bytes, const ServerOptions& options) {
    Parser parser;
    set_limits(parser, options);
    parser.eager(true);
    boost::system::error_code error;
    std::size_t at = 0;
    while (at < bytes.size() && !parser.is_done()) {
        const std::size_t used =
            parser.put(asio::buffer(bytes.data() + at, bytes.size() - at), error);
        at += used;
        if (error == wire::error::need_more) return {};
        if (error) return {std::nullopt, std::max(status_for(error), 400)};
        if (used == 0) return {};
    }
    if (!parser.is_done()) return {};
    if (!names_its_host(parser.get())) return {std::nullopt, 400};
    Request request = to_request(parser.get());
    request.body = std::move(parser.get().body());
    if (!parse_target(request)) return {std::nullopt, 400};
    return {std::move(request), 200};
}

/// Cancels what a stream is doing when it takes too long. (The stream's own time limit closes the
/// socket, and then the client could not be told.)
class Watchdog {
public:
    Watchdog(Stream& stream, std::chrono::seconds limit) : state_(std::make_shared<State>(stream)) {
        stream.expires_never();
        state_->timer.expires_after(limit);
        state_->timer.async_wait([state = state_](boost::system::error_code error) {
            if (error || state->stream == nullptr) return;
            state->barked = true;
            state->stream->cancel();
        });
    }
    ~Watchdog() {
        state_->stream = nullptr;
        state_->timer.cancel();
    }
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;
    [[nodiscard]] bool barked() const noexcept { return state_->barked; }

private:
    struct State {
        explicit State(Stream& watched) : stream(&watched), timer(watched.get_executor()) {}
        Stream* stream;
        asio::steady_timer timer;
        bool barked = false;
    };
    std::shared_ptr<State> state_;  // shared with the timer's handler, which may come last
};

bool wants_continue(const Head& head) {
    return beast::iequals(head[wire::field::expect], "100-continue") && head.version() >= 11;
}

asio::awaitable<void> send_continue(Stream& stream, unsigned version) {
    wire::response<wire::empty_body> go_on(wire::status::continue_, version);
    co_await wire::async_write(stream, go_on, asio::use_awaitable);
}

/// A body as it comes from the client. `Expect: 100-continue` is answered when it is first read,
/// so that who is refused need not send it.
class ArrivingBody : public BodyReader {
public:
    ArrivingBody(Stream& stream, beast::flat_buffer& buffer, Parser&& head, std::uint64_t max_bytes,
                 std::chrono::seconds timeout)
        : stream_(stream),
          buffer_(buffer),
          parser_(std::move(head)),
          timeout_(timeout),
          announced_(wants_continue(parser_.get())) {
        parser_.body_limit(max_bytes);
    }

    asio::awaitable<std::string> read() override {
        if (std::exchange(announced_, false))
            co_await send_continue(stream_, parser_.get().version());
        std::string piece(128 * 1024, '\0');
        auto& body = parser_.get().body();
        body.data = piece.data();
        body.size = piece.size();
        boost::system::error_code error;
        bool late = false;
        if (!parser_.is_done()) {
            // Each piece has this long: who sends next to nothing does not hold a connection.
            Watchdog watchdog(stream_, timeout_);
            std::tie(error, std::ignore) =
                co_await wire::async_read(stream_, buffer_, parser_, as_result);
            late = watchdog.barked();
        }
        if (error == wire::error::need_buffer) error = {};
        if (late) throw HttpError(408, "The request did not arrive in time");
        if (error == wire::error::body_limit) throw HttpError(413, "The body is too large");
        if (error) throw HttpError(400, "The body ends too early, or is not valid HTTP");
        piece.resize(piece.size() - body.size);
        co_return piece;
    }

    [[nodiscard]] bool done() const { return parser_.is_done(); }

private:
    Stream& stream_;
    beast::flat_buffer& buffer_;
    wire::request_parser<wire::buffer_body> parser_;
    std::chrono::seconds timeout_;
    bool announced_;
};

struct Server::Impl {
    Impl(asio::any_io_executor executor_, const Router& router_, ServerOptions options_,
         Logger& log_)
        : executor(executor_),
          router(router_),
          options(std::move(options_)),
          log(log_),
          gate(options),
          acceptor(executor_),
          changed(executor_),
          grace_timer(executor_),
          sessions(executor_) {}

    struct Connection {
        Connection(tcp::socket socket, std::shared_ptr<asio::ssl::context> tls)
            : stream(std::move(socket), std::move(tls)) {}
        Stream stream;
        bool idle = true;  ///< Between requests: may be closed at any time.
        std::chrono::steady_clock::time_point idle_since = std::chrono::steady_clock::now();
        bool streams = false;  ///< An answer without an end.
    };

    asio::any_io_executor executor;
    const Router& router;
    ServerOptions options;
    Logger& log;
    Gate gate;
    tcp::acceptor acceptor;
    std::optional<Certificate> certificate;
    unsigned short port = 0;
    std::function<void(const RequestRecord&)> observer;
    std::list<Connection> connections;
    bool stopping = false;
    Event changed;
    asio::steady_timer grace_timer;
    TaskGroup sessions;

    /// Such as `/rqxx` or `/tools/rqxx`.
    static void check_prefix(const std::string& prefix) {
        const bool plain = std::all_of(prefix.begin(), prefix.end(), [](char c) {
            return std::isalnum(static_cast<unsigned char>(c)) ||
                   std::string_view("/._~-").find(c) != std::string_view::npos;
        });
        if (!prefix.empty() && (!plain || prefix.front() != '/' || prefix.back() == '/' ||
                                prefix.find("//") != std::string::npos))
            throw Error(Errc::usage, "--path-prefix: must be a path such as /rqxx");
    }

    /// The target as it is without the prefix.
    [[nodiscard]] std::string_view below_prefix(std::string_view target) const {
        const std::string& prefix = options.path_prefix;
        const std::string_view rest = target.substr(std::min(prefix.size(), target.size()));
        return target.starts_with(prefix) && rest.starts_with('/') ? rest : target;
    }

    void listen() {
        const std::string where = fmt::format("{}:{}", options.host, options.port);
        boost::system::error_code error;
        asio::ip::address address;
        if (options.host == "localhost")
            address = asio::ip::address_v4::loopback();
        else
            address = asio::ip::make_address(options.host, error);
        if (error)
            throw Error(Errc::usage, fmt::format("--host: \"{}\" is not an IP address or localhost",
                                                 options.host));
        if (!address.is_loopback() && !options.authenticated)
            throw Error(
                Errc::usage,
                fmt::format("--host: {} can be reached from other machines; that needs --auth with "
                            "tokens of `rqxx token create`, or --token-file (or --token)",
                            options.host));
        check_prefix(options.path_prefix);
        if (options.tls_certificate.empty() != options.tls_key.empty())
            throw Error(Errc::usage, "--tls-cert: it and --tls-key need each other");
        if (!options.tls_certificate.empty())
            certificate.emplace(options.tls_certificate, options.tls_key, log);
        const tcp::endpoint endpoint(address, options.port);
        const auto check = [&] {
            if (error)
                throw Error(Errc::io,
                            fmt::format("cannot listen on {}: {}", where, error.message()));
        };
        acceptor.open(endpoint.protocol(), error);
        check();
        acceptor.set_option(asio::socket_base::reuse_address(true), error);
        check();
        acceptor.bind(endpoint, error);
        check();
        acceptor.listen(asio::socket_base::max_listen_connections, error);
        check();
        port = acceptor.local_endpoint().port();
    }

    asio::awaitable<void> run() {
        while (!stopping) {
            auto [error, socket] = co_await acceptor.async_accept(as_result);
            if (stopping) break;
            if (error) {
                // Out of file descriptors, most likely: wait until some are free.
                log.warning("Accepting a connection failed", "error", error.message());
                co_await changed.wait(std::chrono::milliseconds(100));
                continue;
            }
            connections.emplace_back(std::move(socket),
                                     certificate ? certificate->context() : nullptr);
            const auto connection = std::prev(connections.end());
            sessions.spawn("connection", converse(*this, connection));
        }
        while (!connections.empty())
            co_await changed.wait();
        grace_timer.cancel();
        co_await sessions.join();
    }

    /// Closes the connection that has been idle for longest; false where all are busy.
    bool make_room(const Connection& newest) {
        Connection* idlest = nullptr;
        for (auto& connection : connections) {
            if (&connection == &newest || !connection.idle || connection.streams) continue;
            if (idlest == nullptr || connection.idle_since < idlest->idle_since)
                idlest = &connection;
        }
        if (idlest == nullptr) return false;
        idlest->idle = false;  // It ends as soon as it is its turn.
        idlest->stream.close();
        return true;
    }

    void stop(std::chrono::milliseconds grace) {
        stopping = true;
        boost::system::error_code ignored;
        acceptor.close(ignored);
        for (auto& connection : connections) {
            if (connection.idle) connection.stream.close();
        }
        grace_timer.expires_after(grace);
        grace_timer.async_wait([this](boost::system::error_code error) {
            if (error) return;
            for (auto& connection : connections)
                connection.stream.close();
        });
        changed.notify();
    }

    /// One connection, from its first request to its last.
    static asio::awaitable<void> converse(Impl& self, std::list<Connection>::iterator connection) {
        try {
            co_await requests(self, *connection);
        } catch (const std::exception& error) {
            self.log.debug("Connection ended", "error", std::string_view(error.what()));
        }
        connection->stream.close();
        self.connections.erase(connection);
        self.changed.notify();
    }

    static asio::awaitable<void> requests(Impl& self, Connection& connection) {
        const ServerOptions& options = self.options;
        Stream& stream = connection.stream;
        boost::system::error_code ignored;
        stream.socket().set_option(tcp::no_delay(true), ignored);
        const auto endpoint = stream.socket().remote_endpoint(ignored);
        const std::string remote = ignored ? std::string() : endpoint.address().to_string();
        beast::flat_buffer buffer;
        if (self.connections.size() > options.max_connections && !self.make_room(connection)) {
            co_await refuse(self, stream, 503, "Too many connections");
            co_return;
        }
        {
            Watchdog watchdog(stream, options.header_timeout);
            if (!co_await stream.handshake()) co_return;
        }
        while (!self.stopping) {
            connection.idle = true;
            connection.idle_since = std::chrono::steady_clock::now();
            if (buffer.size() == 0) {
                stream.expires_after(options.idle_timeout);
                const auto [error, size] =
                    co_await stream.async_read_some(buffer.prepare(4096), as_result);
                if (error) co_return;
                buffer.commit(size);
            }
            connection.idle = false;
            Parser parser;
            set_limits(parser, options);
            parser.body_limit(boost::none);  // It depends on the route.
            boost::system::error_code error;
            const auto begun = std::chrono::steady_clock::now();
            bool late = false;
            {
                Watchdog watchdog(stream, options.header_timeout);
                std::tie(error, std::ignore) =
                    co_await wire::async_read_header(stream, buffer, parser, as_result);
                late = watchdog.barked();
            }
            std::shared_ptr<ArrivingBody> arriving;
            const Method method = method_of(parser.get().method());
            const auto streams =
                error ? std::nullopt
                      : self.router.streams(
                            method, self.below_prefix(std::string_view(parser.get().target())));
            const std::uint64_t limit = streams.value_or(options.max_body_bytes);
            if (!error && parser.content_length().value_or(0) > limit)
                error = wire::error::body_limit;
            if (!error && !streams && !parser.is_done()) {
                Watchdog watchdog(stream, options.body_timeout);
                parser.body_limit(limit);
                if (wants_continue(parser.get()))
                    co_await send_continue(stream, parser.get().version());
                std::tie(error, std::ignore) =
                    co_await wire::async_read(stream, buffer, parser, as_result);
                late = watchdog.barked();
            }
            if (error) {
                const int status = late ? 408 : status_for(error);
                if (status != 0)
                    co_await refuse(self, stream, status, explain(status, limit, options));
                co_return;
            }
            if (!names_its_host(parser.get())) {
                co_await refuse(self, stream, 400, "One Host header is needed");
                co_return;
            }
            const unsigned version = parser.get().version();
            bool keep_alive = parser.keep_alive() && !self.stopping;
            Request request = to_request(parser.get());
            request.body = std::move(parser.get().body());
            if (streams && !parser.is_done()) {
                arriving = std::make_shared<ArrivingBody>(stream, buffer, std::move(parser), limit,
                                                          options.body_timeout);
                request.stream = arriving;
            }
            self.say_where_from(request, remote);
            const bool at_prefix =
                !options.path_prefix.empty() && request.target == options.path_prefix;
            request.target = std::string(self.below_prefix(request.target));
            const bool head = method == Method::head;
            const std::string id = request.request_id;
            const bool sound = parse_target(request);
            const std::string target = request.target;
            Response response =
                at_prefix ? redirect("/")
                : sound   ? co_await self.answer(std::move(request))
                          : problem_response(request, 400, "The request target is malformed");
            self.add_for_transport(response);
            const bool unread = arriving && !arriving->done();
            keep_alive = keep_alive && !unread && !self.stopping;
            stream.expires_after(options.write_timeout);
            if (response.source && !head) {
                connection.streams = true;
                connection.idle = true;  // A client comes back for the rest: nothing is lost.
                self.finished(method, target, id, response.status,
                              std::chrono::steady_clock::now() - begun);
                co_await send_pieces(self, stream, response, id, version);
                break;
            }
            co_await send(stream, response, id, version, head, keep_alive);
            self.finished(method, target, id, response.status,
                          std::chrono::steady_clock::now() - begun);
            if (unread) co_await drain(stream);
            if (!keep_alive || self.stopping) break;
        }
        co_await stream.end();
    }

    static Response redirect(std::string path) {
        Response response;
        response.status = 308;
        response.headers = {{"Location", std::move(path)}};
        return response;
    }

    /// What depends on how we are reached.
    void add_for_transport(Response& response) const {
        if (certificate)
            response.headers.emplace_back("Strict-Transport-Security", "max-age=31536000");
        for (auto& [name, value] : response.headers)
            if (name == "Location" && value.starts_with('/')) value.insert(0, options.path_prefix);
    }

    /// A proxy that we trust adds whom it has spoken to as the last.
    void say_where_from(Request& request, const std::string& remote) const {
        request.remote = remote;
        request.secure = certificate.has_value();
        if (!options.trust_proxy) return;
        if (request.header_count("X-Forwarded-For") == 1) {
            std::string_view last = *request.header("X-Forwarded-For");
            last.remove_prefix(last.find_last_of(", ") + 1);  // npos + 1 is 0.
            boost::system::error_code error;
            const auto address = asio::ip::make_address(std::string(last), error);
            if (!error) request.remote = address.to_string();
        }
        request.secure = request.secure || request.header("X-Forwarded-Proto") == "https";
    }

    asio::awaitable<Response> answer(Request request) {
        if (const auto refusal = gate.check(request)) {
            Response response =
                problem_response(request, refusal->status(), refusal->detail(), refusal->code());
            response.headers = refusal->headers();
            co_return response;
        }
        co_return co_await router.dispatch(std::move(request), options.guard);
    }

    static asio::awaitable<void> send(Stream& stream, const Response& response,
                                      const std::string& id, unsigned version, bool head,
                                      bool keep_alive) {
        const std::string_view body =
            response.static_body.empty() ? std::string_view(response.body) : response.static_body;
        if (head || response.status == 204 || response.status == 304) {
            wire::response<wire::empty_body> message(wire::status::ok, version);
            fill_header(message, response, id, keep_alive, body.size());
            wire::response_serializer<wire::empty_body> serializer(message);
            co_await wire::async_write_header(stream, serializer, asio::use_awaitable);
            co_return;
        }
        wire::response<wire::span_body<const char>> message(wire::status::ok, version);
        message.body() = beast::span<const char>(body.data(), body.size());
        fill_header(message, response, id, keep_alive, body.size());
        co_await wire::async_write(stream, message, asio::use_awaitable);
    }

    /// A body whose end is the end of the connection, or of its chunks.
    static asio::awaitable<void> send_pieces(Impl& self, Stream& stream, const Response& response,
                                             const std::string& id, unsigned version) {
        const bool chunked = version >= 11;
        wire::response<wire::empty_body> message(wire::status::ok, version);
        fill_header(message, response, id, false, 0);
        message.erase(wire::field::content_length);
        message.chunked(chunked);
        wire::response_serializer<wire::empty_body> serializer(message);
        co_await wire::async_write_header(stream, serializer, asio::use_awaitable);
        while (!self.stopping) {
            const std::string piece = co_await response.source->next();
            if (piece.empty() || self.stopping) break;
            stream.expires_after(self.options.write_timeout);
            if (chunked)
                co_await asio::async_write(stream, wire::make_chunk(asio::buffer(piece)),
                                           asio::use_awaitable);
            else
                co_await asio::async_write(stream, asio::buffer(piece), asio::use_awaitable);
        }
        if (chunked)
            co_await asio::async_write(stream, wire::make_chunk_last(), asio::use_awaitable);
    }

    static std::string explain(int status, std::uint64_t body_limit, const ServerOptions& options) {
        switch (status) {
            case 431:
                return fmt::format("The header is larger than {} bytes", options.max_header_bytes);
            case 413:
                return fmt::format("The body is larger than {} bytes", body_limit);
            case 408:
                return "The request did not arrive in time";
            case 505:
                return "HTTP/1.0 and HTTP/1.1 are supported";
            default:
                return "The request is not valid HTTP";
        }
    }

    /// Answers bytes that did not become a request, and closes.
    static asio::awaitable<void> refuse(Impl& self, Stream& stream, int status,
                                        std::string detail) {
        Request nothing;
        nothing.request_id = new_execution_id();
        const Response response = problem_response(nothing, status, detail);
        stream.expires_after(std::chrono::seconds(5));
        co_await send(stream, response, nothing.request_id, 11, false, false);
        self.finished(Method::other, "", nothing.request_id, status, {});
        co_await drain(stream);
    }

    /// Reads on for a while before a connection is closed, so that the answer is not lost to a
    /// reset.
    static asio::awaitable<void> drain(Stream& stream) {
        co_await stream.end();
        std::array<char, 4096> rest;
        stream.expires_after(std::chrono::seconds(1));
        for (std::size_t total = 0; total < (8u << 20);) {
            const auto [error, size] =
                co_await stream.async_read_some(asio::buffer(rest), as_result);
            if (error) break;
            total += size;
        }
    }

    void finished(Method method, std::string_view target, std::string_view id, int status,
                  std::chrono::steady_clock::duration duration) {
        if (options.access_log)
            log.info("HTTP request", "method", to_string(method), "path",
                     target.substr(0, target.find('?')), "status", status, "duration",
                     Seconds(duration), "request_id", id);
        if (observer) observer({router.pattern_of(method, target), status, duration});
    }
};

Server::Server(asio::any_io_executor executor, const Router& router, ServerOptions options,
               Logger& log)
    : impl_(std::make_unique<Impl>(std::move(executor), router, std::move(options), log)) {}
Server::~Server() = default;

void Server::listen() {
    impl_->listen();
}
unsigned short Server::port() const noexcept {
    return impl_->port;
}
std::string Server::url() const {
    const bool v6 = impl_->options.host.find(':') != std::string::npos;
    return fmt::format("http{}://{}{}{}:{}{}/", impl_->certificate ? "s" : "", v6 ? "[" : "",
                       impl_->options.host, v6 ? "]" : "", impl_->port, impl_->options.path_prefix);
}
void Server::on_request(std::function<void(const RequestRecord&)> observer) {
    impl_->observer = std::move(observer);
}
asio::awaitable<void> Server::run() {
    return impl_->run();
}
void Server::reload_certificate() {
    if (impl_->certificate) impl_->certificate->reload();
}
void Server::stop(std::chrono::milliseconds grace) {
    impl_->stop(grace);
}
std::size_t Server::connections() const noexcept {
    return impl_->connections.size();
}

}  // namespace rqxx::http
