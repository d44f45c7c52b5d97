#pragma once

#include <memory>
#include <rqxx/redis/client.hpp>

#include "runtime/execution.hpp"

namespace rqxx::runtime {

class HttpExecutor;

/// All the ways in which a worker runs jobs, and which of them runs what: by HTTP what has been
/// told so, a registered native handler in a thread, everything else in Python where there is one.
class Executors final : public Executor {
public:
    Executors(RedisClient& redis, const HandlerRegistry& handlers, const WorkerOptions& options,
              const std::string& worker, Logger& log, Events events);
    ~Executors() override;
    boost::asio::awaitable<void> prepare() override;
    void close() override;
    void start(std::shared_ptr<Execution> execution) override;
    void interrupt(const std::shared_ptr<Execution>& execution, StopReason reason) override;
    bool kill(const std::shared_ptr<Execution>& execution) override;
    void abandon(const std::shared_ptr<Execution>& execution) override;

private:
    [[nodiscard]] Executor* choose(const Call& call) const;

    const HandlerRegistry& handlers_;
    std::unique_ptr<HttpExecutor> http_;  ///< May be null.
    std::unique_ptr<Executor> threads_;
    std::unique_ptr<Executor> python_;  ///< May be null.
};

}  // namespace rqxx::runtime
