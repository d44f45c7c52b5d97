#include <fmt/format.h>

#include <boost/asio/detached.hpp>
#include <ops/upkeep.hpp>
#include <rqxx/actions.hpp>
#include <rqxx/batch.hpp>
#include <support/redis_fixture.hpp>
#include <support/settlement.hpp>

using namespace rqxx;
using namespace rqxx::test;

namespace {

class batch : public RedisTest {
public:
    static Call call(std::string function = "tasks.noop") {
        Call call;
        call.func_name = std::move(function);
        return call;
    }
    static std::vector<NewJob> jobs(std::size_t count) {
        std::vector<NewJob> result;
        for (std::size_t i = 0; i < count; ++i)
            result.push_back({call(), {}});
        return result;
    }
    static std::optional<FollowUp> follow_up(std::string function) {
        FollowUp result;
        result.queue = "after";
        result.call = call(std::move(function));
        return result;
    }
    static BatchOptions named(std::string id) {
        BatchOptions options;
        options.id = std::move(id);
        return options;
    }
    /// Functions of the jobs that wait on the queue `after`.
    static asio::awaitable<std::vector<std::string>> followed(RedisClient& redis) {
        std::vector<std::string> functions;
        const Reply ids = co_await redis.command("LRANGE", "rq:queue:after", 0, -1);
        for (const auto& id : ids.as_array()) {
            const Reply data = co_await redis.command("HGET", "rq:job:" + id.text, "data");
            functions.push_back(decode_call(data.text)->func_name);
        }
        co_return functions;
    }
};

std::int64_t counted(const BatchProgress& now) {
    return now.finished + now.failed + now.stopped + now.canceled + now.deleted + now.pending;
}

using Outcome = ops::Settlement::Outcome;

}  // namespace

TEST_F(batch, is_complete_when_its_last_job_ends_and_is_followed_once) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        BatchOptions options = named("b");
        options.on_complete = follow_up("complete");
        options.on_success = follow_up("success");
        options.on_first_failure = follow_up("failure");
        Queue queue(redis, "q");
        Batch batch = co_await Batch::create_with(redis, options, queue, jobs(100));
        auto now = *co_await batch.progress();
        EXPECT_EQ(now.state, "running");
        EXPECT_EQ(now.total, 100);
        EXPECT_EQ(now.pending, 100);
        EXPECT_EQ(co_await queue.size(), 100);
        ops::WorkerOps worker(redis, "w", {.queues = {"q"}});
        co_await worker.register_birth();
        auto claimed = (co_await worker.claim(100, 100, {})).claimed;
        std::vector<ops::Settlement> first, last;
        for (std::size_t i = 0; i < 98; ++i)
            first.push_back(settlement(claimed[i], Outcome::success));
        last.push_back(settlement(claimed[98], Outcome::success));
        last.push_back(settlement(claimed[99], Outcome::success));
        const auto again = last;
        co_await worker.settle(first, {}, 500s);
        EXPECT_TRUE((co_await followed(redis)).empty());
        // The last two end in one step; the repetition is that of a lost reply.
        co_await worker.settle(last, {}, 500s);
        co_await worker.settle(again, {}, 500s);
        now = *co_await batch.progress();
        EXPECT_TRUE(now.successful());
        EXPECT_EQ(now.finished, 100);
        EXPECT_EQ(counted(now), 100);
        const auto functions = co_await followed(redis);
        EXPECT_EQ(functions, (std::vector<std::string>{"complete", "success"}));
        EXPECT_GT((co_await redis.command("TTL", "rqxx:batch:b")).as_integer(), 6 * 86400);
        EXPECT_EQ((co_await redis.command("SCARD", "rq:group:b")).as_integer(), 100);
    });
}

TEST_F(batch, is_complete_at_once_where_it_is_sealed_empty) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        BatchOptions options = named("b");
        options.on_complete = follow_up("complete");
        Batch batch = co_await Batch::create(redis, options);
        EXPECT_EQ((*co_await batch.progress()).state, "open");
        co_await batch.seal();
        co_await batch.seal();
        EXPECT_TRUE((*co_await batch.progress()).successful());
        EXPECT_EQ((co_await followed(redis)).size(), 1u);
    });
}

