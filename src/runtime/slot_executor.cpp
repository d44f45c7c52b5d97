#include "runtime/slot_executor.hpp"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <rqxx/codec.hpp>

#include "runtime/process.hpp"
#include "runtime/slot_executor_impl.hpp"

namespace rqxx::runtime {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

/// More would only wait in the zygote's socket.
constexpr auto most_forks_under_way = 32;

void SlotExecutor::Impl::meet(const std::shared_ptr<Slot>& slot, pid_t pid) {
    slot->pid = pid;
    tools.guardian->watch(pid);
    if (slot->first_call) note_first_rss(*slot);
    if (slot->doomed)
        slot->kill();
    else if (!slot->jobs.empty())
        watch(slot);
}

void SlotExecutor::Impl::note_first_rss(Slot& slot) const {
    if (tools.recycling.growth > 0 && !kind.one_job_each && slot.pid != 0)
        slot.first_rss = consumption_of(slot.pid).rss_bytes;
}

void SlotExecutor::Impl::watch(const std::shared_ptr<Slot>& slot) {
    const ResourceLimits& limits = slot->jobs.front()->limits;
    if (slot->pid == 0 || slot->status) return;
    tools.watch->watch(
        slot->pid, limits, [slot](std::string cause, std::string text, ops::Usage usage) {
            slot->excess = failed_with(RunOutcome::Kind::failure, text, std::move(cause));
            slot->excess->usage = usage;
            slot->kill();
        });
}

void SlotExecutor::Impl::serve_waiting() {
    while (!waiting.empty() && give(waiting.front().first, waiting.front().second))
        waiting.pop_front();
    // Nobody tells when there are descriptors again.
    if (!waiting.empty() && ready && !std::exchange(asking_again, true))
        asio::co_spawn(executor, ask_again(shared_from_this()), asio::detached);
}

asio::awaitable<void> SlotExecutor::Impl::ask_again(std::shared_ptr<Impl> self) {
    co_await self->changed.wait(200ms);
    self->asking_again = false;
    self->serve_waiting();
}

bool SlotExecutor::Impl::give(const std::shared_ptr<Execution>& execution, bool only_callback) {
    auto jobs = only_callback ? std::vector{execution} : jobs_of_call(execution);
    if (!only_callback && execution->shared) {
        end_early(jobs);
        if (jobs.empty()) return true;
    }
    const auto idle = std::ranges::find_if(slots, [](const auto& slot) { return is_idle(*slot); });
    const auto slot = idle != slots.end() ? *idle : fork_slot();
    if (!slot) return false;
    slot->jobs = std::move(jobs);
    slot->in_stopped_callback = only_callback;
    slot->last_job = kind.one_job_each;
    if (slot->output) slot->output->read_for(slot->jobs);
    slot->first_call = slot->jobs_begun == 0;
    slot->jobs_begun += slot->jobs.size();
    if (slot->first_call) note_first_rss(*slot);
    watch(slot);
    if (slot->last_job) fork_ahead();
    send(slot, request(*slot));
    return true;
}

void SlotExecutor::Impl::end_early(std::vector<std::shared_ptr<Execution>>& jobs) {
    std::erase_if(jobs, [&](const auto& job) {
        const StopReason reason = job->stop_reason;
        if (job->settled || job->out_of_call) return true;
        if (reason == StopReason::none || reason == StopReason::time_limit) return false;
        job->out_of_call = true;
        end_later(job, reason);
        return true;
    });
}

void SlotExecutor::Impl::end_later(const std::shared_ptr<Execution>& execution, StopReason reason) {
    asio::post(executor, [self = shared_from_this(), execution, reason] {
        if (reason == StopReason::stopped)
            self->end_stopped(execution);
        else
            self->report(execution, ended_by_force(*execution));
    });
}

void SlotExecutor::Impl::fork_ahead() {
    auto idle = std::ranges::count_if(slots, [](const auto& slot) { return is_idle(*slot); });
    while (idle < 2 && fork_slot())
        ++idle;
}

bool SlotExecutor::Impl::is_idle(const Slot& slot) {
    return slot.jobs.empty() && !slot.status && !slot.doomed && !slot.last_job;
}

std::string SlotExecutor::Impl::request(const Slot& slot) const {
    const Execution& first = *slot.jobs.front();
    Frame frame;
    if (first.aggregated && !slot.in_stopped_callback) {
        frame.add("group")
            .add(tools.worker)
            .add(std::to_string(first.time_limit))
            .add(std::to_string(first.limits.max_rss.value_or(0)));
        for (const auto& job : slot.jobs) {
            const auto fields = to_fields(job->job);
            frame.add(job->id)
                .add(job->job.id)
                .add(serializer_of(*job))
                .add(format_utc(job->started_at))
                .add(std::to_string(fields.size()));
            add_fields(frame, fields);
        }
        return frame.finish();
    }
    frame.add(slot.in_stopped_callback ? "stopped" : "run")
        .add(first.id)
        .add(first.job.id)
        .add(serializer_of(first))
        .add(tools.worker)
        .add(format_utc(first.started_at))
        .add(std::to_string(first.time_limit))
        .add(std::to_string(first.limits.max_rss.value_or(0)));
    add_fields(frame, to_fields(first.job));
    return frame.finish();
}

std::string SlotExecutor::Impl::serializer_of(const Execution& execution) const {
    return kind.serializer.empty() ? std::string(to_string(execution.serializer)) : kind.serializer;
}

void SlotExecutor::Impl::add_fields(Frame& frame, const FieldList& fields) {
    for (const auto& [name, value] : fields) {
        frame.add(name);
        frame.add(value);
    }
}

std::shared_ptr<SlotExecutor::Impl::Slot> SlotExecutor::Impl::fork_slot() {
    const auto under_way = std::ranges::count_if(
        slots, [](const auto& slot) { return slot->pid == 0 && !slot->not_forked; });
    if (!ready || under_way >= most_forks_under_way) return nullptr;
    std::pair<Fd, Fd> sockets;
    std::shared_ptr<OutputPipes> output;
    try {
        sockets = socket_pair(SOCK_STREAM);
        if (tools.max_output > 0)
            output = std::make_shared<OutputPipes>(executor, tools.forward_output);
    } catch (const Error& error) {
        log.warning("There is no descriptor for a job", "kind", kind.name, "error",
                    error.message());
        return nullptr;
    }
    auto& [ours, theirs] = sockets;
    const std::uint64_t number = ++last_number;
    std::vector<int> fds{theirs.get()};
    if (output) std::ranges::copy(output->their_ends(), std::back_inserter(fds));
    if (!send_with(json::serialize(json::object{{"fork", number}}), fds)) return nullptr;
    auto slot = std::make_shared<Slot>(executor, number, ours.release());
    slot->output = std::move(output);
    if (slot->output) slot->output->start();
    slots.push_back(slot);
    asio::co_spawn(executor, serve(shared_from_this(), slot), asio::detached);
    return slot;
}

void SlotExecutor::Impl::send(const std::shared_ptr<Slot>& slot, std::string frame) {
    slot->outbox.push_back(std::move(frame));
    if (slot->outbox.size() == 1)
        asio::co_spawn(executor, write(shared_from_this(), slot), asio::detached);
}

asio::awaitable<void> SlotExecutor::Impl::write(std::shared_ptr<Impl>, std::shared_ptr<Slot> slot) {
    boost::system::error_code ignored;  // Its end is met by who reads.
    while (!slot->outbox.empty()) {
        co_await asio::async_write(slot->socket, asio::buffer(slot->outbox.front()),
                                   asio::redirect_error(asio::use_awaitable, ignored));
        slot->outbox.pop_front();
    }
}

void SlotExecutor::Impl::tell(const std::shared_ptr<Slot>& slot, const Execution& execution,
                              StopReason reason) {
    Frame frame;
    frame.add("stop").add(execution.id).add(std::to_string(static_cast<int>(reason)));
    send(slot, frame.finish());
}

bool SlotExecutor::Impl::kill(const std::shared_ptr<Execution>& execution, StopReason reason) {
    if (const auto slot = slot_of(*execution)) {
        slot->killed_for = reason;
        slot->kill();
        return true;
    }
    if (execution->shared && !execution->out_of_call) {
        if (!is_waiting(*execution)) return false;
        execution->out_of_call = true;  // The others go on waiting.
    } else if (!forget_waiting(*execution)) {
        return false;
    }
    end_later(execution, reason);
    return true;
}

std::shared_ptr<SlotExecutor::Impl::Slot> SlotExecutor::Impl::slot_of(
    const Execution& execution) const {
    for (const auto& slot : slots) {
        for (const auto& job : slot->jobs) {
            if (job.get() == &execution) return slot;
        }
    }
    return nullptr;
}

bool SlotExecutor::Impl::is_waiting(const Execution& execution) const {
    return std::ranges::any_of(waiting, [&](const auto& one) {
        return !one.second && one.first->shared == execution.shared;
    });
}

bool SlotExecutor::Impl::forget_waiting(const Execution& execution) {
    return std::erase_if(waiting, [&](const auto& one) { return one.first.get() == &execution; }) >
           0;
}

SlotExecutor::SlotExecutor(asio::any_io_executor executor, ZygoteKind kind, ProcessTools tools,
                           Logger& log, Events events)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(kind), std::move(tools), log,
                                   std::move(events))) {}

