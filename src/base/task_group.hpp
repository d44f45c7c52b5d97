#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/steady_timer.hpp>
#include <exception>
#include <list>
#include <memory>
#include <string>

namespace rqxx {

/// Wakes coroutines that wait for something to change. All on one executor.
class Event {
public:
    explicit Event(boost::asio::any_io_executor executor) : executor_(std::move(executor)) {}
    /// Wakes whoever waits now.
    void notify();
    /// Returns true when notified, false when `timeout` has passed.
    boost::asio::awaitable<bool> wait(std::chrono::steady_clock::duration timeout);
    boost::asio::awaitable<void> wait();

private:
    boost::asio::any_io_executor executor_;
    std::list<boost::asio::steady_timer*> waiting_;
};

/// Coroutines that end together: the owner's way to start something without losing sight of it.
///
/// The first failure is kept and the others are cancelled. `Cancelled` is no failure, nor is Asio's
/// own word for it where this group has asked a task to end.
/// Use from the executor only; outlives its tasks by way of `join`.
class TaskGroup {
public:
    explicit TaskGroup(boost::asio::any_io_executor executor);
    ~TaskGroup();
    TaskGroup(const TaskGroup&) = delete;
    TaskGroup& operator=(const TaskGroup&) = delete;

    void spawn(std::string name, boost::asio::awaitable<void> task);
    /// Asks all tasks to end at their next suspension.
    void cancel();
    /// Waits until all have ended, then throws the first failure.
    boost::asio::awaitable<void> join();
    [[nodiscard]] std::size_t size() const noexcept { return tasks_.size(); }
    /// Names of the tasks still running.
    [[nodiscard]] std::string names() const;

private:
    struct Task {
        std::string name;
        boost::asio::cancellation_signal stop;
        bool cancelled = false;
    };
    boost::asio::any_io_executor executor_;
    Event ended_;
    std::list<Task> tasks_;
    std::exception_ptr failure_;
};

}  // namespace rqxx