TEST_F(batch, counts_a_job_that_fails_is_requeued_and_finishes_once) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        BatchOptions options = named("b");
        options.on_complete = follow_up("complete");
        options.on_success = follow_up("success");
        options.on_first_failure = follow_up("failure");
        Queue queue(redis, "q");
        auto list = jobs(2);
        list[0].options.retry = Retry{1, {}, false};
        Batch batch = co_await Batch::create_with(redis, options, queue, list);
        ops::WorkerOps worker(redis, "w", {.queues = {"q"}});
        co_await worker.register_birth();
        auto claimed = (co_await worker.claim(2, 2, {})).claimed;
        co_await worker.settle({settlement(claimed[0], Outcome::failure)}, {}, 500s);
        EXPECT_EQ((*co_await batch.progress()).pending, 2) << "it is retried";
        co_await worker.settle({settlement(claimed[1], Outcome::success)}, {}, 500s);
        claimed = (co_await worker.claim(1, 2, {})).claimed;
        co_await worker.settle({settlement(claimed[0], Outcome::failure)}, {}, 500s);
        auto now = *co_await batch.progress();
        EXPECT_TRUE(now.complete());
        EXPECT_FALSE(now.successful());
        EXPECT_EQ(now.failed, 1);
        auto functions = co_await followed(redis);
        EXPECT_EQ(functions, (std::vector<std::string>{"failure", "complete"}));

        EXPECT_EQ((co_await batch.retry_failed()).done, 1u);
        now = *co_await batch.progress();
        EXPECT_EQ(now.state, "running");
        EXPECT_EQ(now.failed, 0);
        EXPECT_EQ((co_await redis.command("TTL", "rqxx:batch:b")).as_integer(), -1);
        claimed = (co_await worker.claim(1, 2, {})).claimed;
        co_await worker.settle({settlement(claimed[0], Outcome::success)}, {}, 500s);
        now = *co_await batch.progress();
        EXPECT_TRUE(now.successful());
        EXPECT_EQ(counted(now), 2);
        functions = co_await followed(redis);
        EXPECT_EQ(functions, (std::vector<std::string>{"failure", "complete", "success"}));
    });
}

TEST_F(batch, takes_jobs_until_it_is_sealed) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue queue(redis, "q");
        Batch batch = co_await Batch::create(redis, named("b"));
        auto list = jobs(3);
        list[0].options.job_id = "parent";
        list[1].options.depends_on = Dependency{{"parent"}, false, false};
        list[2].options.at_front = true;
        auto added = co_await batch.add(queue, list);
        EXPECT_EQ(added[0].status, "queued");
        EXPECT_EQ(added[1].status, "deferred");
        EXPECT_EQ(added[2].status, "queued");
        EXPECT_EQ((co_await redis.command("LINDEX", "rq:queue:q", 0)).text, added[2].job_id);
        added = co_await batch.add(queue, {list[0]});
        EXPECT_TRUE(added[0].duplicate);
        EXPECT_EQ((*co_await batch.progress()).total, 3);
        // One that names it as its group joins, too.
        EnqueueOptions joins;
        joins.group = "b";
        co_await queue.enqueue(call(), joins);
        EXPECT_EQ((*co_await batch.progress()).total, 4);
        co_await batch.seal();
        EXPECT_THROW(co_await batch.add(queue, jobs(1)), Error);
        EXPECT_THROW(co_await queue.enqueue(call(), joins), Error);
        const auto now = *co_await batch.progress();
        EXPECT_EQ(now.total, 4);
        EXPECT_EQ(co_await queue.size(), 3);
    });
}

