#include <fmt/format.h>

#include <rqxx/codec.hpp>

#include "ops/keys.hpp"
#include "runtime/worker_impl.hpp"

namespace rqxx {

using namespace std::chrono_literals;
using ops::Settlement;
using runtime::Execution;
using runtime::StopReason;
namespace asio = boost::asio;

asio::awaitable<void> Worker::Impl::heartbeat_loop() {
    std::chrono::milliseconds wait = options.heartbeat;
    for (;;) {
        if (!std::exchange(news_to_acknowledge, false))
            co_await heartbeat_wanted.wait(std::exchange(wait, options.heartbeat));
        news_to_acknowledge = false;
        auto jobs_by_execution = held;
        for (const auto& execution : running) {
            const std::scoped_lock lock(execution->progress_mutex);
            jobs_by_execution[execution->id].progress.swap(execution->progress);
        }
        std::vector<ops::Running> jobs;
        jobs.reserve(jobs_by_execution.size());
        for (auto& [id, job] : jobs_by_execution)
            jobs.push_back(std::move(job));
        const Seconds oldest =
            running.empty() ? Seconds(0)
                            : Seconds(std::chrono::steady_clock::now() - running.front()->started);
        bool lease_held = true;
        bool failed = false;
        const auto asked_at = std::chrono::steady_clock::now();
        try {
            const auto result = co_await redis_ops.heartbeat(std::move(jobs), oldest_job(), oldest);
            lease_held = result.lease_held;
            if (lease_held) lease_renewed = asked_at;
            if (result.orphans > 0)
                log.warning("Jobs put back whose claim was never answered", "jobs", result.orphans);
            for (const auto& notice : result.notices)
                obey(notice);
        } catch (const Error& error) {
            log.debug("Heartbeat failed", "error", error.message());
            failed = true;
        }
        if (failed) {
            // The next one goes out as soon as Redis is back.
            try {
                co_await redis.connect(options.heartbeat);
                wait = 100ms;
            } catch (const Error&) {
            }
            continue;
        }
        if (!lease_held) co_await register_again();
    }
}

asio::awaitable<void> Worker::Impl::register_again() {
    log.warning("Worker was taken for dead; registering again", "name", name);
    try {
        const auto birth = co_await redis_ops.register_birth();
        if (!birth.registered)
            co_await redis_ops.expire_lease();  // Our own old record: to be buried first.
    } catch (const Error& error) {
        log.debug("Registering failed", "error", error.message());
    }
    Event pause(executor);
    co_await pause.wait(200ms);
}

void Worker::Impl::obey(const ops::HeartbeatResult::Notice& notice) {
    using Why = ops::HeartbeatResult::Notice::Why;
    const auto waiting =
        take_out([&](const Execution& execution) { return execution.id == notice.execution_id; });
    if (waiting)
        end_waiting(waiting, notice.why == Why::asked_to_stop ? StopReason::stopped
                                                              : StopReason::lease_lost);
    for (const auto& execution : std::list(running)) {
        if (execution->id != notice.execution_id) continue;
        if (notice.why != Why::asked_to_stop) {
            ask_to_stop(execution, notice.why == Why::canceled ? StopReason::canceled
                                                               : StopReason::lease_lost);
        } else if (!execution->give_up_at && execution->stop_reason != StopReason::stopped) {
            // Told each time; most often the command came first.
            ask_to_stop(execution, StopReason::stopped);
        }
    }
}

void Worker::Impl::ask_to_stop(const std::shared_ptr<Execution>& execution, StopReason reason) {
    interrupt(execution, reason);
    if (execution->give_up_at || runtime::others_need_its_call(*execution)) return;
    const auto give_up_at = std::chrono::steady_clock::now() + patience(reason);
    for (const auto& one : runtime::jobs_of_call(execution)) {
        if (!one->settled) one->give_up_at = give_up_at;
    }
    deadline_changed.notify();
}

std::chrono::seconds Worker::Impl::patience(StopReason reason) const {
    // Somebody waits for it.
    const bool asked_for = reason == StopReason::stopped || reason == StopReason::killed;
    return asked_for ? std::min<std::chrono::seconds>(options.kill_after, 2s) : options.kill_after;
}

asio::awaitable<void> Worker::Impl::deadline_loop() {
    for (;;) {
        const auto now = std::chrono::steady_clock::now();
        auto next = now + 1h;
        for (const auto& execution : std::list(running))
            next = std::min(next, look_at_limits(execution, now));
        co_await deadline_changed.wait(next - now);
    }
}

std::chrono::steady_clock::time_point Worker::Impl::look_at_limits(
    const std::shared_ptr<Execution>& execution, std::chrono::steady_clock::time_point now) {
    auto next = now + 1h;
    if (execution->give_up_at) {
        if (now >= *execution->give_up_at) return end_by_force(execution, now);
        next = *execution->give_up_at;
        if (execution->being_killed) return next;
    }
    if (!execution->deadline) return next;
    if (now < *execution->deadline) return std::min(next, *execution->deadline);
    const auto hard = *execution->deadline + options.kill_after;
    if (now >= hard) {
        interrupt(execution, StopReason::time_limit);
        return end_by_force(execution, now);
    }
    if (!execution->in_callback) {
        interrupt(execution, StopReason::time_limit);
    } else if (!execution->callback_overran) {
        execution->callback_over_limit();
        executors.interrupt(execution, StopReason::time_limit);
    }
    return std::min(next, hard);
}

std::chrono::steady_clock::time_point Worker::Impl::end_by_force(
    const std::shared_ptr<Execution>& execution, std::chrono::steady_clock::time_point now) {
    if (!execution->being_killed && executors.kill(execution)) {
        execution->being_killed = true;
        // A process that the kernel cannot end, say in a write to a dead disk, must not keep a
        // slot.
        // A stopped callback may have to wait for a process to run in.
        const bool calls_back = execution->stop_reason == StopReason::stopped &&
                                !execution->job.stopped_callback_name.empty();
        execution->give_up_at = now + (calls_back ? 10s : 2s);
        return *execution->give_up_at;
    }
    give_up(execution);
    return now + 1h;
}

void Worker::Impl::give_up(const std::shared_ptr<Execution>& execution) {
    log.error("Handler ignores that it is to stop; what runs it is replaced", "id",
              execution->job.id, "function", execution->call.func_name);
    executors.abandon(execution);
    auto outcome = runtime::ended_by_force(*execution);
    if (outcome.kind == runtime::RunOutcome::Kind::stopped &&
        !execution->job.stopped_callback_name.empty())
        log.error("Callback skipped", "id", execution->job.id, "callback",
                  execution->job.stopped_callback_name, "reason", "the handler had to be given up");
    on_done(execution, std::move(outcome));
}

// ---- commands ----

asio::awaitable<void> Worker::Impl::command_loop() {
    for (;;) {
        const auto message = co_await commands->next();
        if (message.channel == keys::wake_channel)
            wake(message.payload);
        else
            obey(message.payload);
    }
}

void Worker::Impl::obey(const std::string& payload) {
    const auto command = decode_json(payload, {.max_bytes = 65536, .max_depth = 8});
    if (!command || !command->is_dict()) return;
    const auto text = [&](std::string_view key) {
        const Value* value = command->find(key);
        return value != nullptr && value->is_string() ? value->as_text() : std::string();
    };
    const std::string what = text("command");
    if (what == "shutdown") {
        log.info("Told to shut down", "name", name);
        request_stop();
    } else if (what == "stop-job" || what == "stop-execution" || what == "kill-horse") {
        const auto reason = what == "kill-horse" ? StopReason::killed : StopReason::stopped;
        const std::string id = text("job_id"), execution_id = text("execution_id");
        const auto is_meant = [&](const Execution& execution) {
            return reason == StopReason::stopped && execution.job.id == id &&
                   (what != "stop-execution" || execution.id == execution_id);
        };
        while (const auto waiting = take_out(is_meant))
            end_waiting(waiting, reason);
        for (const auto& execution : std::list(running)) {
            if (reason == StopReason::stopped && execution->job.id != id) continue;
            if (what == "stop-execution" && execution->id != execution_id) continue;
            ask_to_stop(execution, reason);
            // The heartbeat acknowledges.
            news_to_acknowledge = true;
            heartbeat_wanted.notify();
        }
    }
}

}  // namespace rqxx
