#include <rqxx/queue.hpp>
#include <support/redis_fixture.hpp>
#include <support/settlement.hpp>

using namespace rqxx;
using namespace rqxx::test;

namespace {

class queue : public RedisTest {};
class transitions : public RedisTest {};

Call noop() {
    return {.func_name = "tasks.noop",
            .instance = {},
            .args = Value::tuple({Value(1)}),
            .kwargs = Value::dict()};
}

}  // namespace

TEST_F(queue, refuses_a_second_job_with_the_same_id_when_unique) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue mail(redis, "mail");
        EnqueueOptions options;
        options.job_id = "once";
        options.unique = true;
        EXPECT_FALSE((co_await mail.enqueue(noop(), options)).duplicate);
        EXPECT_TRUE((co_await mail.enqueue(noop(), options)).duplicate);
        EXPECT_EQ(co_await mail.size(), 1);
    });
}

TEST_F(queue, starts_a_reused_id_without_fields_of_the_old_job) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue mail(redis, "mail");
        EnqueueOptions options;
        options.job_id = "again";
        options.retry = Retry{.max = 5, .intervals = {}, .enqueue_at_front = false};
        co_await mail.enqueue(noop(), options);
        options.retry.reset();
        EXPECT_TRUE((co_await mail.enqueue(noop(), options)).duplicate) << "it waits";
        co_await redis.command("DEL", "rq:queue:mail");
        co_await redis.command("HSET", "rq:job:again", "status", "failed");
        co_await redis.command("ZADD", "rq:failed:mail", 1, "again");
        EXPECT_FALSE((co_await mail.enqueue(noop(), options)).duplicate);
        EXPECT_EQ(co_await mail.size(), 1);
        EXPECT_EQ((co_await redis.command("ZCARD", "rq:failed:mail")).as_integer(), 0);
        EXPECT_TRUE((co_await redis.command("HGET", "rq:job:again", "retries_left")).is_nil());
    });
}

TEST_F(queue, keeps_the_last_of_the_jobs_that_replace_each_other) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue mail(redis, "mail");
        EnqueueOptions options;
        options.dedup =
            Dedup{.mode = DedupMode::replace, .key = "k", .period = {}, .max_delay = {}};
        const auto first = co_await mail.enqueue(noop(), options);
        options.description = "the last";
        const auto last = co_await mail.enqueue(noop(), options);
        EXPECT_TRUE(last.replaced);
        EXPECT_EQ(last.job_id, first.job_id);
        EXPECT_EQ(co_await mail.size(), 1);
        EXPECT_EQ((co_await redis.command("HGET", "rq:job:" + first.job_id, "description")).text,
                  "the last");
    });
}

TEST_F(queue, answers_a_repeated_request_as_the_first_time) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue mail(redis, "mail");
        EnqueueOptions options;
        options.idempotency = Idempotency{.key = "r", .asked = "this"};
        const auto first = co_await mail.enqueue(noop(), options);
        const auto again = co_await mail.enqueue(noop(), options);
        EXPECT_FALSE(first.repeated);
        EXPECT_TRUE(again.repeated);
        EXPECT_EQ(again.job_id, first.job_id);
        EXPECT_EQ(co_await mail.size(), 1);
        options.idempotency->asked = "that";
        Errc refusal = Errc::internal;
        try {
            co_await mail.enqueue(noop(), options);
        } catch (const Error& error) {
            refusal = error.code();
        }
        EXPECT_EQ(refusal, Errc::usage);
    });
}

TEST_F(queue, takes_many_jobs_in_order) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue mail(redis, "mail");
        std::vector<NewJob> jobs(1234, NewJob{noop(), {}});
        const auto made = co_await mail.enqueue_many(std::move(jobs));
        EXPECT_EQ(made.size(), 1234u);
        const Reply list = co_await redis.command("LRANGE", "rq:queue:mail", 0, -1);
        for (std::size_t i = 0; i < made.size(); ++i)
            EXPECT_EQ(list.elements[i].text, made[i].job_id);
        EXPECT_EQ((co_await redis.command("HGET", "rq:job:" + made[1000].job_id, "status")).text,
                  "queued");
    });
}

