#include <ops/scheduling.hpp>
#include <rqxx/scheduler.hpp>
#include <support/redis_fixture.hpp>

using namespace rqxx;
using namespace rqxx::test;
using ops::Promoted;
using ops::PromoteResult;
using ops::SchedulerOps;

namespace {

class scheduler : public RedisTest {
public:
    static asio::awaitable<std::int64_t> now(RedisClient& redis) {
        co_return (co_await redis.command("TIME")).as_array().at(0).as_integer();
    }
    /// An entry of `default` that became due `age` seconds ago; further pairs are fields of its
    /// job.
    template <class... Fields>
    static asio::awaitable<void> put(RedisClient& redis, std::string id, std::int64_t age,
                                     Fields... fields) {
        const std::int64_t due = co_await now(redis) - age;
        co_await redis.command("ZADD", "rq:scheduled:default", due, id);
        if constexpr (sizeof...(fields) > 0)
            co_await redis.command("HSET", "rq:job:" + id, std::string(fields)...);
    }
    static asio::awaitable<PromoteResult> promote(RedisClient& redis, std::string name = "us",
                                                  bool renew = true, std::int64_t pass_over = 0) {
        SchedulerOps ops{&redis, std::move(name)};
        co_return co_await ops.promote({{"default", pass_over}}, renew, "default");
    }
    static asio::awaitable<std::string> list(RedisClient& redis, std::string key) {
        std::string text;
        const Reply reply = co_await redis.command("LRANGE", key, 0, -1);
        for (const auto& id : reply.as_array())
            text += id.text + " ";
        co_return text;
    }
    static asio::awaitable<std::string> text(RedisClient& redis, std::string key,
                                             std::string field) {
        co_return (co_await redis.command("HGET", key, field)).as_text();
    }
    static asio::awaitable<std::int64_t> count(RedisClient& redis) {
        co_return (co_await redis.command("ZCARD", "rq:scheduled:default")).as_integer();
    }
};

}  // namespace

TEST_F(scheduler, moves_what_is_due_in_the_order_of_time) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await put(redis, "late", 5, "status", "scheduled", "origin", "default");
        co_await put(redis, "latest", 9, "status", "scheduled", "origin", "default");
        co_await put(redis, "front", 2, "status", "scheduled", "origin", "default",
                     "enqueue_at_front", "1");
        co_await put(redis, "retry", 1, "status", "scheduled", "origin", "default",
                     "enqueue_at_front_on_retry", "1", "ended_at", "2026-11-23T17:47:37.728246Z");
        co_await put(redis, "first_try", 0, "status", "scheduled", "origin", "default",
                     "enqueue_at_front_on_retry", "1", "ended_at", "");
        co_await put(redis, "future", -100, "status", "scheduled", "origin", "default");
        co_await put(redis, "elsewhere", 3, "status", "scheduled", "origin", "other", "ttl", "77");
        const auto result = co_await promote(redis);
        EXPECT_EQ(result.promoted, 6);
        EXPECT_GE(result.late_max, 9s);
        EXPECT_GE(result.late_sum, 20s);
        std::int64_t counted = 0;
        for (const auto& [bucket, jobs] : result.late_buckets)
            counted += jobs;
        EXPECT_EQ(counted, 6);
        EXPECT_EQ(co_await list(redis, "rq:queue:default"), "retry front latest late first_try ");
        EXPECT_EQ(co_await list(redis, "rq:queue:other"), "elsewhere ");
        EXPECT_EQ((co_await redis.command("TTL", "rq:job:elsewhere")).as_integer(), 77);
        EXPECT_EQ((co_await redis.command("TTL", "rq:job:late")).as_integer(), -1);
        EXPECT_EQ(co_await text(redis, "rq:job:late", "status"), "queued");
        EXPECT_NE(co_await text(redis, "rq:job:late", "enqueued_at"), "");
        EXPECT_EQ(co_await text(redis, "rq:job:future", "status"), "scheduled");
        EXPECT_EQ((co_await redis.command("SCARD", "rq:queues")).as_integer(), 2);
    });
}

