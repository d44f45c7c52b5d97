#include <ops/cron_ops.hpp>
#include <support/redis_fixture.hpp>

using namespace rqxx;
using namespace rqxx::test;
using ops::CronOps;
using ops::Fired;

namespace {

class cron_scripts : public RedisTest {};

CronSchedule tick(Overlap overlap = Overlap::allow) {
    CronSchedule schedule;
    schedule.name = "tick";
    schedule.call.func_name = "tasks.tick";
    schedule.every = 1s;
    schedule.overlap = overlap;
    return schedule;
}

asio::awaitable<std::string> text(RedisClient& redis, std::string_view key,
                                  std::string_view field) {
    co_return (co_await redis.command("HGET", key, field)).as_text();
}

}  // namespace

TEST_F(cron_scripts, fire_each_slot_once_and_none_before_the_last) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        CronOps cron(redis, "host:1:a", "", "group");
        EXPECT_EQ((co_await cron.fire(tick(), Slot(100s))).code, Fired::Code::enqueued);
        const auto again = co_await cron.fire(tick(), Slot(100s));
        EXPECT_EQ(again.code, Fired::Code::repeated);
        EXPECT_EQ(again.last_job, "cron-tick-100");
        EXPECT_EQ((co_await cron.fire(tick(), Slot(99s))).code, Fired::Code::repeated);
        EXPECT_EQ((co_await redis.command("LLEN", "rq:queue:default")).as_integer(), 1);
        EXPECT_EQ(co_await text(redis, "rq:job:cron-tick-100", "status"), "queued");
        EXPECT_EQ(co_await text(redis, "rqxx:cron:tick", "last_job"), "cron-tick-100");
    });
}

TEST_F(cron_scripts, do_not_fire_a_job_that_is_there_though_the_state_is_gone) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        CronOps cron(redis, "host:1:a", "", "group");
        co_await cron.fire(tick(), Slot(100s));
        co_await redis.command("DEL", "rqxx:cron:tick");
        EXPECT_EQ((co_await cron.fire(tick(), Slot(100s))).code, Fired::Code::repeated);
        EXPECT_EQ((co_await redis.command("LLEN", "rq:queue:default")).as_integer(), 1);
    });
}

TEST_F(cron_scripts, leave_a_slot_out_while_the_last_job_is_unfinished) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        CronOps cron(redis, "host:1:a", "", "group");
        co_await cron.fire(tick(Overlap::skip), Slot(100s));
        const auto second = co_await cron.fire(tick(Overlap::skip), Slot(101s));
        EXPECT_EQ(second.code, Fired::Code::overlaps);
        EXPECT_EQ(second.last_job, "cron-tick-100");
        EXPECT_EQ(co_await text(redis, "rqxx:cron:tick", "last_skipped_slot"), "101");
        co_await redis.command("HSET", "rq:job:cron-tick-100", "status", "finished");
        EXPECT_EQ((co_await cron.fire(tick(Overlap::skip), Slot(102s))).code,
                  Fired::Code::enqueued);
        co_await redis.command("DEL", "rq:job:cron-tick-102");
        EXPECT_EQ((co_await cron.fire(tick(Overlap::skip), Slot(103s))).code,
                  Fired::Code::enqueued);
    });
}

TEST_F(cron_scripts, change_nothing_where_a_key_has_another_type) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        CronOps cron(redis, "host:1:a", "", "group");
        for (const std::string_view key :
             {"rq:queue:default", "rq:cron_job:tick:jobs", "rq:queues"}) {
            co_await redis.command("FLUSHALL");
            co_await redis.command("SET", key, "x");
            bool refused = false;
            try {
                co_await cron.fire(tick(), Slot(100s));
            } catch (const ServerError&) {
                refused = true;
            }
            EXPECT_TRUE(refused) << key;
            EXPECT_EQ((co_await redis.command("DBSIZE")).as_integer(), 1) << key;
        }
    });
}

TEST_F(cron_scripts, give_the_lease_to_one_process_of_a_group) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        CronOps first(redis, "host:1:a", "", "group"), second(redis, "host:2:b", "", "group"),
            stranger(redis, "host:3:c", "", "another");
        const auto birth = co_await first.lease(10s, "[]");
        EXPECT_TRUE(birth.leads);
        EXPECT_FALSE(birth.known);
        const auto renewed = co_await first.lease(10s, std::nullopt);
        EXPECT_TRUE(renewed.leads && renewed.known);
        EXPECT_GT(renewed.now, birth.now);
        EXPECT_FALSE((co_await second.lease(10s, "[]")).leads);
        EXPECT_TRUE((co_await stranger.lease(10s, "[]")).leads);
        EXPECT_EQ((co_await redis.command("ZCARD", "rq:cron_schedulers")).as_integer(), 3);
        co_await first.retire();
        EXPECT_TRUE((co_await second.lease(10s, std::nullopt)).leads);
        co_await first.retire();
        EXPECT_TRUE((co_await second.lease(10s, std::nullopt)).leads);
        EXPECT_EQ((co_await redis.command("EXISTS", "rq:cron_scheduler:host:1:a")).as_integer(), 0);
    });
}

TEST_F(cron_scripts, look_without_writing_where_another_process_leads) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        CronOps cron(redis, "host:1:a", "", "group");
        EXPECT_LT(utc_now() - (co_await cron.resume(tick(), false)).last_slot, 5s);
        EXPECT_EQ((co_await redis.command("DBSIZE")).as_integer(), 0);
    });
}

TEST_F(cron_scripts, begin_now_with_a_new_or_a_changed_rule) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        CronOps cron(redis, "host:1:a", "", "group");
        const auto fresh = co_await cron.resume(tick(), true);
        EXPECT_LT(utc_now() - fresh.last_slot, 5s);
        EXPECT_FALSE(fresh.last_enqueued_at);
        co_await redis.command("HSET", "rqxx:cron:tick", "last_slot", 100);
        EXPECT_EQ((co_await cron.resume(tick(), true)).last_slot, Slot(100s));
        CronSchedule slower = tick();
        slower.every = 2s;
        EXPECT_GE((co_await cron.resume(slower, true)).last_slot, fresh.last_slot);
    });
}
