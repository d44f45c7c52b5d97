#pragma once

#include <memory>
#include <rqxx/redis/client.hpp>

#include "runtime/execution.hpp"

namespace rqxx::runtime {

/// All the ways in which a worker runs jobs, and which of them runs what: a registered native
/// handler in a thread, everything else in Python where there is one.
class Executors final : public Executor {
public:
    Executors(RedisClient& redis, const HandlerRegistry& handlers, const WorkerOptions& options,
              const std::string& worker, Logger& log, Events events);
    boost::asio::awaitable<void> prepare() override;
    void close() override;
    void start(std::shared_ptr<Execution> execution) override;
    void interrupt(const std::shared_ptr<Execution>& execution, StopReason reason) override;
    bool kill(const std::shared_ptr<Execution>& execution) override;
    void abandon(const std::shared_ptr<Execution>& execution) override;

private:
    const HandlerRegistry& handlers_;
    std::unique_ptr<Executor> threads_;
    std::unique_ptr<Executor> python_;  ///< May be null.
};

}  // namespace rqxx::runtime
