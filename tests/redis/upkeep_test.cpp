#include <ops/upkeep.hpp>
#include <rqxx/queue.hpp>
#include <support/redis_fixture.hpp>

using namespace rqxx;
using namespace rqxx::test;

namespace {

class upkeep : public RedisTest {};

asio::awaitable<std::string> put_job(RedisClient& redis, EnqueueOptions options = {}) {
    Queue queue(redis, "q");
    Call call;
    call.func_name = "tasks.noop";
    co_return (co_await queue.enqueue(std::move(call), std::move(options))).job_id;
}

/// A pass, also right after another one.
asio::awaitable<std::map<std::string, std::int64_t>> pass(RedisClient& redis) {
    co_await redis.command("DEL", "rqxx:maintained:q");
    co_return co_await ops::maintain(redis, "q");
}

asio::awaitable<std::int64_t> seconds_ago(RedisClient& redis, std::int64_t seconds) {
    co_return (co_await redis.command("TIME")).elements.at(0).as_integer() - seconds;
}

asio::awaitable<std::string> status_of(RedisClient& redis, std::string id) {
    co_return (co_await redis.command("HGET", "rq:job:" + id, "status")).text;
}

const std::string intermediate = "rq:queue:q:intermediate";

/// A worker of RQ has popped the job and died.
asio::awaitable<void> pop(RedisClient& redis) {
    co_await redis.command("LMOVE", "rq:queue:q", intermediate, "LEFT", "RIGHT");
}

}  // namespace

TEST_F(upkeep, puts_a_popped_job_back_after_rqs_grace) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        const auto id = co_await put_job(redis);
        co_await pop(redis);
        const std::string seen = intermediate + ":first_seen:" + id;
        co_await pass(redis);
        EXPECT_EQ((co_await redis.command("LLEN", intermediate)).as_integer(), 1) << "too early";
        EXPECT_EQ((co_await redis.command("EXISTS", seen)).as_integer(), 1);
        const auto long_ago = co_await seconds_ago(redis, 61);
        co_await redis.command("HSET", "rq:job:" + id, "enqueued_at",
                               "2020-01-01T00:00:00.000000Z");
        co_await redis.command("SET", seen, long_ago);
        EXPECT_EQ((co_await pass(redis)).at("requeued"), 1);
        EXPECT_EQ((co_await redis.command("LINDEX", "rq:queue:q", 0)).text, id);
        EXPECT_EQ((co_await redis.command("EXISTS", intermediate, seen)).as_integer(), 0);
    });
}

TEST_F(upkeep, judges_by_no_mark_of_an_earlier_time) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        const auto id = co_await put_job(redis);
        co_await pop(redis);
        const auto hours_ago = co_await seconds_ago(redis, 7200);
        co_await redis.command("SET", intermediate + ":first_seen:" + id, hours_ago);
        EXPECT_TRUE((co_await pass(redis)).empty());
        EXPECT_EQ((co_await redis.command("LLEN", intermediate)).as_integer(), 1);
    });
}

TEST_F(upkeep, drops_ids_of_jobs_that_went_on_from_the_intermediate_queue) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        const auto done = co_await put_job(redis);
        co_await pop(redis);
        co_await redis.command("HSET", "rq:job:" + done, "status", "finished");
        co_await redis.command("RPUSH", intermediate, "no-such-job");
        EXPECT_EQ((co_await pass(redis)).at("dropped"), 2);
        EXPECT_EQ(co_await status_of(redis, done), "finished");
        EXPECT_EQ((co_await redis.command("LLEN", "rq:queue:q")).as_integer(), 0);
    });
}

TEST_F(upkeep, leaves_a_popped_job_that_is_being_started_alone) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        const auto id = co_await put_job(redis);
        co_await pop(redis);
        const auto long_ago = co_await seconds_ago(redis, 600);
        co_await redis.command("SET", intermediate + ":first_seen:" + id, long_ago);
        co_await redis.command("HSET", "rq:job:" + id, "enqueued_at",
                               "2020-01-01T00:00:00.000000Z");
        // As RQ records an execution, in one transaction.
        co_await redis.command("ZADD", "rq:executions:" + id, 4000000000, "e");
        co_await redis.command("ZADD", "rq:wip:q", 4000000000, id + ":e");
        EXPECT_TRUE((co_await pass(redis)).empty());
        EXPECT_EQ((co_await redis.command("LLEN", intermediate)).as_integer(), 1);
    });
}

TEST_F(upkeep, leaves_the_intermediate_queue_to_a_stock_worker_that_cleans_it) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await redis.command("RPUSH", intermediate, "no-such-job");
        co_await redis.command("SET", "rq:clean_registries:q", "1", "EX", 899);
        EXPECT_TRUE((co_await pass(redis)).empty());
        // A lock that nobody has let go of for half a minute is one that a crash left behind.
        co_await redis.command("EXPIRE", "rq:clean_registries:q", 868);
        EXPECT_EQ((co_await pass(redis)).at("dropped"), 1);
    });
}

