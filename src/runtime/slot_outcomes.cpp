#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>

#include "runtime/process.hpp"
#include "runtime/slot_executor_impl.hpp"

namespace rqxx::runtime {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

template <class T>
std::optional<T> number_of(std::string_view text) {
    T number{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return number;
}

}  // namespace

RunOutcome stopped_outcome() {
    return failed_with(RunOutcome::Kind::stopped, "Job stopped by user, work-horse terminated.");
}

asio::awaitable<void> SlotExecutor::Impl::serve(std::shared_ptr<Impl> self,
                                                std::shared_ptr<Slot> slot) {
    try {
        for (;;) {
            const std::string frame = co_await read_frame(slot->socket);
            if (!self->heed(*slot, fields_of(frame))) break;
            self->serve_waiting();
        }
    } catch (const std::exception&) {
        // It has ended, or said more than can be held.
    }
    // How it ended is told by the zygote; nobody tells where that is gone, too.
    Event pause(self->executor);
    for (int i = 0; i < 100 && !slot->status && self->ready && !slot->not_forked; ++i) {
        if (i == 5) slot->kill();
        co_await pause.wait(10ms);
    }
    slot->kill();
    if (slot->pid != 0 && !slot->status) {  // The zygote is gone, and did not tell.
        self->tools.watch->forget(slot->pid);
        self->tools.guardian->forget(slot->pid);
    }
    if (slot->output) {
        slot->output->drain();
        slot->output->close();
    }
    self->slots.remove(slot);
    if (!slot->jobs.empty() && slot->not_forked && slot->killed_for == StopReason::none &&
        !self->closed) {
        self->waiting.emplace_front(slot->jobs.front(), slot->in_stopped_callback);
        slot->jobs.clear();
        co_await pause.wait(200ms);
    } else {
        self->conclude(*slot);
    }
    self->serve_waiting();
}

bool SlotExecutor::Impl::heed(Slot& slot, const std::vector<std::string_view>& fields) {
    if (fields.size() < 3) return false;
    const auto job = std::ranges::find_if(
        slot.jobs, [&](const auto& execution) { return execution->id == fields[1]; });
    if (job == slot.jobs.end()) return false;
    const auto& execution = *job;
    if (fields[0] == "callback") {
        const auto seconds = number_of<std::int64_t>(fields[2]);
        if (!seconds) return false;
        if (events.on_callback)
            events.on_callback(execution, std::chrono::seconds(
                                              std::clamp<std::int64_t>(*seconds, -1, 100'000'000)));
        return true;
    }
    if (fields[0] == "progress") {
        const std::scoped_lock lock(execution->progress_mutex);
        execution->progress = fields[2];
        return true;
    }
    if (fields[0] == "print") {
        execution->output.add(ops::OutputChunk::Stream::out, fields[2]);
        return true;
    }
    if (fields[0] != "done" || fields.size() < 6) return false;
    auto outcome = outcome_said(slot, *execution, std::span(fields).subspan(5));
    const auto rss = number_of<std::int64_t>(fields[2]);
    const auto cpu = number_of<double>(fields[3]);
    if (!outcome || !rss || !cpu) return false;
    outcome->cause = fields[4];
    outcome->usage = ops::Usage{*rss, share_of_cpu(slot, *cpu)};
    if (slot.output) slot.output->drain();
    auto ended = std::move(*job);
    slot.jobs.erase(job);
    if (slot.jobs.empty()) {
        tools.watch->forget(slot.pid);
        if (slot.output) slot.output->read_for({});
        if (is_spent(slot)) retire(slot);
    }
    // The call went on for others, and did not hear of it.
    if (ended->shared && ended->stop_reason == StopReason::stopped &&
        outcome->kind != RunOutcome::Kind::stopped)
        end_stopped(std::move(ended));
    else
        report(std::move(ended), std::move(*outcome));
    return true;
}

double SlotExecutor::Impl::share_of_cpu(Slot& slot, double used_so_far) {
    const double share = std::max(used_so_far - slot.cpu_before, 0.0) /
                         static_cast<double>(std::max<std::size_t>(slot.jobs.size(), 1));
    slot.cpu_before += share;
    return share;
}

bool SlotExecutor::Impl::is_spent(const Slot& slot) const {
    const Recycling& most = tools.recycling;
    if (slot.last_job || slot.doomed) return false;
    if (most.jobs > 0 && slot.jobs_begun >= most.jobs) return true;
    if (most.age.count() > 0 && std::chrono::steady_clock::now() - slot.born >= most.age)
        return true;
    return most.growth > 0 && slot.pid != 0 &&
           consumption_of(slot.pid).rss_bytes > slot.first_rss + most.growth;
}

void SlotExecutor::Impl::retire(Slot& slot) {
    log.debug("A process is replaced", "kind", kind.name, "pid", slot.pid, "jobs", slot.jobs_begun);
    slot.last_job = true;
    ::shutdown(slot.socket.native_handle(), SHUT_WR);
    fork_slot();
}

std::optional<RunOutcome> SlotExecutor::Impl::outcome_said(
    const Slot& slot, const Execution& execution, std::span<const std::string_view> fields) {
    const std::string_view how = fields[0];
    if (how == "success" && fields.size() == 2)
        return RunOutcome{RunOutcome::Kind::success, std::string(fields[1]), {}};
    if (how == "failure" && fields.size() == 3)
        return RunOutcome{RunOutcome::Kind::failure, std::string(fields[1]),
                          std::string(fields[2])};
    if (how == "retry" && fields.size() == 4)
        return RunOutcome{RunOutcome::Kind::retry,
                          fmt::format("{} {} {}", fields[1], fields[2], fields[3]),
                          "the function asked for a retry"};
    if (how == "later" && fields.size() == 2) {
        std::int64_t seconds = 1;
        std::from_chars(fields[1].data(), fields[1].data() + fields[1].size(), seconds);
        return rate_limited(std::chrono::seconds(seconds), "told to come back later");
    }
    if (how == "stopped" && fields.size() == 2 &&
        (slot.in_stopped_callback || kind.listens || execution.shared)) {
        if (!fields[1].empty())
            log.error("Callback failed", "id", execution.job.id, "callback",
                      execution.job.stopped_callback_name, "error", fields[1]);
        return stopped_outcome();
    }
    return std::nullopt;
}

void SlotExecutor::Impl::conclude(Slot& slot) {
    const double used = slot.used ? slot.used->cpu_seconds : 0;
    while (!slot.jobs.empty()) {
        const double share = share_of_cpu(slot, used);
        auto execution = std::move(slot.jobs.front());
        slot.jobs.erase(slot.jobs.begin());
        const bool to_be_stopped = execution->shared ? execution->stop_reason == StopReason::stopped
                                                     : slot.killed_for == StopReason::stopped;
        if (to_be_stopped && !slot.in_stopped_callback) {
            end_stopped(std::move(execution));
            continue;
        }
        RunOutcome outcome =
            slot.in_stopped_callback ? stopped_outcome() : how_it_ended(slot, *execution);
        if (!outcome.usage && slot.used)
            outcome.usage = ops::Usage{slot.used->max_rss_kb, share};
        else if (outcome.usage && execution->shared)
            outcome.usage->cpu_seconds = share;
        report(std::move(execution), std::move(outcome));
    }
}

RunOutcome SlotExecutor::Impl::how_it_ended(const Slot& slot, const Execution& execution) {
    if (slot.excess) {
        RunOutcome outcome = *slot.excess;
        if (slot.used && outcome.usage)
            outcome.usage->max_rss_kb = std::max(outcome.usage->max_rss_kb, slot.used->max_rss_kb);
        return outcome;
    }
    if (slot.killed_for == StopReason::time_limit) return ended_by_force(execution);
    return failed_with(RunOutcome::Kind::failure, kind.died(slot.status),
                       slot.status ? describe_status(*slot.status) : "");
}

void SlotExecutor::Impl::end_stopped(std::shared_ptr<Execution> execution) {
    if (execution->job.stopped_callback_name.empty() || closed) {
        report(std::move(execution), stopped_outcome());
        return;
    }
    waiting.emplace_back(std::move(execution), true);
    serve_waiting();
}

void SlotExecutor::Impl::report(std::shared_ptr<Execution> execution, RunOutcome outcome) {
    if (events.on_done) events.on_done(std::move(execution), std::move(outcome));
}

}  // namespace rqxx::runtime
