#pragma once

#include <memory>
#include <rqxx/redis/client.hpp>
#include <string_view>
#include <vector>

#include "runtime/execution.hpp"
#include "runtime/process_watch.hpp"

namespace rqxx::runtime {

/// How a function runs: a rule that says where comes first; then a function that is given a command
/// or URL runs by that, a registered native handler in a thread or process, and everything else in
/// Python where there is one.
struct Way {
    FunctionRule::Place place;  ///< Never `any`; `thread` also where nothing can run it.
    ResourceLimits limits;
    const FunctionRule* rule = nullptr;      ///< Of the options, where one fits.
    std::optional<Aggregation> aggregate{};  ///< Its function takes a list of jobs.
};
[[nodiscard]] Way way_of(const Call& call, const WorkerOptions& options,
                         const HandlerRegistry& handlers);

/// All the ways in which a worker runs jobs.
class Executors final : public Executor {
public:
    Executors(RedisClient& redis, const HandlerRegistry& handlers, const WorkerOptions& options,
              const std::string& worker, Logger& log, Events events);
    ~Executors() override;
    boost::asio::awaitable<void> prepare() override;
    [[nodiscard]] bool available() const override;
    void close() override;
    /// Where it runs: thread, process, python, command or http; empty before it has begun.
    [[nodiscard]] std::string_view name_of(const Execution& execution) const noexcept;
    /// How many jobs a call takes; none: one at a time.
    [[nodiscard]] std::optional<Aggregation> aggregation_of(const Call& call) const;
    /// Whether any function takes a list of jobs.
    [[nodiscard]] bool aggregate() const { return aggregate_; }
    void start(std::shared_ptr<Execution> execution) override;
    void interrupt(const std::shared_ptr<Execution>& execution, StopReason reason) override;
    bool kill(const std::shared_ptr<Execution>& execution) override;
    void abandon(const std::shared_ptr<Execution>& execution) override;

private:
    template <class T, class... Args>
    T* add(Args&&... args);
    [[nodiscard]] Executor& executor_of(FunctionRule::Place place) const;

    const HandlerRegistry& handlers_;
    const WorkerOptions& options_;
    const bool aggregate_;
    std::shared_ptr<ProcessWatch> watch_;
    std::vector<std::unique_ptr<Executor>> all_;
    // Null where nothing can need it.
    Executor* commands_ = nullptr;
    Executor* http_ = nullptr;
    Executor* threads_ = nullptr;
    Executor* processes_ = nullptr;
    Executor* python_ = nullptr;
};

}  // namespace rqxx::runtime