TEST_F(upkeep, releases_a_dependent_that_nothing_holds_back) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        const auto parent = co_await put_job(redis);
        EnqueueOptions options;
        options.depends_on = Dependency{{parent}, false, false};
        const auto child = co_await put_job(redis, options);
        EXPECT_EQ(co_await status_of(redis, child), "deferred");
        // Its parent ended, and who ended it died before releasing it.
        co_await redis.command("HSET", "rq:job:" + parent, "status", "finished");
        EXPECT_TRUE((co_await pass(redis)).empty()) << "it may be about to be released";
        const auto long_ago = co_await seconds_ago(redis, 61);
        co_await redis.command("ZADD", "rq:deferred:q", long_ago, child);
        EXPECT_EQ((co_await pass(redis)).at("released"), 1);
        EXPECT_EQ(co_await status_of(redis, child), "queued");
        EXPECT_EQ((co_await redis.command("LINDEX", "rq:queue:q", -1)).text, child);
        EXPECT_EQ(
            (co_await redis.command("EXISTS", "rq:job:" + parent + ":dependents")).as_integer(), 0);
    });
}

TEST_F(upkeep, does_not_release_a_dependent_of_a_failed_or_vanished_parent) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        const auto parent = co_await put_job(redis);
        EnqueueOptions options;
        options.depends_on = Dependency{{parent}, false, false};
        const auto child = co_await put_job(redis, options);
        const auto long_ago = co_await seconds_ago(redis, 86400);
        co_await redis.command("ZADD", "rq:deferred:q", long_ago, child);
        co_await redis.command("HSET", "rq:job:" + parent, "status", "failed");
        EXPECT_TRUE((co_await pass(redis)).empty());
        co_await redis.command("DEL", "rq:job:" + parent);
        EXPECT_TRUE((co_await pass(redis)).empty());
        EXPECT_EQ(co_await status_of(redis, child), "deferred");
    });
}

TEST_F(upkeep, queues_what_rqs_main_branch_left_ready) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        const auto id = co_await put_job(redis);
        co_await redis.command("DEL", "rq:queue:q");
        co_await redis.command("HSET", "rq:job:" + id, "status", "ready_to_enqueue");
        const auto ago = co_await seconds_ago(redis, 11);
        co_await redis.command("ZADD", "rq:ready:q", ago, id);
        EXPECT_EQ((co_await pass(redis)).at("released"), 1);
        EXPECT_EQ((co_await redis.command("LINDEX", "rq:queue:q", 0)).text, id);
    });
}

TEST_F(upkeep, takes_out_what_has_expired_and_workers_that_are_gone) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await redis.command("ZADD", "rq:finished:q", 5, "old", 4000000000, "new", "+inf",
                               "kept");
        co_await redis.command("ZADD", "rq:failed:q", 5, "old", -1, "kept");
        co_await redis.command("ZADD", "rq:canceled:q", 5, "without-a-job");
        co_await redis.command("SADD", "rq:workers:q", "rq:worker:dead", "rq:worker:alive");
        co_await redis.command("SADD", "rq:workers", "rq:worker:dead", "rq:worker:alive");
        co_await redis.command("HSET", "rq:worker:alive", "state", "idle");
        const auto counts = co_await pass(redis);
        EXPECT_EQ(counts.at("expired"), 2);
        EXPECT_EQ(counts.at("dropped"), 1);
        EXPECT_EQ(counts.at("workers"), 1);
        EXPECT_EQ((co_await redis.command("ZCARD", "rq:finished:q")).as_integer(), 2);
        EXPECT_EQ((co_await redis.command("ZCARD", "rq:failed:q")).as_integer(), 1);
        EXPECT_EQ((co_await redis.command("SMEMBERS", "rq:workers")).elements.at(0).text,
                  "rq:worker:alive");
    });
}

TEST_F(upkeep, empties_groups_of_jobs_that_are_gone) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        EnqueueOptions options;
        options.group = "g";
        const auto id = co_await put_job(redis, options);
        co_await redis.command("SADD", "rq:group:g", "gone");
        co_await redis.command("SADD", "rq:groups", "empty");
        co_await ops::maintain_groups(redis);
        const Reply members = co_await redis.command("SMEMBERS", "rq:group:g");
        EXPECT_EQ(members.elements.size(), 1u);
        EXPECT_EQ(members.elements.at(0).text, id);
        EXPECT_EQ((co_await redis.command("SMEMBERS", "rq:groups")).elements.size(), 1u);
    });
}

TEST_F(upkeep, sees_to_a_queue_once_for_all_processes) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await redis.command("ZADD", "rq:failed:q", 5, "old");
        EXPECT_EQ((co_await ops::maintain(redis, "q")).at("expired"), 1);
        co_await redis.command("ZADD", "rq:failed:q", 5, "old");
        EXPECT_TRUE((co_await ops::maintain(redis, "q")).empty());
    });
}

TEST_F(upkeep, steps_over_keys_of_other_types) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        for (const std::string key :
             {"rq:finished:q", "rq:failed:q", "rq:deferred:q", "rq:canceled:q", "rq:ready:q",
              "rq:workers:q", "rq:queue:q:intermediate", "rq:groups"})
            co_await redis.command("SET", key, "junk");
        EXPECT_TRUE((co_await pass(redis)).empty());
        co_await ops::maintain_groups(redis);
    });
}
