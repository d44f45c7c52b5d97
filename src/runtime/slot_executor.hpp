#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "runtime/execution.hpp"
#include "runtime/guardian.hpp"
#include "runtime/process_watch.hpp"

namespace rqxx::runtime {

/// What is particular to a kind of process that jobs run in.
struct ZygoteKind {
    std::string name;  ///< For the log.
    /// Starts a zygote that obeys `control`. @throws Error
    std::function<pid_t(int control)> spawn;
    std::string greeting;  ///< The first datagram that it gets.
    std::string
        serializer{};  ///< Of all its jobs, by a name that the slots know; empty: each job's own.
    bool one_job_each = false;  ///< A slot ends after a job.
    /// Its slots take a request to stop; those of others are killed at once.
    bool listens = false;
    /// What is stored of a job whose process ended, by its status where that is known.
    std::function<std::string(std::optional<int> status)> died;
};

/// What the executors of a worker share.
struct ProcessTools {
    std::string worker;  ///< Its name.
    Recycling recycling;
    std::size_t max_output = 0;
    bool forward_output = false;
    std::shared_ptr<Guardian> guardian;
    std::shared_ptr<ProcessWatch> watch;
};

/// Runs each job in one of the warm processes ("slots") that a zygote, a process in which all is
/// loaded, is forked into. python/executor.py and native_zygote.cpp have the other side.
///
/// A slot runs one job after the other. It is killed where a job has to be ended, and replaced.
class SlotExecutor final : public Executor {
public:
    SlotExecutor(boost::asio::any_io_executor executor, ZygoteKind kind, ProcessTools tools,
                 Logger& log, Events events);
    ~SlotExecutor() override;
    /// Starts the zygote. @throws Error `Errc::usage` when it or a module cannot be loaded.
    boost::asio::awaitable<void> prepare() override;
    [[nodiscard]] bool available() const override;
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
