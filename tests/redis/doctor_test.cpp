#include <ops/doctor.hpp>
#include <rqxx/queue.hpp>
#include <support/redis_fixture.hpp>

using namespace rqxx;
using namespace rqxx::test;

namespace {

class doctor : public RedisTest {};

struct Answer {
    std::int64_t code;
    std::string mark;
};

asio::awaitable<Answer> ask(RedisClient& redis, std::string kind, bool mend, std::string id,
                            std::string mark) {
    std::vector<std::string> args{std::move(kind), mend ? "1" : "0", "", "", std::move(id), "",
                                  std::move(mark)};
    const Reply reply = co_await redis.eval(lua::doctor, {}, std::move(args));
    const auto& cells = reply.as_array().at(0).as_array();
    co_return Answer{cells.at(0).as_integer(), cells.at(1).as_text()};
}

asio::awaitable<std::string> put_job(RedisClient& redis) {
    Queue queue(redis, "q");
    Call call;
    call.func_name = "tasks.noop";
    EnqueueOptions options;
    co_return (co_await queue.enqueue(std::move(call), std::move(options))).job_id;
}

}  // namespace

TEST_F(doctor, mends_only_what_is_as_it_was_at_the_looks_before) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        const auto id = co_await put_job(redis);
        EXPECT_EQ((co_await ask(redis, "lost-queued", false, id, "")).code, 0);
        co_await redis.command("DEL", "rq:queue:q");
        const auto seen = co_await ask(redis, "lost-queued", false, id, "");
        EXPECT_EQ(seen.code, 1);
        EXPECT_EQ((co_await redis.command("EXISTS", "rq:queue:q")).as_integer(), 0);
        // It has been taken and put back meanwhile.
        co_await redis.command("HSET", "rq:job:" + id, "enqueued_at",
                               "2026-11-23T17:47:37.728246Z");
        EXPECT_EQ((co_await ask(redis, "lost-queued", true, id, seen.mark)).code, 1);
        EXPECT_EQ((co_await redis.command("EXISTS", "rq:queue:q")).as_integer(), 0);
        const auto now = co_await ask(redis, "lost-queued", false, id, "");
        EXPECT_EQ((co_await ask(redis, "lost-queued", true, id, now.mark)).code, 2);
        EXPECT_EQ((co_await ask(redis, "lost-queued", true, id, now.mark)).code, 0);
        EXPECT_EQ((co_await redis.command("LRANGE", "rq:queue:q", 0, -1)).as_array().size(), 1u);
    });
}

TEST_F(doctor, looks_twice_at_what_moves) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        const auto id = co_await put_job(redis);
        co_await redis.command("DEL", "rq:queue:q");
        ops::DoctorOptions options;
        options.recheck = 1ms;
        options.repair = true;
        // It arrives between the two looks.
        options.progress = [&redis, id](const ops::DoctorProgress& progress) {
            if (progress.step != "looking again") return;
            Pipeline pipeline;
            pipeline.add("DEL", "rq:queue:q");
            pipeline.add("RPUSH", "rq:queue:q", id);
            static_cast<void>(redis.submit(std::move(pipeline)));
        };
        const auto report = co_await ops::examine(redis, std::move(options));
        EXPECT_TRUE(report.healthy());
        for (const auto& finding : report.findings)
            EXPECT_EQ(finding.kind->severity, ops::Severity::info) << finding.kind->code;
        EXPECT_EQ((co_await redis.command("LLEN", "rq:queue:q")).as_integer(), 1);
    });
}
