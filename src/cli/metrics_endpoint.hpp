#pragma once

#include <boost/asio/awaitable.hpp>
#include <rqxx/http/router.hpp>
#include <rqxx/http/server.hpp>
#include <rqxx/log.hpp>
#include <rqxx/redis/client.hpp>
#include <rqxx/worker.hpp>
#include <string>

#include "http/access.hpp"
#include "http/api.hpp"
#include "runtime/redis_pulse.hpp"

namespace rqxx::cli {

/// A worker's own `/metrics` and `/healthz`: what only its process knows.
///
/// Everything given by reference outlives it.
class MetricsEndpoint {
public:
    struct Options {
        std::string host;
        unsigned short port = 0;
        std::string token;
        bool functions = false;
    };
    /// Listens. @throws Error as `http::Server::listen`.
    MetricsEndpoint(RedisClient& redis, Worker& worker, Options options, Logger& log);
    /// Serves until `stop`.
    boost::asio::awaitable<void> run();
    void stop() { server_.stop(std::chrono::milliseconds(0)); }

private:
    http::Router router_;
    http::Metrics metrics_;
    runtime::RedisPulse pulse_;
    http::Access access_;
    http::Server server_;
    boost::asio::any_io_executor executor_;
};

}  // namespace rqxx::cli
