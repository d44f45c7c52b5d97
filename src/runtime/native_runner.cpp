#include "runtime/native_runner.hpp"

#include <cxxabi.h>
#include <fmt/format.h>

#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <new>

namespace rqxx::runtime {
namespace {

std::string type_name(const std::exception& error) {
    int status = 0;
    const std::unique_ptr<char, void (*)(void*)> name(
        abi::__cxa_demangle(typeid(error).name(), nullptr, nullptr, &status), std::free);
    return status == 0 ? name.get() : typeid(error).name();
}

RunOutcome failure(const Execution& execution, std::string_view type, std::string_view message) {
    // RQ keeps a Python traceback here; its last line is what people and tools read.
    const std::string line = fmt::format("{}: {}", type, message);
    return {.kind = RunOutcome::Kind::failure,
            .payload =
                encode_exc_string(fmt::format("Traceback (most recent call last):\n"
                                              "  Native handler of {}, rqxx " RQXX_VERSION "\n{}\n",
                                              execution.call.func_name, line)),
            .error = line};
}

std::string timeout_text(std::int64_t seconds) {
    return fmt::format("Task exceeded maximum timeout value ({} seconds)", seconds);
}

class Context final : public JobContext {
public:
    using Deadline = std::optional<std::chrono::steady_clock::time_point>;

    Context(Execution& execution, std::stop_token stop, Deadline deadline, Logger& log,
            const NativeRunner::Hooks& hooks)
        : execution_(execution),
          stop_(std::move(stop)),
          deadline_(deadline),
          log_(log),
          hooks_(hooks) {}
    const Job& job() const noexcept override { return execution_.job; }
    const std::string& execution_id() const noexcept override { return execution_.id; }
    std::stop_token stop_token() const noexcept override { return stop_; }
    Deadline deadline() const noexcept override { return deadline_; }
    void progress(double fraction, std::string text) override {
        boost::json::object state{
            {"fraction", std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) : 0.0}};
        if (!text.empty()) state["text"] = text;
        hooks_.on_progress(execution_, boost::json::serialize(state));
    }
    void print(std::string_view text) override { hooks_.on_print(execution_, text); }
    Logger& log() noexcept override { return log_; }

private:
    Execution& execution_;
    std::stop_token stop_;
    Deadline deadline_;  ///< A copy: the execution's own belongs to the worker's executor.
    Logger& log_;
    const NativeRunner::Hooks& hooks_;
};

RunOutcome time_limit(const Execution& execution) {
    auto outcome = failure(execution, "rq.timeouts.JobTimeoutException",
                           timeout_text(execution.job.timeout.value_or(180)));
    outcome.cause = "time limit (soft)";
    return outcome;
}

RunOutcome retry(const Execution& execution, const Retry& asked) {
    const auto used = static_cast<std::size_t>(
        std::max<std::int64_t>(execution.job.number_of_retries.value_or(0), 0));
    const auto& intervals = asked.intervals;
    // Source: rq/job.py Retry.get_interval (RQ 2.10).
    const auto wait = intervals.empty() ? std::chrono::seconds(0)
                                        : intervals[std::min(used, intervals.size() - 1)];
    std::vector<std::int64_t> seconds;
    seconds.reserve(intervals.size());
    for (const auto interval : intervals)
        seconds.push_back(interval.count());
    return {.kind = RunOutcome::Kind::retry,
            .payload = fmt::format(
                "{} {} {}", asked.max, wait.count(),
                encode_retry(asked.max, seconds, asked.enqueue_at_front, execution.serializer)),
            .error = "the function asked for a retry"};
}

}  // namespace