TEST_F(batch, refuses_what_it_cannot_be) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        const auto refused = [](RedisClient& client,
                                BatchOptions options) -> asio::awaitable<bool> {
            try {
                co_await Batch::create(client, options);
            } catch (const Error& error) {
                co_return error.code() == Errc::usage;
            }
            co_return false;
        };
        for (const auto* id : {"a:pending", "a b", "\n", "../x", "é"})
            EXPECT_TRUE(co_await refused(redis, named(id))) << id;
        EXPECT_TRUE(co_await refused(redis, named(std::string(201, 'x'))));
        BatchOptions orphan = named("b");
        orphan.parent = "nobody";
        EXPECT_TRUE(co_await refused(redis, orphan));
        BatchOptions brief = named("b");
        brief.ttl = 0s;
        EXPECT_TRUE(co_await refused(redis, brief));
        BatchOptions bound = named("b");
        bound.on_complete = follow_up("f");
        bound.on_complete->options.job_id = "mine";
        EXPECT_TRUE(co_await refused(redis, bound));
        EXPECT_EQ((co_await redis.command("DBSIZE")).as_integer(), 0);
        co_await redis.command("SADD", "rq:group:taken", "x");
        EXPECT_TRUE(co_await refused(redis, named("taken"))) << "a group of Python's";
        co_await Batch::create(redis, named("b"));
        EXPECT_TRUE(co_await refused(redis, named("b")));
        Queue queue(redis, "q");
        auto circle = jobs(2);
        circle[0].options.depends_on = Dependency{{"later"}, false, false};
        circle[1].options.job_id = "later";
        Batch batch(redis, "b");
        EXPECT_THROW(co_await batch.add(queue, circle), Error);
        EXPECT_EQ((*co_await batch.progress()).total, 0);
    });
}

TEST_F(batch, with_a_parent_holds_it_up) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue queue(redis, "q");
        BatchOptions options = named("top");
        options.on_complete = follow_up("top complete");
        options.on_success = follow_up("top success");
        options.on_first_failure = follow_up("top failure");
        Batch top = co_await Batch::create_with(redis, options, queue, jobs(1));
        BatchOptions inner = named("inner");
        inner.parent = "top";
        inner.on_complete = follow_up("inner complete");
        Batch child = co_await Batch::create_with(redis, inner, queue, jobs(1));
        ops::WorkerOps worker(redis, "w", {.queues = {"q"}});
        co_await worker.register_birth();
        auto claimed = (co_await worker.claim(2, 2, {})).claimed;
        co_await worker.settle({settlement(claimed[0], Outcome::success)}, {}, 500s);
        auto now = *co_await top.progress();
        EXPECT_EQ(now.pending, 0);
        EXPECT_EQ(now.state, "running");
        EXPECT_EQ(now.children_waiting, 1);
        co_await worker.settle({settlement(claimed[1], Outcome::failure)}, {}, 500s);
        now = *co_await top.progress();
        EXPECT_TRUE(now.complete());
        EXPECT_FALSE(now.successful());
        EXPECT_EQ(now.children_failed, 1);
        auto functions = co_await followed(redis);
        EXPECT_EQ(functions,
                  (std::vector<std::string>{"top failure", "inner complete", "top complete"}));
        EXPECT_EQ((co_await top.retry_failed()).done, 1u) << "with those in it";
        EXPECT_EQ((*co_await top.progress()).state, "running");
        claimed = (co_await worker.claim(2, 2, {})).claimed;
        co_await worker.settle({settlement(claimed[0], Outcome::success)}, {}, 500s);
        EXPECT_TRUE((*co_await top.progress()).successful());
        EXPECT_EQ((co_await followed(redis)).back(), "top success");
    });
}

