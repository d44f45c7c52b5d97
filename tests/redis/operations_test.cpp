#include <rqxx/operations.hpp>
#include <support/redis_fixture.hpp>

#include "base/task_group.hpp"

using namespace rqxx;
using namespace rqxx::test;

namespace {

class operations : public RedisTest {};

BulkOrder by_duration() {
    BulkOrder order;
    order.search.min_duration = 1e9;
    return order;
}

/// Of an index with many jobs of which none fits: page after page without ids.
IdSource endless(std::size_t& pages) {
    return [&pages](const JobSearch&,
                    std::string& cursor) -> asio::awaitable<std::vector<std::string>> {
        cursor = std::to_string(++pages);
        co_return std::vector<std::string>();
    };
}

}  // namespace

TEST_F(operations, a_preview_looks_at_a_bounded_part_of_an_index) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        std::size_t pages = 0;
        Operations operations(redis, null_logger(), endless(pages));
        const auto preview = co_await operations.preview(by_duration());
        EXPECT_EQ(preview.matched, 0u);
        EXPECT_FALSE(preview.exact);
        EXPECT_EQ(pages, Operations::most_pages);
    });
}

TEST_F(operations, a_preview_whose_last_page_is_empty_is_exact) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        const IdSource source =
            [](const JobSearch&, std::string& cursor) -> asio::awaitable<std::vector<std::string>> {
            std::vector<std::string> ids;
            if (cursor.empty()) ids = {"a", "b"};
            cursor = cursor.empty() ? "behind b" : "";
            co_return ids;
        };
        Operations operations(redis, null_logger(), source);
        const auto preview = co_await operations.preview(by_duration());
        EXPECT_EQ(preview.matched, 2u);
        EXPECT_TRUE(preview.exact);
    });
}

TEST_F(operations, one_that_finds_nothing_for_long_can_be_canceled_and_stopped) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        std::size_t pages = 0;
        Event pause(redis.executor());
        const IdSource source =
            [&](const JobSearch&,
                std::string& cursor) -> asio::awaitable<std::vector<std::string>> {
            cursor = std::to_string(++pages);
            co_await pause.wait(1ms);
            co_return std::vector<std::string>();
        };
        Operations operations(redis, null_logger(), source);
        const auto canceled = co_await operations.start(by_duration());
        const auto stopped = co_await operations.start(by_duration());
        EXPECT_EQ(co_await operations.cancel(*canceled, "ann"), "running");
        for (int turn = 0; turn < 5000 && (co_await operations.find(*canceled))->state == "running";
             ++turn)
            co_await pause.wait(1ms);
        EXPECT_EQ((co_await operations.find(*canceled))->state, "canceled");
        EXPECT_EQ((co_await operations.find(*stopped))->state, "running");
        co_await operations.join();
        EXPECT_EQ((co_await operations.find(*stopped))->state, "interrupted");
    });
}
