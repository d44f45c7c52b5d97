#pragma once

#include <functional>
#include <string_view>

#include "runtime/execution.hpp"

namespace rqxx::runtime {

/// Calls registered handlers and callbacks, in the thread of who asks.
///
/// Thread safety: any number of threads. Everything given by reference outlives it.
class NativeRunner {
public:
    /// Called in the thread of the handler.
    struct Hooks {
        /// A callback with this time limit begins.
        std::function<void(const std::shared_ptr<Execution>&, std::chrono::seconds)> on_callback;
        std::function<void(Execution&, std::string json)> on_progress;
        std::function<void(Execution&, std::string_view text)> on_print;
    };

    NativeRunner(const HandlerRegistry& handlers, CallbackPolicy callbacks, Logger& log,
                 Hooks hooks)
        : handlers_(handlers), callbacks_(callbacks), log_(log), hooks_(std::move(hooks)) {}
    [[nodiscard]] RunOutcome run(const std::shared_ptr<Execution>& execution) const;
    using Report = std::function<void(const std::shared_ptr<Execution>&, RunOutcome)>;
    /// The jobs of one call of an aggregated handler, but for those that are to end already. Each
    /// is reported as soon as its outcome is known, in this thread.
    void run_together(const std::vector<std::shared_ptr<Execution>>& jobs,
                      const Report& report) const;
    /// Of a job that was stopped in another process; the error of the callback, or nothing.
    [[nodiscard]] std::string call_stopped_callback(
        const std::shared_ptr<Execution>& execution) const;

private:
    [[nodiscard]] std::optional<RunOutcome> refuse(const Execution& execution) const;
    RunOutcome call(Execution& execution, Value& result) const;
    [[nodiscard]] RunOutcome call_back(const std::shared_ptr<Execution>& execution,
                                       RunOutcome outcome, Value result) const;
    /// Runs a callback, if the job has one. What it throws, or its overrun, as a failure.
    std::optional<RunOutcome> call_back(const std::shared_ptr<Execution>& execution,
                                        const std::string& name,
                                        std::optional<std::int64_t> timeout,
                                        const CallbackEvent& event) const;

    const HandlerRegistry& handlers_;
    const CallbackPolicy callbacks_;
    Logger& log_;
    const Hooks hooks_;
};

}  // namespace rqxx::runtime