SlotExecutor::~SlotExecutor() {
    close();
}

void SlotExecutor::close() {
    impl_->closed = true;
    impl_->ready = false;
    impl_->events = {};
    impl_->control.reset();
    for (const auto& slot : impl_->slots) {
        boost::system::error_code ignored;
        slot->socket.close(ignored);
        if (slot->output) slot->output->close();
    }
    impl_->waiting.clear();
    impl_->changed.notify();
    if (impl_->zygote != 0) bury(std::exchange(impl_->zygote, 0));
}

asio::awaitable<void> SlotExecutor::prepare() {
    if (impl_->closed) co_return;  // Told to end while another got ready.
    impl_->spawn_zygote();
    const auto until = std::chrono::steady_clock::now() + longest_start;
    while (!impl_->ready && impl_->zygote != 0) {
        const auto now = std::chrono::steady_clock::now();
        if (now >= until) throw Error(Errc::usage, "preload: the modules take over a minute");
        co_await impl_->changed.wait(until - now);
    }
    if (impl_->closed) co_return;
    if (!impl_->ready)
        throw Error(Errc::usage, fmt::format("{}: {}", impl_->kind.name, impl_->trouble));
    impl_->has_been_ready = true;
}

void SlotExecutor::start(std::shared_ptr<Execution> execution) {
    if (execution->stop_reason == StopReason::stopped) {  // Before it could begin.
        impl_->end_later(execution, StopReason::stopped);
        return;
    }
    impl_->waiting.emplace_back(std::move(execution), false);
    impl_->serve_waiting();
}

bool SlotExecutor::available() const {
    return impl_->ready;
}

void SlotExecutor::interrupt(const std::shared_ptr<Execution>& execution, StopReason reason) {
    const auto slot = impl_->slot_of(*execution);
    if (slot && impl_->kind.listens) {
        impl_->tell(slot, *execution, reason);
    } else if (reason != StopReason::time_limit) {  // A slot measures that itself.
        if (others_need_its_call(*execution)) {
            if (slot) impl_->tell(slot, *execution, reason);  // It listens between calls.
            return;
        }
        if (!slot || !slot->in_stopped_callback || reason != StopReason::stopped)
            impl_->kill(execution, reason);
    }
}

bool SlotExecutor::kill(const std::shared_ptr<Execution>& execution) {
    return impl_->kill(execution, execution->stop_reason.load());
}

void SlotExecutor::abandon(const std::shared_ptr<Execution>& execution) {
    impl_->forget_waiting(*execution);
    if (const auto slot = impl_->slot_of(*execution)) {
        std::erase(slot->jobs, execution);
        slot->kill();
    }
}

}  // namespace rqxx::runtime
