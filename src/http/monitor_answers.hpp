#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>
#include <cstddef>
#include <rqxx/monitor.hpp>
#include <string>

/// What more than one route tells of the monitor, as in the contract.
namespace rqxx::http {

/// `GET /api/rq/stats`; `queue` is the one shown in `stats`. Four round trips.
boost::asio::awaitable<boost::json::object> stats_answer(Monitor& monitor, std::string queue);
/// `GET /api/rq/jobs/recent`; `queue`, `status`: empty for any.
boost::asio::awaitable<boost::json::object> recent_answer(Monitor& monitor, std::size_t limit,
                                                          std::string queue, std::string status);
/// `GET /api/rq/workers`.
boost::asio::awaitable<boost::json::object> workers_answer(Monitor& monitor);

}  // namespace rqxx::http
