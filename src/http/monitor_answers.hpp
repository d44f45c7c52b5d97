#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>
#include <cstddef>
#include <rqxx/http/router.hpp>
#include <rqxx/monitor.hpp>
#include <string>

/// What more than one route tells of the monitor, as in the contract; of that what `request` may be
/// told.
namespace rqxx::http {

/// `GET /api/rq/stats`; `queue` is the one shown in `stats`. Four round trips.
boost::asio::awaitable<boost::json::object> stats_answer(Monitor& monitor, const Request& request,
                                                         std::string queue);
/// `GET /api/rq/jobs/recent`; `queue`, `status`: empty for any.
boost::asio::awaitable<boost::json::object> recent_answer(Monitor& monitor, const Request& request,
                                                          std::size_t limit, std::string queue,
                                                          std::string status);
/// `GET /api/rq/workers`.
boost::asio::awaitable<boost::json::object> workers_answer(Monitor& monitor,
                                                           const Request& request);

}  // namespace rqxx::http
