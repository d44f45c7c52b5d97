#pragma once

#include <memory>
#include <vector>

#include "runtime/slot_executor.hpp"

namespace rqxx::runtime {

/// Functions that are programs: each job is a process, which gets the job as JSON on its stdin
/// (see job_document.hpp), and answers with the last line of its stdout and its exit status.
class CommandExecutor final : public Executor {
public:
    /// @throws Error `Errc::usage` for a command that cannot be run.
    CommandExecutor(boost::asio::any_io_executor executor, std::vector<CommandFunction> functions,
                    CallbackPolicy callbacks, ProcessTools tools, Logger& log, Events events);
    ~CommandExecutor() override;
    void close() override;
    void start(std::shared_ptr<Execution> execution) override;
    void interrupt(const std::shared_ptr<Execution>& execution, StopReason reason) override;
    bool kill(const std::shared_ptr<Execution>& execution) override;
    void abandon(const std::shared_ptr<Execution>& execution) override;

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // with coroutines that may outlive this object
};

}  // namespace rqxx::runtime
