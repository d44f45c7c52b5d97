#include <fmt/format.h>

#include <atomic>
#include <base/task_group.hpp>
#include <numeric>
#include <ops/keys.hpp>
#include <rqxx/actions.hpp>
#include <rqxx/codec.hpp>
#include <rqxx/monitor.hpp>
#include <rqxx/queue.hpp>
#include <rqxx/worker.hpp>
#include <set>
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

TEST_F(worker, moves_the_figures_of_a_minute_into_their_buckets_when_the_next_begins) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        HandlerRegistry handlers;
        handlers.add("noop", [] {});
        Queue queue(redis, "default");
        Monitor monitor(redis);
        const auto work = [&]() -> asio::awaitable<void> {
            co_await queue.enqueue(call("noop").call);
            Worker worker(redis, handlers, burst(1), null_logger());
            co_await worker.run();
        };
        co_await work();
        EXPECT_EQ((co_await monitor.performance(1)).successful, 1);
        EXPECT_TRUE((co_await redis.command("KEYS", "rqxx:metrics:[mhd]:*")).elements.empty());

        // As if that had been ten minutes ago.
        const std::string now = (co_await redis.command("HGET", keys::metrics_now, "minute")).text;
        const auto earlier = std::stoll(now) - 600;
        co_await redis.command("HSET", keys::metrics_now, "minute", earlier);
        co_await work();
        co_await work();
        for (const auto& [name, width] : {std::pair{"m", 60}, {"h", 3600}, {"d", 86400}}) {
            const auto bucket = fmt::format("rqxx:metrics:{}:{}", name, earlier - earlier % width);
            EXPECT_EQ((co_await redis.command("HGET", bucket, "finished")).text, "1") << bucket;
            EXPECT_GT((co_await redis.command("TTL", bucket)).as_integer(), 86400) << bucket;
            EXPECT_TRUE((co_await redis.command("HGET", bucket, "minute")).is_nil());
        }
        const auto figures = co_await monitor.performance(1);
        EXPECT_EQ(figures.successful, 3);
        EXPECT_EQ(figures.duration.count, 3);

        // A clock that went back, and a key that somebody else has overwritten.
        co_await redis.command("HSET", keys::metrics_now, "minute", std::stoll(now) + 600);
        co_await work();
        EXPECT_EQ((co_await redis.command("HGET", keys::metrics_now, "finished")).text, "1");
        co_await redis.command("SET", keys::metrics_now, "junk");
        co_await work();
        EXPECT_EQ((co_await redis.command("HGET", keys::metrics_now, "finished")).text, "1");
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

TEST_F(worker, calls_back_and_fails_a_job_whose_success_callback_throws) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        std::mutex mutex;
        std::vector<std::string> heard;
        const auto hear = [&](std::string text) {
            const std::scoped_lock lock(mutex);
            heard.push_back(std::move(text));
        };
        HandlerRegistry handlers;
        handlers.add("good", [] { return 7; });
        handlers.add("bad", []() -> int { throw std::runtime_error("no"); });
        handlers.add_callback("ok", [&](JobContext&, const CallbackEvent& event) {
            hear("ok " + repr(event.result));
        });
        handlers.add_callback("failed", [&](JobContext&, const CallbackEvent& event) {
            hear("failed " + event.error);
        });
        handlers.add_callback("breaks", [](JobContext&, const CallbackEvent&) {
            throw std::runtime_error("callback");
        });
        std::vector<NewJob> jobs{call("good"), call("bad"), call("good"), call("good")};
        jobs[0].options.on_success = Callback{"ok", {}};
        jobs[1].options.on_failure = Callback{"failed", {}};
        jobs[2].options.on_success = Callback{"breaks", {}};
        jobs[2].options.on_failure = Callback{"failed", {}};
        jobs[3].options.on_success = Callback{"unknown", {}};
        Queue queue(redis, "default");
        co_await queue.enqueue_many(std::move(jobs));
        Worker worker(redis, handlers, burst(1), null_logger());
        const auto summary = co_await worker.run();
        EXPECT_EQ(summary.finished, 1u);
        EXPECT_EQ(summary.failed, 3u);
        EXPECT_EQ(heard, (std::vector<std::string>{"ok 7", "failed std::runtime_error: no",
                                                   "failed std::runtime_error: callback"}));
    });
}

