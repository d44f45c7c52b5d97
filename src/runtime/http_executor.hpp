#pragma once

#include <memory>
#include <vector>

#include "runtime/execution.hpp"

namespace rqxx::runtime {

/// Functions that a server runs: each job is a POST. All on the worker's executor; a request that
/// takes long holds up nothing. A job that is to stop ends at once, whatever the server does.
class HttpExecutor final : public Executor {
public:
    /// @throws Error `Errc::usage` for a function without a name or URL.
    HttpExecutor(boost::asio::any_io_executor executor, const std::vector<HttpFunction>& functions,
                 std::size_t concurrency, CallbackPolicy callbacks, Logger& log, Events events);
    ~HttpExecutor() override;
    boost::asio::awaitable<void> prepare() override;
    void close() override;
    void start(std::shared_ptr<Execution> execution) override;
    void interrupt(const std::shared_ptr<Execution>& execution, StopReason reason) override;
    void abandon(const std::shared_ptr<Execution>& execution) override;

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // with requests that end after `close`
};

}  // namespace rqxx::runtime
