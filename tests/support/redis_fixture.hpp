#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <filesystem>
#include <functional>
#include <ops/lua_scripts.hpp>
#include <rqxx/redis/client.hpp>
#include <string>
#include <thread>

namespace rqxx::test {

namespace asio = boost::asio;
using namespace std::chrono_literals;

/// A private redis-server in a temporary folder, and an event loop to run coroutines on.
class RedisTest : public ::testing::Test {
public:
    RedisTest() {
        register_scripts(lua::all());
        std::string name = (std::filesystem::temp_directory_path() / "rqxx-test-XXXXXX").native();
        folder_ = ::mkdtemp(name.data());
        start_server();
    }
    ~RedisTest() override {
        stop_server();
        std::filesystem::remove_all(folder_);
    }

    void start_server() {
        server_ = ::fork();
        if (server_ == 0) {
            ::execlp("redis-server", "redis-server", "--port", "0", "--unixsocket",
                     socket().c_str(), "--save", "", "--dir", folder_.c_str(), "--loglevel",
                     "warning", "--logfile", (folder_ + "/log").c_str(), nullptr);
            ::_exit(127);
        }
        for (int i = 0; i < 1000 && !std::filesystem::exists(socket()); ++i)
            std::this_thread::sleep_for(5ms);
    }
    void stop_server() {
        if (server_ <= 0) return;
        ::kill(server_, SIGKILL);
        ::waitpid(server_, nullptr, 0);
        server_ = -1;
        std::filesystem::remove(socket());
    }
    void pause_server() const { ::kill(server_, SIGSTOP); }
    void resume_server() const { ::kill(server_, SIGCONT); }

    [[nodiscard]] std::string socket() const { return folder_ + "/redis.sock"; }
    [[nodiscard]] RedisOptions options() const {
        RedisOptions options;
        options.url.transport = RedisUrl::Transport::unix_socket;
        options.url.path = socket();
        options.max_backoff = 100ms;
        return options;
    }

    /// Runs `body` with a connected client on a fresh event loop; fails if it takes more than 30 s.
    void run(std::function<asio::awaitable<void>(RedisClient&)> body) {
        run(options(), std::move(body));
    }
    void run(RedisOptions how, std::function<asio::awaitable<void>(RedisClient&)> body) {
        asio::io_context context(1);
        RedisClient redis(context.get_executor(), std::move(how));
        std::exception_ptr failure;
        bool done = false;
        asio::co_spawn(context, body(redis), [&](std::exception_ptr error) {
            failure = error;
            done = true;
            redis.close();
        });
        context.run_for(30s);
        ASSERT_TRUE(done) << "the test hangs";
        if (failure) std::rethrow_exception(failure);
        redis.close();
        context.run_for(1s);
    }
    static asio::awaitable<void> sleep(std::chrono::milliseconds time) {
        asio::steady_timer timer(co_await asio::this_coro::executor, time);
        co_await timer.async_wait(asio::use_awaitable);
    }

private:
    std::string folder_;
    pid_t server_ = -1;
};

}  // namespace rqxx::test
