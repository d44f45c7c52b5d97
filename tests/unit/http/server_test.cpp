#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <boost/json/object.hpp>
#include <rqxx/error.hpp>
#include <rqxx/http/server.hpp>
#include <thread>

using namespace rqxx;
using namespace rqxx::http;
namespace asio = boost::asio;
using asio::ip::tcp;
using namespace std::chrono_literals;

namespace {

/// A server on a free port with its own event loop.
class Running {
public:
    explicit Running(ServerOptions options = {}) {
        router_.add(Method::get, "/", {}, [](Request) -> asio::awaitable<Response> {
            co_return json_response(200, boost::json::object{{"ok", true}});
        });
        options.port = 0;
        server_ =
            std::make_unique<Server>(context_.get_executor(), router_, options, null_logger());
        server_->listen();
        asio::co_spawn(context_, server_->run(), [](std::exception_ptr) {});
        thread_ = std::thread([this] { context_.run(); });
    }
    ~Running() { stop(); }

    /// Returns when the server has ended.
    void stop() {
        if (!thread_.joinable()) return;
        asio::post(context_, [this] { server_->stop(1s); });
        thread_.join();
    }

    tcp::socket connect() {
        tcp::socket socket(clients_);
        socket.connect({asio::ip::address_v4::loopback(), server_->port()});
        return socket;
    }
    static std::string read_all(tcp::socket& socket) {
        std::string text;
        boost::system::error_code error;
        asio::read(socket, asio::dynamic_buffer(text), error);
        return text;
    }
    static std::string read_answer(tcp::socket& socket) {
        std::array<char, 4096> buffer;
        return {buffer.data(), socket.read_some(asio::buffer(buffer))};
    }

private:
    asio::io_context context_{1};
    asio::io_context clients_;
    Router router_;
    std::unique_ptr<Server> server_;
    std::thread thread_;
};

constexpr std::string_view get = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

}  // namespace

TEST(server, refuses_connections_beyond_its_limit_while_all_are_busy) {
    ServerOptions options;
    options.max_connections = 2;
    Running server(options);
    constexpr std::string_view begun =
        "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    auto first = server.connect(), second = server.connect();
    for (auto* socket : {&first, &second}) {
        asio::write(*socket, asio::buffer(begun));
        EXPECT_NE(Running::read_answer(*socket).find("100 Continue"), std::string::npos);
    }
    auto third = server.connect();
    EXPECT_NE(Running::read_all(third).find(" 503 "), std::string::npos);
    asio::write(first, asio::buffer(std::string_view("x")));
    EXPECT_NE(Running::read_answer(first).find(" 405 "), std::string::npos);
}

TEST(server, closes_the_longest_idle_connection_for_a_new_one_at_its_limit) {
    ServerOptions options;
    options.max_connections = 2;
    Running server(options);
    auto first = server.connect(), second = server.connect();
    for (auto* socket : {&first, &second}) {
        asio::write(*socket, asio::buffer(get));
        EXPECT_NE(Running::read_answer(*socket).find("200 OK"), std::string::npos);
    }
    auto third = server.connect();
    EXPECT_EQ(Running::read_all(first), "");
    for (auto* socket : {&second, &third}) {
        asio::write(*socket, asio::buffer(get));
        EXPECT_NE(Running::read_answer(*socket).find("200 OK"), std::string::npos);
    }
}

TEST(server, gives_up_on_headers_and_bodies_that_do_not_come) {
    ServerOptions options;
    options.header_timeout = 1s;
    options.body_timeout = 1s;
    Running server(options);
    auto slow_header = server.connect(), slow_body = server.connect();
    asio::write(slow_header, asio::buffer(std::string_view("GET / HT")));
    asio::write(slow_body,
                asio::buffer(std::string_view(
                    "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab")));
    EXPECT_NE(Running::read_all(slow_header).find(" 408 "), std::string::npos);
    EXPECT_NE(Running::read_all(slow_body).find(" 408 "), std::string::npos);
}

TEST(server, closes_idle_connections_silently) {
    ServerOptions options;
    options.idle_timeout = 1s;
    Running server(options);
    auto socket = server.connect();
    EXPECT_EQ(Running::read_all(socket), "");
}

TEST(server, stops_while_connections_are_idle) {
    auto server = std::make_unique<Running>();
    auto socket = server->connect();
    asio::write(socket, asio::buffer(get));
    EXPECT_NE(Running::read_answer(socket).find("200 OK"), std::string::npos);
    auto stopped = std::thread([&] { server->stop(); });
    EXPECT_EQ(Running::read_all(socket), "");
    stopped.join();
}

TEST(server, refuses_a_public_address_without_a_token) {
    asio::io_context context;
    Router router;
    for (const char* host : {"0.0.0.0", "::", "192.168.1.1"}) {
        ServerOptions options;
        options.host = host;
        Server server(context.get_executor(), router, options, null_logger());
        EXPECT_THROW(server.listen(), Error) << host;
    }
}