TEST_F(queue, puts_jobs_in_front_where_asked) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue mail(redis, "mail");
        EnqueueOptions options;
        options.job_id = "last";
        co_await mail.enqueue(noop(), options);
        options.job_id = "first";
        options.at_front = true;
        co_await mail.enqueue(noop(), options);
        EXPECT_EQ((co_await redis.command("LINDEX", "rq:queue:mail", 0)).text, "first");
    });
}

TEST_F(transitions, claim_takes_over_queues_in_order_and_no_more_than_asked) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue high(redis, "high"), low(redis, "low");
        for (int i = 0; i < 3; ++i)
            co_await low.enqueue(noop());
        for (int i = 0; i < 3; ++i)
            co_await high.enqueue(noop());
        ops::WorkerOps worker(redis, "w", {.queues = {"high", "low"}});
        EXPECT_TRUE((co_await worker.register_birth()).registered);
        const auto result = co_await worker.claim(4, 100, "");
        EXPECT_EQ(result.claimed.size(), 4u);
        EXPECT_EQ(result.claimed[2].origin, "high");
        EXPECT_EQ(result.claimed[3].origin, "low");
        EXPECT_EQ((co_await redis.command("ZCARD", "rq:wip:high")).as_integer(), 3);
        EXPECT_EQ((co_await redis.command("SCARD", "rq:worker:w:executions")).as_integer(), 4);
    });
}

TEST_F(transitions, only_the_first_jobs_of_a_claim_come_with_their_hashes) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue mail(redis, "mail");
        for (int i = 0; i < 8; ++i)
            co_await mail.enqueue(noop());
        ops::WorkerOps worker(redis, "w", {.queues = {"mail"}});
        co_await worker.register_birth();
        auto jobs = (co_await worker.claim(8, 100, "")).claimed;
        EXPECT_EQ(jobs.size(), 8u);
        EXPECT_FALSE(jobs[3].fields.empty());
        EXPECT_TRUE(jobs[4].fields.empty());
        jobs.erase(jobs.begin(), jobs.begin() + 4);
        co_await redis.command("DEL", "rq:job:" + jobs[1].job_id);
        co_await redis.command("SET", "rq:job:" + jobs[2].job_id, "not a hash");
        co_await worker.read_hashes(jobs);
        EXPECT_FALSE(jobs[0].fields.empty());
        EXPECT_TRUE(jobs[1].fields.empty());
        EXPECT_TRUE(jobs[2].fields.empty());
        EXPECT_FALSE(jobs[3].fields.empty());
    });
}

TEST_F(transitions, settling_twice_changes_nothing_the_second_time) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue mail(redis, "mail");
        co_await mail.enqueue(noop());
        ops::WorkerOps worker(redis, "w", {.queues = {"mail"}});
        co_await worker.register_birth();
        const auto job = (co_await worker.claim(1, 100, "")).claimed.at(0);
        std::vector<ops::Settlement> batch{settlement(job, ops::Settlement::Outcome::success)};
        const auto first = co_await worker.settle(batch, "", 500s);
        EXPECT_EQ(first[0].code, ops::Settled::Code::finished);
        batch[0].outcome = ops::Settlement::Outcome::failure;
        const auto second = co_await worker.settle(batch, "", 500s);
        EXPECT_EQ(second[0].code, ops::Settled::Code::refused);
        EXPECT_EQ((co_await redis.command("HGET", "rq:job:" + job.job_id, "status")).text,
                  "finished");
        EXPECT_EQ((co_await redis.command("XLEN", "rq:results:" + job.job_id)).as_integer(), 1);
        EXPECT_TRUE((co_await redis.command("KEYS", "rq:execution*")).elements.empty());
    });
}

TEST_F(transitions, a_worker_is_busy_as_long_as_it_holds_a_job) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue mail(redis, "mail");
        co_await mail.enqueue(noop());
        const auto second = (co_await mail.enqueue(noop())).job_id;
        ops::WorkerOps worker(redis, "w", {.queues = {"mail"}});
        co_await worker.register_birth();
        const auto one = (co_await worker.claim(1, 100, "")).claimed.at(0);
        const auto two = (co_await worker.claim(1, 100, "")).claimed.at(0);
        // As if the claim of the second had been answered only after this.
        std::vector<ops::Settlement> batch{settlement(one, ops::Settlement::Outcome::success)};
        co_await worker.settle(batch, "", 500s);
        EXPECT_EQ((co_await redis.command("HGET", "rq:worker:w", "state")).text, "busy");
        EXPECT_EQ((co_await redis.command("HGET", "rq:worker:w", "current_job")).text, second);
        co_await redis.command("SET", "rq:suspended", 1);
        batch = {settlement(two, ops::Settlement::Outcome::success)};
        co_await worker.settle(batch, "", 500s);
        EXPECT_EQ((co_await redis.command("HGET", "rq:worker:w", "state")).text, "suspended");
        EXPECT_TRUE((co_await redis.command("HGET", "rq:worker:w", "current_job")).is_nil());
    });
}

