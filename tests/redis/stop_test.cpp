#include <ops/keys.hpp>
#include <ops/transitions.hpp>
#include <ops/upkeep.hpp>
#include <rqxx/actions.hpp>
#include <rqxx/monitor.hpp>
#include <rqxx/queue.hpp>
#include <support/redis_fixture.hpp>

using namespace rqxx;
using namespace rqxx::test;

namespace {

class stop_request : public RedisTest {};

asio::awaitable<std::string> start_job(RedisClient& redis, ops::WorkerOps& worker) {
    Queue queue(redis, "default");
    NewJob job;
    job.call.func_name = "f";
    EnqueueOptions options;
    options.job_id = "a";
    co_await queue.enqueue(job.call, options);
    co_await worker.register_birth();
    const auto claimed = co_await worker.claim(1, 1, "");
    co_return claimed.claimed.at(0).execution_id;
}

}  // namespace

TEST_F(stop_request, is_found_by_the_next_heartbeat_and_acknowledged) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        ops::WorkerOps worker(redis, "w", {.queues = {"default"}});
        const auto execution = co_await start_job(redis, worker);
        const std::string record = keys::execution("a", execution);
        JobActions actions(redis);
        const auto result = co_await actions.stop("a");  // Nobody listens to the channel.
        EXPECT_EQ(result.code, ActionResult::Code::done);
        EXPECT_TRUE(result.acknowledges);
        EXPECT_EQ((co_await redis.command("HGET", record, "stop")).text, "asked");
        std::vector<ops::Running> running{{"a", execution, "default", ""}};
        // Each time: a reply may be lost.
        for (int i = 0; i < 2; ++i) {
            const auto beat = co_await worker.heartbeat(running, "a", Seconds(1));
            EXPECT_EQ(beat.notices.size(), 1u);
            EXPECT_EQ(beat.notices.at(0).why, ops::HeartbeatResult::Notice::Why::asked_to_stop);
            EXPECT_EQ((co_await redis.command("HGET", record, "stop")).text, "acknowledged");
        }
        EXPECT_TRUE((co_await actions.stop("a")).acknowledges);
        EXPECT_EQ((co_await redis.command("HGET", record, "stop")).text, "acknowledged");
        Monitor monitor(redis);
        EXPECT_EQ((co_await monitor.job_info("a"))->executions.at(0).stop, "acknowledged");
    });
}

TEST_F(stop_request, is_refused_where_nobody_would_hear_of_it) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        JobActions actions(redis);
        EXPECT_EQ((co_await actions.stop("a")).code, ActionResult::Code::no_such_job);
        ops::WorkerOps worker(redis, "w", {.queues = {"default"}});
        const auto execution = co_await start_job(redis, worker);
        co_await worker.expire_lease();
        const auto dead = co_await actions.stop("a");
        EXPECT_EQ(dead.code, ActionResult::Code::refused);
        EXPECT_FALSE(dead.listens);
        EXPECT_EQ((co_await redis.command("HEXISTS", keys::execution("a", execution), "stop"))
                      .as_integer(),
                  0);
        co_await redis.command("HSET", "rq:job:a", "status", "finished");
        const auto ended = co_await actions.stop("a");
        EXPECT_EQ(ended.code, ActionResult::Code::refused);
        EXPECT_EQ(ended.status, "finished");
        co_await redis.command("SET", "rq:job:b", "text");
        EXPECT_EQ((co_await actions.stop("b")).code, ActionResult::Code::no_such_job);
    });
}

TEST_F(stop_request, marks_no_records_of_stock_workers) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        ops::WorkerOps worker(redis, "w", {.queues = {"default"}});
        co_await start_job(redis, worker);
        const std::string theirs = "0193aaaa000140008000000000000001";
        co_await redis.command("ZADD", "rq:executions:a", 1, theirs);
        co_await redis.command("HSET", keys::execution("a", theirs), "id", theirs);
        JobActions actions(redis);
        co_await actions.stop("a");
        EXPECT_EQ(
            (co_await redis.command("HEXISTS", keys::execution("a", theirs), "stop")).as_integer(),
            0);
    });
}

TEST_F(stop_request, holds_where_the_worker_dies_meanwhile) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        ops::WorkerOps worker(redis, "w", {.queues = {"default"}});
        co_await start_job(redis, worker);
        co_await redis.command("HSET", "rq:job:a", "retries_left", 3);
        JobActions actions(redis);
        co_await actions.stop("a");
        co_await worker.expire_lease();
        // As if sweeps had gone on for a while.
        const auto now = (co_await redis.command("TIME")).as_array().at(0).as_integer();
        co_await redis.command("HSET", keys::sweeper, "last", now * 1000000, "since",
                               (now - 60) * 1000000);
        const auto result = co_await ops::recover(redis, {"default"}, RecoverPolicy::requeue);
        EXPECT_EQ(result.jobs.at(0).what, "stopped");
        EXPECT_EQ((co_await redis.command("HGET", "rq:job:a", "status")).text, "stopped");
        EXPECT_EQ((co_await redis.command("LLEN", "rq:queue:default")).as_integer(), 0);
        EXPECT_EQ((co_await redis.command("ZCARD", "rq:failed:default")).as_integer(), 1);
    });
}
