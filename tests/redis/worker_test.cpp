#include <atomic>
#include <rqxx/monitor.hpp>
#include <rqxx/queue.hpp>
#include <rqxx/worker.hpp>
#include <support/redis_fixture.hpp>

using namespace rqxx;
using namespace rqxx::test;

namespace {

class worker : public RedisTest {};

NewJob call(std::string function, Value::Items args = {}) {
    NewJob job;
    job.call.func_name = std::move(function);
    job.call.args = Value::tuple(std::move(args));
    return job;
}

WorkerOptions burst(std::size_t concurrency) {
    WorkerOptions options;
    options.queues = {"default"};
    options.burst = true;
    options.concurrency = concurrency;
    return options;
}

}  // namespace

TEST_F(worker, runs_many_jobs_in_many_threads_each_once) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        std::atomic<int> sum = 0;
        HandlerRegistry handlers;
        handlers.add("add", [&](int n) {
            if (n % 50 == 0) std::this_thread::sleep_for(2ms);
            sum += n;
            return n;
        });
        std::vector<NewJob> jobs;
        for (int n = 1; n <= 1000; ++n)
            jobs.push_back(call("add", {Value(n)}));
        Queue queue(redis, "default");
        co_await queue.enqueue_many(std::move(jobs));
        Worker worker(redis, handlers, burst(32), null_logger());
        const auto summary = co_await worker.run();
        EXPECT_EQ(summary.finished, 1000u);
        EXPECT_EQ(sum, 500500);
        Monitor monitor(redis);
        EXPECT_EQ((co_await monitor.queue_stats("default")).finished, 1000);
        EXPECT_EQ((co_await monitor.performance(1)).successful, 1000);
    });
}

TEST_F(worker, reports_what_handlers_throw) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        HandlerRegistry handlers;
        handlers.add("odd", []() -> int { throw 42; });
        handlers.add("two", [](int, std::optional<std::string>) {});
        Queue queue(redis, "default");
        std::vector<NewJob> jobs;
        jobs.push_back(call("odd"));
        jobs.push_back(call("two"));
        jobs.push_back(call("two", {Value("x")}));
        jobs.push_back(call("two", {Value(1)}));
        jobs.push_back(call("two", {Value(1), Value("a"), Value(2)}));
        const auto made = co_await queue.enqueue_many(std::move(jobs));
        Worker worker(redis, handlers, burst(4), null_logger());
        const auto summary = co_await worker.run();
        EXPECT_EQ(summary.finished, 1u);
        EXPECT_EQ(summary.failed, 4u);
        Monitor monitor(redis);
        const std::pair<std::size_t, std::string> expected[] = {
            {0, "not a std::exception"},
            {1, "1 argument expected, 0 given"},
            {2, "argument 1: an integer in range expected, not 'x'"},
            {4, "2 arguments expected, 3 given"}};
        for (const auto& [index, text] : expected) {
            const auto info = co_await monitor.job_info(made[index].job_id);
            EXPECT_NE(info->executions.front().error.find(text), std::string::npos)
                << info->executions.front().error;
        }
    });
}

TEST_F(worker, ends_after_the_jobs_it_was_allowed) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        HandlerRegistry handlers;
        handlers.add("nothing", [] {});
        Queue queue(redis, "default");
        co_await queue.enqueue_many(std::vector<NewJob>(10, call("nothing")));
        WorkerOptions options = burst(8);
        options.burst = false;
        options.max_jobs = 3;
        Worker worker(redis, handlers, options, null_logger());
        EXPECT_EQ((co_await worker.run()).finished, 3u);
        EXPECT_EQ(co_await queue.size(), 7);
    });
}

TEST_F(worker, stops_while_it_waits) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        HandlerRegistry handlers;
        WorkerOptions options;
        Worker worker(redis, handlers, options, null_logger());
        auto stop = [](Worker& waiting) -> asio::awaitable<void> {
            co_await sleep(200ms);
            waiting.request_stop();
        };
        asio::co_spawn(redis.executor(), stop(worker), [](std::exception_ptr) {});
        EXPECT_EQ((co_await worker.run()).returned, 0u);
        EXPECT_EQ((co_await redis.command("ZCARD", "rqxx:leases")).as_integer(), 0);
    });
}
