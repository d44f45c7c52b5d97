#pragma once

#include <boost/asio/awaitable.hpp>
#include <filesystem>
#include <functional>
#include <memory>
#include <rqxx/http/router.hpp>
#include <rqxx/log.hpp>
#include <rqxx/queue.hpp>
#include <rqxx/worker.hpp>
#include <string>

namespace rqxx {

/// What an application gets from the command line.
struct ApplicationSettings {
    std::filesystem::path data_dir;
    std::filesystem::path packages_dir;  ///< Empty: the application's default.
    bool legacy_evaluate = true;
};

/// What an application adds to the `rqxx` program: functions for workers, routes for the server.
class Application {
public:
    virtual ~Application() = default;
    virtual void register_handlers(HandlerRegistry& handlers) = 0;
    virtual void register_routes(http::Router& router, OptimizedQueue& queue) = 0;
    /// Makes sample data where there is none, and puts some of it to work.
    virtual boost::asio::awaitable<void> run_demo(OptimizedQueue& queue) = 0;
};

using ApplicationFactory = std::function<std::unique_ptr<Application>(const ApplicationSettings&)>;

/// The whole command line of `rqxx`, with an application built in. Returns the exit code:
/// 0 success, 1 the operation failed, 2 usage.
int run_command_line(int argc, char** argv, const ApplicationFactory& make_application);

}  // namespace rqxx