TEST_F(worker, runs_a_job_again_that_asks_for_it_as_often_as_it_may) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        std::atomic<int> runs = 0;
        HandlerRegistry handlers;
        handlers.add("again", [&]() -> int {
            ++runs;
            throw RetryRequest({.max = 2, .intervals = {}, .enqueue_at_front = false});
        });
        Queue queue(redis, "default");
        const auto id = (co_await queue.enqueue(call("again").call)).job_id;
        Worker worker(redis, handlers, burst(2), null_logger());
        const auto summary = co_await worker.run();
        EXPECT_EQ(runs, 3);
        EXPECT_EQ(summary.retried, 2u);
        EXPECT_EQ(summary.failed, 1u);
        Monitor monitor(redis);
        EXPECT_EQ((co_await monitor.job_info(id))->executions.front().outcome,
                  "max_retries_exceeded");
    });
}

TEST_F(worker, stops_a_job_on_command_and_calls_back) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        std::atomic<bool> called = false;
        HandlerRegistry handlers;
        handlers.add("wait", [](JobContext& context) {
            while (!context.stop_token().stop_requested())
                std::this_thread::sleep_for(1ms);
        });
        handlers.add_callback("stopped", [&](JobContext&, const CallbackEvent&) { called = true; });
        Queue queue(redis, "default");
        EnqueueOptions options;
        options.on_stopped = Callback{"stopped", {}};
        options.retry = Retry{.max = 3, .intervals = {}, .enqueue_at_front = false};
        const auto id = (co_await queue.enqueue(call("wait").call, options)).job_id;
        Worker worker(redis, handlers, burst(2), null_logger());
        TaskGroup tasks(redis.executor());
        tasks.spawn("stop", [](RedisClient& client, std::string job) -> asio::awaitable<void> {
            JobActions actions(client);
            while ((co_await actions.stop(job)).code != ActionResult::Code::done)
                co_await sleep(5ms);
        }(redis, id));
        const auto summary = co_await worker.run();
        co_await tasks.join();
        EXPECT_EQ(summary.stopped, 1u);
        EXPECT_TRUE(called);
        EXPECT_EQ((co_await redis.command("HGET", "rq:job:" + id, "status")).text, "stopped");
        EXPECT_EQ((co_await redis.command("ZCARD", "rq:failed:default")).as_integer(), 1);
    });
}

TEST_F(worker, serves_queues_in_turn_where_asked) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        std::vector<std::string> order;
        HandlerRegistry handlers;
        handlers.add("note", [&](std::string queue) { order.push_back(queue); });
        for (const std::string name : {"a", "b"}) {
            Queue queue(redis, name);
            for (int i = 0; i < 3; ++i)
                co_await queue.enqueue(call("note", {Value(name)}).call);
        }
        WorkerOptions options = burst(1);
        options.queues = {"a", "b"};
        options.strategy = Strategy::round_robin;
        Worker worker(redis, handlers, options, null_logger());
        EXPECT_EQ((co_await worker.run()).finished, 6u);
        EXPECT_EQ(order, (std::vector<std::string>{"a", "b", "a", "b", "a", "b"}));
    });
}

TEST_F(worker, ends_when_it_has_been_idle_for_long_enough) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        HandlerRegistry handlers;
        handlers.add("nothing", [] {});
        Queue queue(redis, "default");
        co_await queue.enqueue(call("nothing").call);
        WorkerOptions options = burst(1);
        options.burst = false;
        options.max_idle_time = 1s;
        Worker worker(redis, handlers, options, null_logger());
        EXPECT_EQ((co_await worker.run()).finished, 1u);
    });
}

