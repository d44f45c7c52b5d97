#include "base/task_group.hpp"

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <rqxx/error.hpp>

using namespace rqxx;
namespace asio = boost::asio;

namespace {

/// Its waits cannot be interrupted: a cancellation always comes between two of them.
asio::awaitable<void> go_on(asio::any_io_executor executor) {
    for (;;)
        co_await asio::post(executor, asio::use_awaitable);
}

asio::awaitable<void> fail() {
    throw Error(Errc::io, "broken");
    co_return;
}

/// What `join` throws, as text.
asio::awaitable<std::string> outcome_of(TaskGroup& group) {
    try {
        co_await group.join();
    } catch (const std::exception& error) {
        co_return error.what();
    }
    co_return "";
}

std::string run(std::function<void(TaskGroup&, asio::any_io_executor)> start) {
    asio::io_context context(1);
    TaskGroup group(context.get_executor());
    std::string outcome = "it hangs";
    start(group, context.get_executor());
    asio::co_spawn(context, outcome_of(group),
                   [&](const std::exception_ptr&, std::string text) { outcome = std::move(text); });
    context.run();
    return outcome;
}

}  // namespace

TEST(task_group, a_task_that_is_cancelled_between_two_waits_has_not_failed) {
    EXPECT_EQ(run([](TaskGroup& group, const asio::any_io_executor& executor) {
                  group.spawn("one", go_on(executor));
                  group.spawn("two", go_on(executor));
                  group.cancel();
              }),
              "");
}

TEST(task_group, the_first_failure_ends_the_others_and_is_told) {
    EXPECT_EQ(run([](TaskGroup& group, const asio::any_io_executor& executor) {
                  group.spawn("one", go_on(executor));
                  group.spawn("two", fail());
              }),
              "broken");
}