TEST_F(scheduler, keeps_entries_without_a_job_for_a_minute) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await put(redis, "young", 30);
        co_await put(redis, "old", 61);
        co_await put(redis, "real", 1, "status", "scheduled", "origin", "default");
        auto result = co_await promote(redis);
        EXPECT_EQ(result.queues.at(0).kept, 1);
        EXPECT_EQ(result.queues.at(0).dropped, 1);
        EXPECT_EQ(result.promoted, 1);
        EXPECT_EQ(co_await count(redis), 1);
        co_await put(redis, "young", 30, "status", "scheduled", "origin", "default");
        EXPECT_EQ((co_await promote(redis)).promoted, 1);
        EXPECT_EQ(co_await list(redis, "rq:queue:default"), "real young ");
    });
}

TEST_F(scheduler, leaves_jobs_alone_that_are_not_scheduled) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        for (std::string status : {"canceled", "finished", "failed", "queued", "deferred", "new"})
            co_await put(redis, status, 1, "status", status, "origin", "default");
        // A worker of RQ registers a repetition before it ends the run.
        co_await put(redis, "started", 1, "status", "started", "origin", "default");
        co_await put(redis, "by_hand", 1, "status", "created", "origin", "default");
        const auto result = co_await promote(redis);
        EXPECT_EQ(result.queues.at(0).dropped, 6);
        EXPECT_EQ(result.queues.at(0).kept, 1);
        EXPECT_EQ(co_await list(redis, "rq:queue:default"), "by_hand ");
        EXPECT_EQ(co_await text(redis, "rq:job:canceled", "status"), "canceled");
    });
}

TEST_F(scheduler, is_not_stopped_by_broken_data) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await redis.command("SET", "rqxx:schedulers", "text");
        co_await redis.command("SET", "rq:scheduler:us", "text");
        co_await redis.command("RPUSH", "rq:scheduler-lock:default", "text");
        co_await redis.command("SET", "rq:queues", "text");
        co_await redis.command("SET", "rq:queue:broken", "text");
        co_await put(redis, "bad id", 2);
        co_await put(redis, "", 2);
        co_await put(redis, "text", 2);
        co_await redis.command("SET", "rq:job:text", "text");
        co_await put(redis, "stuck", 2, "status", "scheduled", "origin", "broken");
        co_await put(redis, "no_origin", 2, "status", "scheduled");
        co_await put(redis, "junk", 2, "status", "scheduled", "origin", "default", "ttl", "1e400",
                     "enqueue_at_front", "", "ended_at", "junk");
        co_await put(redis, "nan", 2, "status", "scheduled", "origin", "default", "ttl", "nan");
        co_await redis.command("ZADD", "rq:scheduled:default", "-inf", "never");
        const auto result = co_await promote(redis);
        EXPECT_EQ(result.promoted, 3);
        EXPECT_EQ(result.queues.at(0).lock, Promoted::Lock::broken);
        EXPECT_EQ(result.queues.at(0).note, "rq:queue:broken is not a list");
        EXPECT_EQ(co_await list(redis, "rq:queue:default"), "junk nan no_origin ");
        EXPECT_EQ(co_await text(redis, "rq:job:no_origin", "origin"), "default");
        EXPECT_EQ(co_await text(redis, "rq:job:stuck", "status"), "scheduled");
        EXPECT_EQ(co_await text(redis, "rq:scheduler:us", "name"), "us");
        // What was kept is passed over, so that it cannot hide what comes behind.
        EXPECT_EQ((co_await promote(redis, "us", true, 2)).queues.size(), 0u);
        co_await redis.command("DEL", "rq:scheduled:default");
        co_await redis.command("SET", "rq:scheduled:default", "text");
        EXPECT_EQ((co_await promote(redis)).queues.at(0).note,
                  "rq:scheduled:default is not a sorted set");
    });
}

