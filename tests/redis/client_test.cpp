#include <boost/asio/experimental/awaitable_operators.hpp>
#include <support/redis_fixture.hpp>

using namespace rqxx;
using namespace rqxx::test;
using namespace boost::asio::experimental::awaitable_operators;

namespace {
class redis_client : public RedisTest {};

asio::awaitable<Errc> code_of(asio::awaitable<Reply> call) {
    try {
        co_await std::move(call);
    } catch (const Error& error) {
        co_return error.code();
    }
    co_return Errc::internal;
}
}  // namespace

TEST_F(redis_client, answers_concurrent_commands_each_with_its_own_reply) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await redis.connect(5s);
        const auto trips = redis.counters().round_trips;
        auto [a, b, c] = co_await (redis.command("ECHO", "a") && redis.command("ECHO", "b") &&
                                   redis.command("INCR", "n"));
        EXPECT_EQ(a.text + b.text, "ab");
        EXPECT_EQ(c.as_integer(), 1);
        EXPECT_EQ(redis.counters().round_trips - trips, 3u);
    });
}

TEST_F(redis_client, throws_error_replies_and_returns_them_from_pipelines) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await redis.command("SET", "text", "x");
        try {
            co_await redis.command("LPUSH", "text", "y");
            ADD_FAILURE() << "no error";
        } catch (const ServerError& error) {
            EXPECT_EQ(error.prefix(), "WRONGTYPE");
            EXPECT_FALSE(error.retryable());
        }
        Pipeline pipeline;
        pipeline.add("LPUSH", "text", "y").add("GET", "text");
        const auto replies = co_await redis.run(std::move(pipeline));
        EXPECT_TRUE(replies[0].is_error());
        EXPECT_EQ(replies[1].text, "x");
    });
}

TEST_F(redis_client, reloads_scripts_that_redis_has_forgotten) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await redis.command("SCRIPT", "FLUSH");
        static const Script script{"one", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "return 1"};
        const Reply reply = co_await redis.eval(script, {}, {});
        EXPECT_EQ(reply.as_integer(), 1);
    });
}

TEST_F(redis_client, reconnects_and_tells_which_commands_are_in_doubt) {
    run([this](RedisClient& redis) -> asio::awaitable<void> {
        co_await redis.command("SET", "a", "1");
        pause_server();
        bool in_doubt = false;
        auto interrupted = [](RedisClient& client, bool& doubt) -> asio::awaitable<void> {
            try {
                co_await client.command("INCR", "a");
            } catch (const Error& error) {
                doubt = error.in_doubt();
                EXPECT_EQ(error.code(), Errc::connection);
            }
        };
        auto restart = [](redis_client* test, auto stop, auto start) -> asio::awaitable<void> {
            co_await sleep(50ms);
            (test->*stop)();
            (test->*start)();
        };
        co_await (interrupted(redis, in_doubt) &&
                  restart(this, &redis_client::stop_server, &redis_client::start_server));
        EXPECT_TRUE(in_doubt);
        const Reply reply = co_await redis.command("PING");
        EXPECT_EQ(reply.text, "PONG");
        EXPECT_EQ(redis.counters().reconnects, 1u);
    });
}

TEST_F(redis_client, gives_up_at_the_deadline) {
    RedisOptions how = options();
    how.command_timeout = 100ms;
    run(how, [this](RedisClient& redis) -> asio::awaitable<void> {
        co_await redis.connect(5s);
        pause_server();
        EXPECT_EQ(co_await code_of(redis.command("PING")), Errc::timeout);
        resume_server();
        stop_server();
        co_await sleep(50ms);
        EXPECT_EQ(co_await code_of(redis.command("PING")), Errc::connection);
    });
}

TEST_F(redis_client, reports_a_wrong_password_at_once) {
    run([this](RedisClient& redis) -> asio::awaitable<void> {
        co_await redis.command("CONFIG", "SET", "requirepass", "right");
        RedisOptions how = options();
        how.url.password = "wrong";
        RedisClient other(redis.executor(), how);
        try {
            co_await other.connect(10s);
            ADD_FAILURE() << "connected";
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), Errc::authentication);
            EXPECT_EQ(error.message().find("wrong "), std::string::npos);
        }
        how.url.password = "right";
        how.url.database = 5;
        RedisClient good(redis.executor(), how);
        co_await good.connect(10s);
        const Reply reply = co_await good.command("PING");
        EXPECT_EQ(reply.text, "PONG");
    });
}

TEST_F(redis_client, waits_for_a_server_that_comes_later) {
    stop_server();
    run([this](RedisClient& redis) -> asio::awaitable<void> {
        auto start = [](redis_client* test, auto begin) -> asio::awaitable<void> {
            co_await sleep(200ms);
            (test->*begin)();
        };
        auto ping = [](RedisClient& client) -> asio::awaitable<void> {
            const Reply reply = co_await client.command("PING");
            EXPECT_EQ(reply.text, "PONG");
        };
        co_await (ping(redis) && start(this, &redis_client::start_server));
    });
}

TEST_F(redis_client, cancels_what_waits_when_it_is_closed) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        RedisClient other(redis.executor(), redis.options());
        co_await other.connect(5s);
        bool cancelled = false;
        auto block = [](RedisClient& client, bool& flag) -> asio::awaitable<void> {
            try {
                co_await client.command("BLPOP", "nothing", 30);
            } catch (const Cancelled&) {
                flag = true;
            }
        };
        auto close = [](RedisClient& client) -> asio::awaitable<void> {
            co_await sleep(50ms);
            client.close();
        };
        co_await (block(other, cancelled) && close(other));
        EXPECT_TRUE(cancelled);
    });
}

TEST_F(redis_client, receives_messages_of_its_channels) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        RedisSubscriber subscriber(redis.executor(), redis.options(), {"rq:pubsub:w"});
        while ((co_await redis.command("PUBLISH", "rq:pubsub:w", "{}")).as_integer() == 0)
            co_await sleep(5ms);
        const auto message = co_await subscriber.next();
        EXPECT_EQ(message.channel, "rq:pubsub:w");
        EXPECT_EQ(message.payload, "{}");
        subscriber.close();
    });
}

TEST_F(redis_client, moves_large_and_many_replies) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        const std::string large(5'000'000, 'x');
        co_await redis.command("SET", "large", large);
        const Reply back = co_await redis.command("GET", "large");
        EXPECT_EQ(back.text, large);
        Pipeline many;
        for (int i = 0; i < 20000; ++i)
            many.add("RPUSH", "list", i);
        const auto replies = co_await redis.run(std::move(many));
        EXPECT_EQ(replies.back().as_integer(), 20000);
    });
}
