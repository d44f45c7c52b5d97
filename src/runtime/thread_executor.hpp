#pragma once

#include <memory>

#include "runtime/execution.hpp"

namespace rqxx::runtime {

/// Native handlers in threads, one per running job, started when needed and kept.
///
/// A thread whose execution was abandoned ends when its handler returns, if ever; it shares the
/// pool's state, never the worker's.
class ThreadExecutor final : public Executor {
public:
    ThreadExecutor(boost::asio::any_io_executor executor, const HandlerRegistry& handlers,
                   CallbackPolicy callbacks, Logger& log, Events events);
    ~ThreadExecutor() override;
    void start(std::shared_ptr<Execution> execution) override;
    void abandon(const std::shared_ptr<Execution>& execution) override;

private:
    struct Pool;
    std::shared_ptr<Pool> pool_;  // with threads that may outlive this object
};

}  // namespace rqxx::runtime
