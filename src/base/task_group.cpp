#include "base/task_group.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>
#include <cassert>
#include <rqxx/error.hpp>

namespace rqxx {

namespace asio = boost::asio;

void Event::notify() {
    for (auto* timer : waiting_)
        timer->cancel();
}

asio::awaitable<bool> Event::wait(std::chrono::steady_clock::duration timeout) {
    asio::steady_timer timer(executor_, timeout);
    waiting_.push_back(&timer);
    const auto entry = std::prev(waiting_.end());
    const auto [error] = co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
    waiting_.erase(entry);
    const auto cancellation = co_await asio::this_coro::cancellation_state;
    if (cancellation.cancelled() != asio::cancellation_type::none) throw Cancelled();
    co_return static_cast<bool>(error);
}

asio::awaitable<void> Event::wait() {
    co_await wait(std::chrono::hours(24 * 365));
}

TaskGroup::TaskGroup(asio::any_io_executor executor) : executor_(executor), ended_(executor) {}

TaskGroup::~TaskGroup() {
    assert(tasks_.empty() && "join() before the group goes away");
}

void TaskGroup::spawn(std::string name, asio::awaitable<void> task) {
    const auto it = tasks_.emplace(tasks_.end());
    it->name = std::move(name);
    asio::co_spawn(
        executor_, std::move(task),
        asio::bind_cancellation_slot(it->stop.slot(), [this, it](std::exception_ptr failure) {
            const bool cancelled = it->cancelled;
            tasks_.erase(it);
            if (failure) {
                try {
                    std::rethrow_exception(failure);
                } catch (const Cancelled&) {
                    failure = nullptr;
                } catch (const boost::system::system_error& error) {
                    // Cancelled between two waits, a coroutine gets this from the next.
                    if (cancelled && error.code() == asio::error::operation_aborted)
                        failure = nullptr;
                } catch (...) {
                }
            }
            if (failure && !failure_) {
                failure_ = failure;
                cancel();
            }
            ended_.notify();
        }));
}

void TaskGroup::cancel() {
    // A signal runs its handlers at once, and they may end tasks: the list must not change under
    // us.
    for (auto& task : tasks_) {
        asio::post(executor_, [this, id = &task] {
            for (auto& candidate : tasks_) {
                if (&candidate == id) {
                    candidate.cancelled = true;
                    candidate.stop.emit(asio::cancellation_type::all);
                    return;
                }
            }
        });
    }
}

asio::awaitable<void> TaskGroup::join() {
    while (!tasks_.empty())
        co_await ended_.wait();
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

std::string TaskGroup::names() const {
    std::string text;
    for (const auto& task : tasks_)
        text += (text.empty() ? "" : ", ") + task.name;
    return text;
}

}  // namespace rqxx