RunOutcome NativeRunner::run(const std::shared_ptr<Execution>& execution) const {
    const Job& job = execution->job;
    for (const auto* name :
         {&job.success_callback_name, &job.failure_callback_name, &job.stopped_callback_name}) {
        if (callbacks_ == CallbackPolicy::require && !name->empty() &&
            handlers_.find_callback(*name) == nullptr)
            return failure(*execution, "rqxx.UnknownCallback",
                           fmt::format("no native callback is registered for {}", *name));
    }
    Value result;
    RunOutcome outcome = call(*execution, result);
    switch (execution->stop_reason.load()) {
        case StopReason::stopped:
            call_back(execution, job.stopped_callback_name, job.stopped_callback_timeout,
                      {CallbackEvent::Kind::stopped, {}, {}});
            return ended_by_force(*execution);
        case StopReason::killed:
            return ended_by_force(*execution);
        case StopReason::canceled:
        case StopReason::lease_lost:
        case StopReason::shutdown:
            return outcome;
        case StopReason::none:
        case StopReason::time_limit:
            break;
    }
    if (outcome.kind == RunOutcome::Kind::success) {
        if (auto failed =
                call_back(execution, job.success_callback_name, job.success_callback_timeout,
                          {CallbackEvent::Kind::success, std::move(result), {}}))
            outcome = std::move(*failed);
        if (execution->stop_reason == StopReason::stopped) {  // Meanwhile: as RQ.
            call_back(execution, job.stopped_callback_name, job.stopped_callback_timeout,
                      {CallbackEvent::Kind::stopped, {}, {}});
            return ended_by_force(*execution);
        }
    }
    if (outcome.kind == RunOutcome::Kind::failure) {
        if (auto failed =
                call_back(execution, job.failure_callback_name, job.failure_callback_timeout,
                          {CallbackEvent::Kind::failure, {}, outcome.error}))
            outcome = std::move(*failed);
    }
    return outcome;
}

RunOutcome NativeRunner::call(Execution& execution, Value& result) const {
    Context context(execution, execution.stop.get_token(), execution.function_deadline, log_,
                    hooks_);
    const auto timed_out = [&] { return execution.stop_reason == StopReason::time_limit; };
    try {
        const auto* handler = handlers_.find(execution.call.func_name);
        if (handler == nullptr)
            return failure(
                execution, "rqxx.UnknownFunction",
                fmt::format("no native handler is registered for {}", execution.call.func_name));
        if (!execution.call.instance.is_none())
            return failure(execution, "rqxx.UnsupportedCall",
                           "a native handler cannot run a method of an object");
        result = (*handler)(context, execution.call);
        if (timed_out()) return time_limit(execution);
        return {.kind = RunOutcome::Kind::success,
                .payload = encode_return_value(result, execution.serializer),
                .error = {}};
    } catch (const RetryRequest& request) {
        if (timed_out()) return time_limit(execution);
        return retry(execution, request.retry());
    } catch (const std::bad_alloc& error) {
        auto outcome = failure(execution, type_name(error), error.what());
        if (execution.limits.max_rss) outcome.cause = "memory limit";
        return outcome;
    } catch (const std::exception& error) {
        if (timed_out()) return time_limit(execution);
        return failure(execution, type_name(error), error.what());
    } catch (...) {
        return failure(execution, "unknown",
                       "the handler threw something that is not a std::exception");
    }
}

/// Runs a callback, if the job has one. What it throws, or its overrun, as a failure.
std::optional<RunOutcome> NativeRunner::call_back(const std::shared_ptr<Execution>& execution,
                                                  const std::string& name,
                                                  std::optional<std::int64_t> timeout,
                                                  const CallbackEvent& event) const {
    if (name.empty()) return std::nullopt;
    const auto* callback = handlers_.find_callback(name);
    if (callback == nullptr) {
        log_.warning("Callback skipped", "id", execution->job.id, "callback", name, "reason",
                     "it is not registered here");
        return std::nullopt;
    }
    const std::chrono::seconds limit(timeout.value_or(60));
    hooks_.on_callback(execution, limit);
    // A callback before this one may have used up the first one's time.
    Context context(*execution, execution->callback_stop.get_token(),
                    std::chrono::steady_clock::now() + limit, log_, hooks_);
    std::optional<RunOutcome> failed;
    try {
        (*callback)(context, event);
    } catch (const std::exception& error) {
        failed = failure(*execution, type_name(error), error.what());
    } catch (...) {
        failed = failure(*execution, "unknown",
                         "the callback threw something that is not a std::exception");
    }
    if (execution->callback_overran)
        failed =
            failure(*execution, "rq.timeouts.JobTimeoutException", timeout_text(limit.count()));
    if (failed && event.kind == CallbackEvent::Kind::stopped)
        log_.error("Callback failed", "id", execution->job.id, "callback", name, "error",
                   failed->error);
    return failed;
}

std::string NativeRunner::call_stopped_callback(const std::shared_ptr<Execution>& execution) const {
    const Job& job = execution->job;
    const auto failed =
        call_back(execution, job.stopped_callback_name, job.stopped_callback_timeout,
                  {CallbackEvent::Kind::stopped, {}, {}});
    return failed ? failed->error : std::string();
}

}  // namespace rqxx::runtime