TEST_F(batch, is_canceled_as_a_whole) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue queue(redis, "q");
        BatchOptions options = named("b");
        options.on_complete = follow_up("complete");
        options.on_success = follow_up("success");
        Batch batch = co_await Batch::create(redis, options);
        co_await batch.add(queue, jobs(500));
        BatchOptions inner = named("inner");
        inner.parent = "b";
        Batch child = co_await Batch::create(redis, inner);
        co_await child.add(queue, jobs(50));
        ops::WorkerOps worker(redis, "w", {.queues = {"q"}});
        co_await worker.register_birth();
        auto claimed = (co_await worker.claim(2, 2, {})).claimed;
        co_await worker.settle({settlement(claimed[0], Outcome::success)}, {}, 500s);
        const auto result = co_await batch.cancel();
        EXPECT_EQ(result.done, 549u);
        auto now = *co_await batch.progress();
        EXPECT_TRUE(now.complete());
        EXPECT_EQ(now.finished, 1);
        EXPECT_EQ(now.canceled, 499);
        EXPECT_EQ(now.in_progress, "");
        EXPECT_TRUE((*co_await child.progress()).complete());
        EXPECT_EQ(co_await queue.size(), 0);
        EXPECT_EQ((co_await redis.command("ZCARD", "rq:canceled:q")).as_integer(), 549);
        // The one that ran is told so; its end changes nothing.
        const auto settled =
            co_await worker.settle({settlement(claimed[1], Outcome::success)}, {}, 500s);
        EXPECT_EQ(settled[0].code, ops::Settled::Code::canceled);
        now = *co_await batch.progress();
        EXPECT_EQ(counted(now), 500);
        EXPECT_EQ(now.canceled, 499);
        EXPECT_EQ((co_await followed(redis)).size(), 1u);
        EXPECT_TRUE((co_await batch.cancel()).complete);
    });
}

TEST_F(batch, canceled_takes_its_own_jobs_off_queues_and_leaves_others_in_order) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue queue(redis, "q");
        Batch batch = co_await Batch::create(redis, named("b"));
        for (int i = 0; i < 40; ++i) {
            co_await batch.add(queue, jobs(20));
            EnqueueOptions other;
            other.job_id = fmt::format("other{}", i);
            co_await queue.enqueue(call(), other);
        }
        EXPECT_EQ((co_await batch.cancel()).done, 800u);
        const Reply left = co_await redis.command("LRANGE", "rq:queue:q", 0, -1);
        EXPECT_EQ(left.as_array().size(), 40u);
        for (std::size_t i = 0; i < left.elements.size(); ++i)
            EXPECT_EQ(left.elements[i].text, fmt::format("other{}", i));
    });
}

TEST_F(batch, whose_canceling_broke_off_is_canceled_by_any_janitor) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue queue(redis, "q");
        Batch batch = co_await Batch::create_with(redis, named("b"), queue, jobs(300));
        co_await redis.eval(lua::cancel_batch, {"rqxx:batch:b"},
                            std::vector<std::string>{"b", "10", "1"});
        EXPECT_EQ((*co_await batch.progress()).canceled, 10);
        co_await redis.command("HSET", "rqxx:batch:b", "driven_until", 1);
        co_await ops::maintain_batches(redis);
        const auto now = *co_await batch.progress();
        EXPECT_EQ(now.canceled, 300);
        EXPECT_TRUE(now.complete());
    });
}

TEST_F(batch, counts_what_others_ended_or_took_away) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue queue(redis, "q");
        BatchOptions options = named("b");
        options.on_complete = follow_up("complete");
        Batch batch = co_await Batch::create(redis, options);
        const auto added = co_await batch.add(queue, jobs(5));
        co_await batch.seal();
        const auto set = [](RedisClient& client, const std::string& id,
                            std::string_view status) -> asio::awaitable<void> {
            co_await client.command("HSET", "rq:job:" + id, "status", status);
        };
        co_await set(redis, added[0].job_id, "finished");
        co_await set(redis, added[1].job_id, "failed");
        co_await set(redis, added[2].job_id, "stopped");
        co_await redis.command("DEL", "rq:job:" + added[3].job_id);
        co_await ops::maintain_batches(redis);
        auto now = *co_await batch.progress();
        EXPECT_EQ(now.finished, 1);
        EXPECT_EQ(now.failed, 1);
        EXPECT_EQ(now.stopped, 1);
        EXPECT_EQ(now.deleted, 1);
        EXPECT_EQ(now.pending, 1);
        // A stock client has the failed one run again, and a stock worker finishes it.
        co_await set(redis, added[1].job_id, "queued");
        co_await redis.command("DEL", "rqxx:batches:seen");
        co_await ops::maintain_batches(redis);
        now = *co_await batch.progress();
        EXPECT_EQ(now.failed, 0);
        EXPECT_EQ(now.pending, 2);
        co_await set(redis, added[1].job_id, "finished");
        JobActions actions(redis);
        co_await actions.remove({added[4].job_id}, {});
        co_await redis.command("DEL", "rqxx:batches:seen");
        co_await ops::maintain_batches(redis);
        now = *co_await batch.progress();
        EXPECT_TRUE(now.complete());
        EXPECT_EQ(now.finished, 2);
        EXPECT_EQ(now.deleted, 2);
        EXPECT_EQ(counted(now), 5);
        EXPECT_EQ((co_await followed(redis)).size(), 1u);
    });
}

