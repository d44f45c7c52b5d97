#include "base/task_group.hpp"

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <stdexcept>

using namespace rqxx;
namespace asio = boost::asio;

namespace {

asio::awaitable<void> go_round_and_round() {
    for (;;)
        co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
}

asio::awaitable<void> fail() {
    throw std::runtime_error("broken");
    co_return;
}

/// Runs `task` beside a cancel() of its group; what join() threw.
std::string failure_of(asio::awaitable<void> (*task)()) {
    asio::io_context context(1);
    TaskGroup group(context.get_executor());
    group.spawn("task", task());
    asio::post(context, [&] { group.cancel(); });
    std::string failure;
    asio::co_spawn(context, group.join(), [&](std::exception_ptr error) {
        try {
            if (error) std::rethrow_exception(error);
        } catch (const std::exception& caught) {
            failure = caught.what();
        }
    });
    context.run();
    return failure;
}

}  // namespace

TEST(task_group, a_task_that_is_cancelled_between_two_operations_has_not_failed) {
    EXPECT_EQ(failure_of(go_round_and_round), "");
}

TEST(task_group, the_failure_of_a_task_is_thrown_when_it_is_joined) {
    EXPECT_EQ(failure_of(fail), "broken");
}
