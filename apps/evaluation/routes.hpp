#pragma once

#include <boost/asio/thread_pool.hpp>
#include <rqxx/http/router.hpp>
#include <rqxx/queue.hpp>

#include "evaluation/packages.hpp"
#include "evaluation/store.hpp"

namespace evaluation {

/// The application's part of the HTTP API. Everything given outlives the router.
/// `blocking`: where calls that wait for files are made.
void add_routes(rqxx::http::Router& router, Store& store, const Packages& packages,
                rqxx::OptimizedQueue& queue, boost::asio::thread_pool& blocking,
                bool legacy_evaluate);

}  // namespace evaluation