TEST_F(scheduler, works_through_a_backlog_in_steps) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Pipeline pipeline;
        for (int i = 0; i < 2 * ops::promote_batch + 1; ++i) {
            const std::string id = "j" + std::to_string(i);
            pipeline.add("HSET", "rq:job:" + id, "status", "scheduled", "origin", "default",
                         "enqueue_at_front", i % 2);
            pipeline.add("ZADD", "rq:scheduled:default", 1000 + i, id);
        }
        co_await redis.run(std::move(pipeline));
        auto result = co_await promote(redis);
        EXPECT_EQ(result.promoted, ops::promote_batch);
        EXPECT_TRUE(result.queues.at(0).more);
        Scheduler all(redis, {{"default"}, "us"}, null_logger());
        EXPECT_EQ(co_await all.run_once(), static_cast<std::uint64_t>(ops::promote_batch + 1));
        EXPECT_EQ((co_await redis.command("LLEN", "rq:queue:default")).as_integer(),
                  2 * ops::promote_batch + 1);
        EXPECT_EQ((co_await redis.command("LINDEX", "rq:queue:default", -1)).as_text(),
                  "j" + std::to_string(2 * ops::promote_batch));
        EXPECT_EQ((co_await redis.command("EXISTS", "rq:scheduler-lock:default", "rq:scheduler:us",
                                          "rqxx:schedulers"))
                      .as_integer(),
                  0);
    });
}

TEST_F(scheduler, needs_the_lock) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await put(redis, "a", 1, "status", "scheduled", "origin", "default");
        // A stock scheduler has it.
        co_await redis.command("SET", "rq:scheduler-lock:default", "stock", "EX", 61);
        auto result = co_await promote(redis);
        EXPECT_EQ(result.promoted, 0);
        EXPECT_EQ(result.queues.at(0).lock, Promoted::Lock::not_ours);
        EXPECT_EQ(result.queues.at(0).note, "stock");
        EXPECT_EQ(
            (co_await redis.command("EXISTS", "rqxx:schedulers", "rq:scheduler:us")).as_integer(),
            0);
        SchedulerOps us{&redis, "us"};
        co_await us.release({"default"}, 1s);
        EXPECT_EQ((co_await redis.command("GET", "rq:scheduler-lock:default")).as_text(), "stock");
        // Nobody has it: only a renewal takes it.
        co_await redis.command("DEL", "rq:scheduler-lock:default");
        EXPECT_EQ((co_await promote(redis, "us", false)).promoted, 0);
        EXPECT_EQ((co_await promote(redis)).queues.at(0).lock, Promoted::Lock::taken);
        EXPECT_EQ((co_await redis.command("TTL", "rq:scheduler-lock:default")).as_integer(), 61);
        EXPECT_EQ(co_await list(redis, "rq:queue:default"), "a ");
    });
}

TEST_F(scheduler, takes_over_from_a_dead_one_of_ours_and_fences_it_off) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await promote(redis, "first");
        EXPECT_EQ((co_await promote(redis, "second")).queues.at(0).lock, Promoted::Lock::not_ours);
        co_await redis.command("ZADD", "rqxx:schedulers", 1, "first");
        const auto taken = co_await promote(redis, "second");
        EXPECT_EQ(taken.queues.at(0).lock, Promoted::Lock::taken_over);
        EXPECT_EQ(taken.queues.at(0).note, "first");
        co_await put(redis, "a", 1, "status", "scheduled", "origin", "default");
        for (bool renew : {false, true}) {
            const auto late = co_await promote(redis, "first", renew);
            EXPECT_EQ(late.promoted, 0);
            EXPECT_EQ(late.queues.at(0).lock, Promoted::Lock::not_ours);
        }
        SchedulerOps first{&redis, "first"};
        co_await first.release({"default"}, 1s);
        EXPECT_EQ((co_await redis.command("GET", "rq:scheduler-lock:default")).as_text(), "second");
        EXPECT_EQ((co_await promote(redis, "second", false)).promoted, 1);
    });
}