TEST_F(batch, whose_loader_is_gone_is_abandoned_and_then_forgotten) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue queue(redis, "q");
        BatchOptions options = named("b");
        options.on_complete = follow_up("complete");
        Batch batch = co_await Batch::create(redis, options);
        const auto added = co_await batch.add(queue, jobs(1));
        const auto just_now = (utc_now() - 1s).time_since_epoch().count();
        co_await redis.command("HSET", "rqxx:batch:b", "open_until", just_now, "ttl", 100);
        JobActions actions(redis);
        co_await actions.remove({added[0].job_id}, {});
        EXPECT_EQ((*co_await batch.progress()).state, "abandoned");
        EXPECT_TRUE((co_await followed(redis)).empty());
        co_await ops::maintain_batches(redis);
        EXPECT_TRUE(co_await batch.progress());
        co_await redis.command("HSET", "rqxx:batch:b", "ttl", 0);
        co_await redis.command("DEL", "rqxx:batches:seen");
        co_await ops::maintain_batches(redis);
        EXPECT_FALSE(co_await batch.progress());
        EXPECT_EQ((co_await redis.command("EXISTS", "rqxx:batches", "rqxx:batches:watched",
                                          "rqxx:batch:b:on_complete"))
                      .as_integer(),
                  0);
    });
}

TEST_F(batch, adds_nothing_twice_when_replies_are_lost) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue queue(redis, "q");
        Batch batch = co_await Batch::create(redis, named("b"));
        asio::steady_timer breaks(co_await asio::this_coro::executor);
        bool done = false;
        const auto disturb = [](RedisClient& client, bool& over) -> asio::awaitable<void> {
            while (!over) {
                co_await sleep(7ms);
                client.reset();
            }
        };
        asio::co_spawn(co_await asio::this_coro::executor, disturb(redis, done), asio::detached);
        const auto added = co_await batch.add(queue, jobs(3000));
        done = true;
        co_await sleep(20ms);
        EXPECT_EQ(added.size(), 3000u);
        const auto now = *co_await batch.progress();
        EXPECT_EQ(now.total, 3000);
        EXPECT_EQ(now.pending, 3000);
        EXPECT_EQ(co_await queue.size(), 3000);
        EXPECT_EQ((co_await redis.command("LINDEX", "rq:queue:q", 2999)).text, added.back().job_id);
    });
}

TEST_F(batch, of_another_type_harms_nobody) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue queue(redis, "q");
        co_await redis.command("SET", "rqxx:batch:b", "no hash");
        co_await redis.command("SADD", "rqxx:batches:watched", "b", "a:b", "x y");
        EnqueueOptions options;
        options.group = "b";
        co_await queue.enqueue(call(), options);
        ops::WorkerOps worker(redis, "w", {.queues = {"q"}});
        co_await worker.register_birth();
        auto claimed = (co_await worker.claim(1, 1, {})).claimed;
        const auto settled =
            co_await worker.settle({settlement(claimed[0], Outcome::failure)}, {}, 500s);
        EXPECT_EQ(settled[0].code, ops::Settled::Code::failed);
        co_await ops::maintain_batches(redis);
        EXPECT_FALSE(co_await Batch(redis, "b").progress());
        EXPECT_TRUE((co_await list_batches(redis, 10)).empty());
    });
}
