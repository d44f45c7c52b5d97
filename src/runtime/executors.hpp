#pragma once

#include <memory>
#include <rqxx/redis/client.hpp>
#include <vector>

#include "runtime/execution.hpp"
#include "runtime/process_watch.hpp"

namespace rqxx::runtime {

/// All the ways in which a worker runs jobs, and which of them runs what: a function that is given
/// a command, that; a registered native handler in a thread or process; everything else in Python
/// where there is one.
class CommandExecutor;

class Executors final : public Executor {
public:
    Executors(RedisClient& redis, const HandlerRegistry& handlers, const WorkerOptions& options,
              const std::string& worker, Logger& log, Events events);
    ~Executors() override;
    boost::asio::awaitable<void> prepare() override;
    [[nodiscard]] bool available() const override;
    void close() override;
    void start(std::shared_ptr<Execution> execution) override;
    void interrupt(const std::shared_ptr<Execution>& execution, StopReason reason) override;
    bool kill(const std::shared_ptr<Execution>& execution) override;
    void abandon(const std::shared_ptr<Execution>& execution) override;

private:
    [[nodiscard]] Executor& executor_of(const Call& call) const;

    const HandlerRegistry& handlers_;
    const ResourceLimits limits_;
    const std::size_t max_output_;
    std::shared_ptr<ProcessWatch> watch_;
    std::vector<std::unique_ptr<Executor>> all_;
    CommandExecutor* commands_ = nullptr;  ///< May be null.
    Executor* native_ = nullptr;
    Executor* python_ = nullptr;  ///< May be null.
};

}  // namespace rqxx::runtime
