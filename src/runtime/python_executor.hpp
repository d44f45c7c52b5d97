#pragma once

#include <memory>
#include <rqxx/redis/client.hpp>

#include "runtime/execution.hpp"

namespace rqxx::runtime {

/// Python functions, each job in one of the warm processes ("slots") that a zygote with the modules
/// imported is forked into. See python/executor.py for the other side.
///
/// A slot runs one job after the other. It is killed where a job has to be stopped, and replaced.
class PythonExecutor final : public Executor {
public:
    /// `worker` and `redis` are what jobs see of their surroundings.
    PythonExecutor(boost::asio::any_io_executor executor, PythonOptions options, std::string worker,
                   const RedisOptions& redis, Logger& log, Events events);
    ~PythonExecutor() override;
    /// Starts the interpreter. @throws Error `Errc::usage` when it or a module cannot be loaded.
    boost::asio::awaitable<void> prepare() override;
    void close() override;
    void start(std::shared_ptr<Execution> execution) override;
    void interrupt(const std::shared_ptr<Execution>& execution, StopReason reason) override;
    void abandon(const std::shared_ptr<Execution>& execution) override;

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // with coroutines that may outlive this object
};

}  // namespace rqxx::runtime