TEST_F(transitions, a_job_canceled_by_rq_while_it_ran_is_told_from_a_lost_lease) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue mail(redis, "mail");
        co_await mail.enqueue(noop());
        co_await mail.enqueue(noop());
        ops::WorkerOps worker(redis, "w", {.queues = {"mail"}});
        co_await worker.register_birth();
        const auto jobs = (co_await worker.claim(2, 100, "")).claimed;
        for (const auto& job : jobs)  // RQ's Job.cancel takes the execution out of the registry.
            co_await redis.command("ZREM", "rq:wip:mail", job.job_id + ":" + job.execution_id);
        co_await redis.command("HSET", "rq:job:" + jobs.at(0).job_id, "status", "canceled");
        std::vector<ops::Settlement> batch;
        for (const auto& job : jobs)
            batch.push_back(settlement(job, ops::Settlement::Outcome::success));
        const auto settled = co_await worker.settle(batch, "", 500s);
        EXPECT_EQ(settled.at(0).code, ops::Settled::Code::canceled);
        EXPECT_EQ(settled.at(1).code, ops::Settled::Code::refused);
    });
}

TEST_F(transitions, a_claim_whose_reply_was_lost_goes_back_to_the_front) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue mail(redis, "mail");
        const auto lost = (co_await mail.enqueue(noop())).job_id;
        co_await mail.enqueue(noop());
        ops::WorkerOps worker(redis, "w", {.queues = {"mail"}});
        co_await worker.register_birth();
        const auto job = (co_await worker.claim(1, 100, "")).claimed.at(0);
        EXPECT_EQ(job.job_id, lost);
        // A reply may still be on its way: nothing happens at once.
        EXPECT_EQ((co_await worker.heartbeat({}, "", Seconds(0))).orphans, 0);
        co_await redis.command("HSET", "rq:execution:" + lost + ":" + job.execution_id,
                               "created_at", "1000000000.0");
        EXPECT_EQ((co_await worker.heartbeat({}, "", Seconds(0))).orphans, 1);
        EXPECT_EQ((co_await redis.command("LINDEX", "rq:queue:mail", 0)).text, lost);
        EXPECT_EQ((co_await redis.command("HGET", "rq:job:" + lost, "status")).text, "queued");
    });
}

TEST_F(transitions, a_retired_worker_can_claim_nothing_and_leaves_nothing_started) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue mail(redis, "mail");
        for (int i = 0; i < 3; ++i)
            co_await mail.enqueue(noop());
        ops::WorkerOps worker(redis, "w", {.queues = {"mail"}});
        co_await worker.register_birth();
        co_await worker.claim(2, 100, "");
        co_await worker.register_death();
        EXPECT_EQ(co_await mail.size(), 3);
        EXPECT_EQ((co_await worker.claim(1, 100, "")).state, ops::ClaimResult::State::lease_gone);
        EXPECT_EQ(co_await mail.size(), 3);
        EXPECT_EQ((co_await redis.command("ZCARD", "rq:wip:mail")).as_integer(), 0);
    });
}

TEST_F(transitions, a_job_that_was_pushed_twice_runs_once) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        Queue mail(redis, "mail");
        const auto id = (co_await mail.enqueue(noop())).job_id;
        co_await redis.command("RPUSH", "rq:queue:mail", id, id);
        ops::WorkerOps worker(redis, "w", {.queues = {"mail"}});
        co_await worker.register_birth();
        const auto result = co_await worker.claim(5, 100, "");
        EXPECT_EQ(result.claimed.size(), 1u);
        EXPECT_EQ(result.skipped.size(), 2u);
    });
}

TEST_F(transitions, every_script_loads_and_has_the_sha1_it_was_built_with) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        for (const Script* script : lua::all()) {
            const Reply loaded = co_await redis.command("SCRIPT", "LOAD", script->body);
            EXPECT_EQ(loaded.text, script->sha1) << script->name;
        }
    });
}
