#include "runtime/native_runner.hpp"

#include <cxxabi.h>
#include <fmt/format.h>

#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <new>
#include <tuple>

namespace rqxx::runtime {

using namespace std::chrono_literals;

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
    auto outcome =
        failure(execution, "rq.timeouts.JobTimeoutException", timeout_text(execution.time_limit));
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

RunOutcome success(const Execution& execution, const Value& result) {
    return {.kind = RunOutcome::Kind::success,
            .payload = encode_return_value(result, execution.serializer),
            .error = {}};
}

/// What becomes of a job whose function has thrown what is being handled.
RunOutcome thrown_in(const Execution& execution, bool over_time) {
    try {
        throw;
    } catch (const RetryRequest& request) {
        if (over_time) return time_limit(execution);
        return retry(execution, request.retry());
    } catch (const RateLimited& told) {
        if (over_time) return time_limit(execution);
        return rate_limited(told.delay(), told.what());
    } catch (const std::bad_alloc& error) {
        auto outcome = failure(execution, type_name(error), error.what());
        if (execution.limits.max_rss) outcome.cause = "memory limit";
        return outcome;
    } catch (const std::exception& error) {
        if (over_time) return time_limit(execution);
        return failure(execution, type_name(error), error.what());
    } catch (...) {
        return failure(execution, "unknown",
                       "the handler threw something that is not a std::exception");
    }
}

RunOutcome thrown_in(const Execution& execution, const std::exception_ptr& error, bool over_time) {
    try {
        std::rethrow_exception(error);
    } catch (...) {
        return thrown_in(execution, over_time);
    }
}

/// Of a job that an aggregated handler has not answered for.
RunOutcome unanswered(const Execution& execution, const std::exception_ptr& thrown,
                      bool over_time) {
    if (thrown) return thrown_in(execution, thrown, over_time);
    if (over_time) return time_limit(execution);
    return failure(execution, "rqxx.NoAnswer", "the handler gave no answer for this job");
}

/// When the time of a call was over: its jobs hear of it one after the other, and the first that
/// does wakes the handler.
std::optional<std::chrono::steady_clock::time_point> over_since(
    const std::vector<std::shared_ptr<Execution>>& jobs) {
    std::optional<std::chrono::steady_clock::time_point> first;
    for (const auto& job : jobs) {
        const auto ticks = job->over_since.load();
        if (ticks == 0) continue;
        const std::chrono::steady_clock::time_point at{std::chrono::steady_clock::duration(ticks)};
        first = std::min(first.value_or(at), at);
    }
    return first;
}

bool is_to_end(const Execution& execution) {
    return execution.stop_reason != StopReason::none &&
           execution.stop_reason != StopReason::time_limit;
}

/// How long one job's callbacks may take.
std::chrono::seconds longest_callbacks(const Job& job) {
    std::int64_t longest = 0;
    for (const auto& [name, timeout] :
         {std::pair{&job.success_callback_name, job.success_callback_timeout},
          {&job.failure_callback_name, job.failure_callback_timeout},
          {&job.stopped_callback_name, job.stopped_callback_timeout}})
        if (!name->empty()) longest += std::clamp<std::int64_t>(timeout.value_or(60), 1, 86400);
    return std::chrono::seconds(longest);
}

}  // namespace

RunOutcome NativeRunner::run(const std::shared_ptr<Execution>& execution) const {
    if (auto refused = refuse(*execution)) return std::move(*refused);
    Value result;
    RunOutcome outcome = call(*execution, result);
    return call_back(execution, std::move(outcome), std::move(result));
}

void NativeRunner::run_together(const std::vector<std::shared_ptr<Execution>>& jobs,
                                const Report& report) const {
    struct Member {
        std::shared_ptr<Execution> execution;
        Context context;
        Member(std::shared_ptr<Execution> one, Logger& log, const Hooks& hooks)
            : execution(std::move(one)),
              context(*execution, execution->stop.get_token(), execution->function_deadline, log,
                      hooks) {}
    };
    std::vector<std::unique_ptr<Member>> members;
    std::vector<AggregatedCall> calls;
    for (const auto& job : jobs) {
        if (auto refused = refuse(*job))
            report(job, std::move(*refused));
        else if (is_to_end(*job))  // Before it could begin.
            report(job, call_back(job, ended_by_force(*job), {}));
        else
            members.push_back(std::make_unique<Member>(job, log_, hooks_));
    }
    if (members.empty()) return;
    for (const auto& member : members)
        calls.emplace_back(member->context, member->execution->call);
    std::exception_ptr thrown = nullptr;
    try {
        handlers_.find_aggregated(members.front()->execution->call.func_name)->handler(calls);
    } catch (...) {
        thrown = std::current_exception();
    }
    const auto over = over_since(jobs);
    // What calls nobody back is over; the others' callbacks come one after the other.
    std::vector<std::tuple<std::shared_ptr<Execution>, RunOutcome, Value>> rest;
    for (std::size_t i = 0; i < members.size(); ++i) {
        const auto& execution = members[i]->execution;
        const auto& answer = calls[i].given();
        RunOutcome outcome;
        Value result;
        if (answer && !answer->error) result = answer->result;
        if (answer && (!over || answer->at < *over))
            outcome = answer->error ? thrown_in(*execution, answer->error, false)
                                    : success(*execution, result);
        else
            outcome = unanswered(*execution, answer ? answer->error : thrown, over.has_value());
        if (longest_callbacks(execution->job) > 0s)
            rest.emplace_back(execution, std::move(outcome), std::move(result));
        else
            report(execution, call_back(execution, std::move(outcome), std::move(result)));
    }
    std::chrono::seconds limit{0};
    for (const auto& [execution, outcome, result] : rest) {
        limit += longest_callbacks(execution->job);
        hooks_.on_callback(execution, limit);
    }
    for (auto& [execution, outcome, result] : rest)
        report(execution, call_back(execution, std::move(outcome), std::move(result)));
}

/// A job that cannot run here.
std::optional<RunOutcome> NativeRunner::refuse(const Execution& execution) const {
    const Job& job = execution.job;
    for (const auto* name :
         {&job.success_callback_name, &job.failure_callback_name, &job.stopped_callback_name}) {
        if (callbacks_ == CallbackPolicy::require && !name->empty() &&
            handlers_.find_callback(*name) == nullptr)
            return failure(execution, "rqxx.UnknownCallback",
                           fmt::format("no native callback is registered for {}", *name));
    }
    return std::nullopt;
}

/// How the run ends whose function has ended so.
RunOutcome NativeRunner::call_back(const std::shared_ptr<Execution>& execution, RunOutcome outcome,
                                   Value result) const {
    const Job& job = execution->job;
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
    } catch (...) {
        return thrown_in(execution, execution.stop_reason == StopReason::time_limit);
    }
    return execution.stop_reason == StopReason::time_limit ? time_limit(execution)
                                                           : success(execution, result);
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