TEST_F(worker, gives_the_jobs_of_an_aggregated_handler_to_it_in_calls_of_many) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        std::mutex mutex;
        std::vector<std::size_t> sizes;
        std::multiset<int> seen;
        HandlerRegistry handlers;
        handlers.add("other", [](int n) { return n; });
        handlers.add_aggregated("square", {.max_size = 16, .max_wait = 50ms},
                                [&](std::span<AggregatedCall> calls) {
                                    const std::scoped_lock lock(mutex);
                                    sizes.push_back(calls.size());
                                    for (auto& one : calls) {
                                        one.answer([&] {
                                            const auto [n] = one.arguments<int>();
                                            seen.insert(n);
                                            one.context().progress(1, "squared");
                                            if (n % 10 == 0) throw std::runtime_error("no tens");
                                            return n * n;
                                        });
                                    }
                                });
        std::vector<NewJob> jobs;
        for (int n = 0; n < 400; ++n)
            jobs.push_back(call(n % 4 == 3 ? "other" : "square", {Value(n)}));
        Queue queue(redis, "default");
        const auto made = co_await queue.enqueue_many(std::move(jobs));
        Worker worker(redis, handlers, burst(4), null_logger());
        const auto summary = co_await worker.run();
        EXPECT_EQ(summary.finished, 360u);
        EXPECT_EQ(summary.failed, 40u);
        EXPECT_EQ(seen.size(), 300u);
        EXPECT_EQ(std::set<int>(seen.begin(), seen.end()).size(), 300u);
        EXPECT_EQ(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}), 300u);
        EXPECT_LE(*std::ranges::max_element(sizes), 16u);
        Monitor monitor(redis);
        const auto nine = co_await monitor.job_info(made[9].job_id);
        EXPECT_EQ(repr(*decode(nine->executions.front().return_value)), "81");
        EXPECT_NE(
            (co_await monitor.job_info(made[10].job_id))->executions.front().error.find("no tens"),
            std::string::npos);
        EXPECT_EQ((co_await redis.command("ZCARD", "rq:wip:default")).as_integer(), 0);
    });
}

TEST_F(worker, fails_what_an_aggregated_handler_leaves_open_or_throws) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        HandlerRegistry handlers;
        handlers.add_aggregated("open", {.max_size = 8, .max_wait = 10s},
                                [](std::span<AggregatedCall> calls) {
                                    calls[0].set_result(1);
                                    calls[0].set_result(2);
                                    calls[1].set_error("refused");
                                    calls[2].answer([] {});
                                    if (calls[0].call().args.items().empty()) return;
                                    throw 42;
                                });
        std::vector<NewJob> jobs;
        for (int n = 0; n < 4; ++n)
            jobs.push_back(call("open"));
        Queue queue(redis, "default");
        const auto silent = co_await queue.enqueue_many(std::vector<NewJob>(jobs));
        Worker worker(redis, handlers, burst(1), null_logger());
        auto summary = co_await worker.run();
        EXPECT_EQ(summary.finished, 2u);
        Monitor monitor(redis);
        const auto error = [&](const std::string& id) -> asio::awaitable<std::string> {
            co_return (co_await monitor.job_info(id))->executions.front().error;
        };
        const auto twice = co_await monitor.job_info(silent[0].job_id);
        EXPECT_EQ(repr(*decode(twice->executions.front().return_value)), "2");
        EXPECT_NE((co_await error(silent[1].job_id)).find("std::runtime_error: refused"),
                  std::string::npos);
        EXPECT_NE((co_await error(silent[3].job_id)).find("NoAnswer"), std::string::npos);
        for (auto& job : jobs)
            job.call.args = Value::tuple({Value(1)});
        const auto thrown = co_await queue.enqueue_many(std::move(jobs));
        Worker second(redis, handlers, burst(1), null_logger());
        summary = co_await second.run();
        EXPECT_EQ(summary.finished, 2u);
        EXPECT_NE((co_await error(thrown[3].job_id)).find("not a std::exception"),
                  std::string::npos);
    });
}

TEST_F(worker, refuses_figures_and_names_of_aggregated_handlers_that_cannot_be) {
    HandlerRegistry handlers;
    const auto nothing = [](std::span<AggregatedCall>) {};
    handlers.add("taken", [] {});
    EXPECT_THROW(handlers.add_aggregated("taken", {.max_size = 1}, nothing), Error);
    EXPECT_THROW(handlers.add_aggregated("", {.max_size = 1}, nothing), Error);
    EXPECT_THROW(handlers.add_aggregated("none", {.max_size = 0}, nothing), Error);
    EXPECT_THROW(handlers.add_aggregated("many", {.max_size = 1001}, nothing), Error);
    EXPECT_THROW(handlers.add_aggregated("late", {.max_size = 1, .max_wait = -1ms}, nothing),
                 Error);
    EXPECT_THROW(handlers.add_aggregated("later", {.max_size = 1, .max_wait = 2h}, nothing), Error);
    handlers.add_aggregated("many", {.max_size = 1000, .max_wait = 1h}, nothing);
    EXPECT_THROW(handlers.add("many", [] {}), Error);
    EXPECT_EQ(handlers.names(), (std::vector<std::string>{"many", "taken"}));
}
