#include "runtime/execution.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace rqxx::runtime {

std::vector<std::shared_ptr<Execution>> jobs_of_call(const std::shared_ptr<Execution>& execution) {
    if (!execution->shared) return {execution};
    std::vector<std::shared_ptr<Execution>> jobs;
    jobs.reserve(execution->shared->jobs.size());
    for (const auto& one : execution->shared->jobs) {
        if (auto job = one.lock()) jobs.push_back(std::move(job));
    }
    return jobs;
}

bool others_need_its_call(const Execution& execution) {
    if (!execution.shared) return false;
    for (const auto& one : execution.shared->jobs) {
        const auto other = one.lock();
        if (!other || other.get() == &execution || other->settled) continue;
        const StopReason reason = other->stop_reason;
        if (reason == StopReason::none || reason == StopReason::time_limit) return true;
    }
    return false;
}

RunOutcome rate_limited(std::chrono::seconds delay, std::string why) {
    return {.kind = RunOutcome::Kind::postponed,
            .payload = fmt::format("{} limit", std::max<std::int64_t>(delay.count(), 1)),
            .error = std::move(why)};
}

RunOutcome ended_by_force(const Execution& execution) {
    // Word for word as RQ's workers leave it, where RQ does. Source: rq/worker/worker_classes.py.
    switch (execution.stop_reason.load()) {
        case StopReason::stopped:
            return failed_with(RunOutcome::Kind::stopped,
                               "Job stopped by user, work-horse terminated.");
        case StopReason::killed:
            return failed_with(
                RunOutcome::Kind::failure,
                "Work-horse terminated unexpectedly; waitpid returned 9 (signal 9); ",
                "killed by command");
        default:
            return failed_with(
                RunOutcome::Kind::failure,
                fmt::format("rq.timeouts.JobTimeoutException: Task exceeded maximum timeout value "
                            "({} seconds)\n",
                            execution.time_limit),
                "time limit (hard)");
    }
}

RunOutcome failed_with(RunOutcome::Kind kind, std::string_view text, std::string cause) {
    std::string_view line = text;
    while (line.ends_with('\n'))
        line.remove_suffix(1);
    line = line.substr(line.rfind('\n') + 1);
    return {.kind = kind,
            .payload = encode_exc_string(text),
            .error = std::string(line),
            .cause = std::move(cause)};
}

}  // namespace rqxx::runtime
