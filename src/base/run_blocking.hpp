#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <type_traits>

namespace rqxx {

/// Runs `function` on the pool and comes back: files must not hold up the thread that serves all.
template <class Function>
boost::asio::awaitable<void> run_blocking(boost::asio::thread_pool& pool, Function function) {
    const auto here = co_await boost::asio::this_coro::executor;
    co_await boost::asio::post(pool, boost::asio::use_awaitable);
    std::exception_ptr failure;
    try {
        function();
    } catch (...) {
        failure = std::current_exception();
    }
    co_await boost::asio::post(here, boost::asio::use_awaitable);
    if (failure) std::rethrow_exception(failure);
}

}  // namespace rqxx
