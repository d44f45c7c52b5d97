#include <rqxx/actions.hpp>
#include <rqxx/queue.hpp>
#include <support/redis_fixture.hpp>

using namespace rqxx;
using namespace rqxx::test;

namespace {

class actions : public RedisTest {};

NewJob job(std::string id, EnqueueOptions options = {}, std::string function = "tasks.noop") {
    NewJob result;
    result.call.func_name = std::move(function);
    result.options = std::move(options);
    result.options.job_id = std::move(id);
    return result;
}

asio::awaitable<void> put_jobs(RedisClient& redis, int count, std::string function = "tasks.noop") {
    std::vector<NewJob> jobs;
    for (int i = 0; i < count; ++i)
        jobs.push_back(job("j" + std::to_string(i), {}, function));
    Queue queue(redis, "q");
    co_await queue.enqueue_many(std::move(jobs));
}

asio::awaitable<std::string> status_of(RedisClient& redis, std::string id) {
    co_return (co_await redis.command("HGET", "rq:job:" + id, "status")).text;
}

asio::awaitable<std::vector<std::string>> queued(RedisClient& redis) {
    const Reply list = co_await redis.command("LRANGE", "rq:queue:q", 0, -1);
    std::vector<std::string> ids;
    for (const auto& element : list.as_array())
        ids.push_back(element.text);
    co_return ids;
}

}  // namespace

TEST_F(actions, cancel_many_jobs_of_a_queue_and_leave_the_others_in_order) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await put_jobs(redis, 300);
        std::vector<std::string> ids, expected;
        for (int i = 0; i < 300; ++i)
            (i % 3 == 0 ? ids : expected).push_back("j" + std::to_string(i));
        JobActions actions(redis);
        const auto results = co_await actions.cancel(ids, {});
        for (const auto& result : results)
            EXPECT_EQ(result.code, ActionResult::Code::done) << result.job_id;
        EXPECT_EQ(co_await queued(redis), expected);
        EXPECT_EQ((co_await redis.command("ZCARD", "rq:canceled:q")).as_integer(), 100);
        EXPECT_EQ((co_await actions.cancel({"j0", "nope"}, {})).at(0).code,
                  ActionResult::Code::refused);
    });
}

TEST_F(actions, cancel_jobs_named_in_any_order_and_leave_the_others) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await put_jobs(redis, 40);
        JobActions actions(redis);
        co_await actions.cancel({"j20", "j3", "j21", "j5", "j24", "j1", "j22", "j39"}, {});
        std::vector<std::string> expected;
        for (int i = 0; i < 40; ++i)
            if (i != 20 && i != 3 && i != 21 && i != 5 && i != 24 && i != 1 && i != 22 && i != 39)
                expected.push_back("j" + std::to_string(i));
        EXPECT_EQ(co_await queued(redis), expected);
    });
}

TEST_F(actions, apply_to_every_job_of_a_filter_once) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await put_jobs(redis, 700);
        std::vector<NewJob> others;
        for (int i = 0; i < 700; ++i)
            others.push_back(job("other" + std::to_string(i), {}, "pkg.mod.other"));
        Queue queue(redis, "q");
        co_await queue.enqueue_many(std::move(others));
        JobActions actions(redis);
        const auto cancel = [&](std::vector<std::string> ids) {
            return actions.cancel(std::move(ids), {});
        };
        const auto progress =
            co_await actions.for_each({"q", "queued", "pkg.*other", {}, 0}, false, cancel, {});
        EXPECT_EQ(progress.looked_at, 1400u);
        EXPECT_EQ(progress.done, 700u);
        EXPECT_EQ((co_await queued(redis)).size(), 700u);
        const auto requeue = [&](std::vector<std::string> ids) {
            return actions.requeue(std::move(ids), {});
        };
        EXPECT_EQ(
            (co_await actions.for_each({"q", "canceled", {}, {}, 100}, false, requeue, {})).done,
            100u);
        EXPECT_EQ((co_await queued(redis)).size(), 800u);
        EXPECT_EQ(co_await status_of(redis, (co_await queued(redis)).back()), "queued");
    });
}

TEST_F(actions, dry_runs_change_nothing) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await put_jobs(redis, 20);
        JobActions actions(redis);
        const auto dry = [&](std::vector<std::string> ids) {
            return actions.remove(std::move(ids), {Dependents::cascade, true});
        };
        EXPECT_EQ((co_await actions.for_each({"q", "queued", {}, {}, 0}, true, dry, {})).done, 20u);
        EXPECT_EQ((co_await queued(redis)).size(), 20u);
        EXPECT_EQ((co_await actions.cancel({"j1"}, {.dry_run = true})).at(0).code,
                  ActionResult::Code::done);
        EXPECT_EQ(co_await status_of(redis, "j1"), "queued");
    });
}

TEST_F(actions, cascade_over_all_that_waits) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        std::vector<NewJob> jobs;
        jobs.push_back(job("leaf", {.depends_on = Dependency{{"middle"}, false, false}}));
        jobs.push_back(job("middle", {.depends_on = Dependency{{"root"}, false, false}}));
        jobs.push_back(job("root"));
        jobs.push_back(job("free", {.depends_on = Dependency{{"gone"}, false, false}}));
        Queue queue(redis, "q");
        const auto made = co_await queue.enqueue_many(std::move(jobs));
        EXPECT_EQ(made[0].status, "deferred");
        EXPECT_EQ(made[1].status, "deferred");
        EXPECT_EQ(made[3].status, "queued") << "a missing job holds nothing back";
        JobActions actions(redis);
        EXPECT_EQ((co_await actions.cancel({"root"}, {.dependents = Dependents::cascade}))
                      .at(0)
                      .dependents,
                  2);
        EXPECT_EQ(co_await status_of(redis, "leaf"), "canceled");
        EXPECT_EQ((co_await redis.command("ZCARD", "rq:deferred:q")).as_integer(), 0);
        EXPECT_EQ(
            (co_await actions.remove({"root"}, {.dependents = Dependents::enqueue})).at(0).code,
            ActionResult::Code::done);
        EXPECT_EQ((co_await redis.command("EXISTS", "rq:job:root", "rq:job:root:dependents"))
                      .as_integer(),
                  0);
    });
}

TEST_F(actions, compact_takes_off_ids_without_a_job) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        co_await put_jobs(redis, 100);
        for (int i = 0; i < 100; i += 2)
            co_await redis.command("DEL", "rq:job:j" + std::to_string(i));
        JobActions actions(redis);
        EXPECT_EQ(co_await actions.compact("q", true), 50u);
        EXPECT_EQ((co_await queued(redis)).size(), 100u);
        EXPECT_EQ(co_await actions.compact("q", false), 50u);
        const auto left = co_await queued(redis);
        EXPECT_EQ(left.size(), 50u);
        EXPECT_EQ(left.front(), "j1");
        EXPECT_EQ(left.back(), "j99");
    });
}

TEST_F(actions, refuse_jobs_that_wait_for_each_other) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        std::vector<NewJob> jobs;
        jobs.push_back(job("a", {.depends_on = Dependency{{"b"}, false, false}}));
        jobs.push_back(job("b", {.depends_on = Dependency{{"a"}, false, false}}));
        Queue queue(redis, "q");
        bool refused = false;
        try {
            co_await queue.enqueue_many(std::move(jobs));
        } catch (const Error& error) {
            refused = error.code() == Errc::usage;
        }
        EXPECT_TRUE(refused);
        EXPECT_EQ((co_await redis.command("DBSIZE")).as_integer(), 0);
    });
}
