#include <ops/keys.hpp>
#include <ops/transitions.hpp>
#include <rqxx/monitor.hpp>
#include <support/redis_fixture.hpp>

using namespace rqxx;
using namespace rqxx::test;
using ops::OutputChunk;

namespace {

class output : public RedisTest {};

const std::string first = "0193aaaa000170008000000000000001";
const std::string second = "0193aaaa000270008000000000000002";

ops::WorkerOps worker_ops(RedisClient& redis) {
    return {redis, "w", {.queues = {"default"}}};
}

asio::awaitable<void> make_job(RedisClient& redis, std::string status = "started") {
    co_await redis.command("HSET", "rq:job:a", "status", status, "origin", "default");
}

asio::awaitable<std::int64_t> ttl(RedisClient& redis, std::string key) {
    co_return (co_await redis.command("TTL", key)).as_integer();
}

std::string text_of(const JobOutput& part) {
    std::string text;
    for (const auto& entry : part.entries)
        text += entry.text;
    return text;
}

}  // namespace

TEST_F(output, is_read_as_it_was_stored) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await make_job(redis);
        auto worker = worker_ops(redis);
        const std::string bytes("\0\xff\r\n", 4);
        ops::OutputChunks chunks{{OutputChunk::Stream::out, bytes},
                                 {OutputChunk::Stream::cut, "77"},
                                 {OutputChunk::Stream::err, "oh"}};
        co_await worker.append_output("a", first, 100, chunks);
        Monitor monitor(redis);
        const auto before = redis.counters().round_trips;
        const auto all = co_await monitor.job_output("a", {});
        EXPECT_EQ(redis.counters().round_trips, before + 1);
        EXPECT_EQ(all->execution, first);
        EXPECT_EQ(all->executions, std::vector{first});
        EXPECT_TRUE(all->ended);
        EXPECT_EQ(all->entries.size(), 3u);
        EXPECT_EQ(all->entries[0].text, bytes);
        EXPECT_EQ(all->entries[1].stream, OutputEntry::Stream::cut);
        EXPECT_EQ(all->entries[1].missing_bytes, 77u);
        EXPECT_EQ(all->entries[2].stream, OutputEntry::Stream::err);
        EXPECT_FALSE(co_await monitor.job_output("b", {}));
    });
}

TEST_F(output, comes_in_parts_of_bounded_size) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await make_job(redis);
        auto worker = worker_ops(redis);
        ops::OutputChunks chunks;
        std::string expected;
        for (int i = 0; i < 5000; ++i) {
            chunks.push_back({OutputChunk::Stream::out, std::to_string(i) + "\n"});
            expected += chunks.back().text;
        }
        co_await worker.append_output("a", first, 100, chunks);
        Monitor monitor(redis);
        OutputQuery query;
        std::string text;
        std::size_t calls = 0;
        for (bool more = true; more; ++calls) {
            const auto part = co_await monitor.job_output("a", query);
            EXPECT_LE(part->entries.size(), 2000u);
            text += text_of(*part);
            more = part->more;
            EXPECT_EQ(part->ended, !more);
            query.after = part->next_after;
        }
        EXPECT_EQ(text, expected);
        EXPECT_EQ(calls, 3u);
        query = {};
        query.max_bytes = 10;
        EXPECT_EQ(text_of((co_await monitor.job_output("a", query)).value()), "0\n1\n2\n3\n4\n");
        query.max_bytes = 0;
        EXPECT_EQ((co_await monitor.job_output("a", query))->entries.size(), 1u);
    });
}

TEST_F(output, of_the_newest_execution_is_shown_whether_it_wrote_something_or_not) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await make_job(redis);
        Monitor monitor(redis);
        EXPECT_EQ((co_await monitor.job_output("a", {}))->execution, "");
        auto worker = worker_ops(redis);
        ops::OutputChunks chunks{{OutputChunk::Stream::out, "x"}};
        co_await worker.append_output("a", first, 100, chunks);
        EXPECT_EQ((co_await monitor.job_output("a", {}))->execution, first);
        // A retry that has ended without a word,
        co_await redis.command("XADD", "rq:results:a", "*", "type", "2", "execution_id", second);
        const auto silent = co_await monitor.job_output("a", {});
        EXPECT_EQ(silent->execution, second);
        EXPECT_TRUE(silent->entries.empty());
        EXPECT_TRUE(silent->ended);
        // and one that runs.
        const std::string third = "0193aaaa000370008000000000000003";
        co_await redis.command("ZADD", "rq:executions:a", 1, third);
        co_await redis.command("HSET", "rq:execution:a:" + third, "id", third);
        const auto running = co_await monitor.job_output("a", {});
        EXPECT_EQ(running->execution, third);
        EXPECT_FALSE(running->ended);
    });
}

TEST_F(output, lives_as_long_as_the_newest_result) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await make_job(redis);
        auto worker = worker_ops(redis);
        ops::OutputChunks chunks{{OutputChunk::Stream::out, "x"}};
        co_await worker.append_output("a", first, 100000, chunks);
        co_await worker.append_output("a", second, 500, chunks);
        for (const auto& key :
             {keys::outputs("a"), keys::output("a", first), keys::output("a", second)})
            EXPECT_EQ(co_await ttl(redis, key), 500) << key;
        co_await worker.append_output("a", second, -1, {});
        EXPECT_EQ(co_await ttl(redis, keys::output("a", first)), -1);
        co_await worker.append_output("a", second, 0, {});
        EXPECT_EQ((co_await redis.command("EXISTS", keys::output("a", second))).as_integer(), 0);
    });
}

TEST_F(output, takes_the_place_of_keys_of_another_type) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await make_job(redis);
        co_await redis.command("SET", keys::outputs("a"), "x");
        co_await redis.command("SADD", keys::output("a", first), "x");
        auto worker = worker_ops(redis);
        ops::OutputChunks chunks{{OutputChunk::Stream::out, "good"}};
        co_await worker.append_output("a", first, 100, chunks);
        Monitor monitor(redis);
        EXPECT_EQ(text_of((co_await monitor.job_output("a", {})).value()), "good");
    });
}
