#pragma once

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <rqxx/error.hpp>
#include <utility>

namespace rqxx {

/// Runs `function` on the pool and comes back: files must not hold up the thread that serves all.
/// It is not interrupted. @throws Cancelled  afterwards, where the caller was cancelled meanwhile.
template <class Function>
boost::asio::awaitable<void> run_blocking(boost::asio::thread_pool& pool, Function function) {
    namespace asio = boost::asio;
    // To `post` to the pool and await that would not do: Asio resumes a coroutine on its own
    // executor.
    co_await asio::async_initiate<const asio::use_awaitable_t<>, void(std::exception_ptr)>(
        [&pool](auto handler, Function work) {
            auto guard = asio::make_work_guard(asio::get_associated_executor(handler));
            asio::post(pool, [handler = std::move(handler), work = std::move(work),
                              guard = std::move(guard)]() mutable {
                std::exception_ptr failure;
                try {
                    work();
                } catch (...) {
                    failure = std::current_exception();
                }
                asio::post(guard.get_executor(), [handler = std::move(handler), failure]() mutable {
                    std::move(handler)(failure);
                });
            });
        },
        asio::use_awaitable, std::move(function));
    const auto state = co_await asio::this_coro::cancellation_state;
    if (state.cancelled() != asio::cancellation_type::none) throw Cancelled();
}

}  // namespace rqxx
