#include "runtime/slot_executor.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>
#include <cstring>
#include <deque>
#include <list>
#include <rqxx/codec.hpp>
#include <span>

#include "base/task_group.hpp"
#include "runtime/frames.hpp"
#include "runtime/output_pipes.hpp"
#include "runtime/process.hpp"

namespace rqxx::runtime {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

/// More would only wait in the zygote's socket.
constexpr auto most_forks_under_way = 32;
/// Until when an interpreter has imported what it was told to.
constexpr auto longest_start = 60s;

template <class T>
std::optional<T> number_of(std::string_view text) {
    T number{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return number;
}

RunOutcome stopped() {
    return failed_with(RunOutcome::Kind::stopped, "Job stopped by user, work-horse terminated.");
}

}  // namespace

struct SlotExecutor::Impl : std::enable_shared_from_this<Impl> {
    struct Slot {
        Slot(const asio::any_io_executor& executor, std::uint64_t number_, int fd)
            : number(number_), socket(executor, asio::local::stream_protocol(), fd) {}
        std::uint64_t number;
        asio::local::stream_protocol::socket socket;
        pid_t pid = 0;              ///< 0 until the zygote has told.
        std::optional<int> status;  ///< As waitpid has it, once it has ended.
        /// What it runs: those of its call that have not ended.
        std::vector<std::shared_ptr<Execution>> jobs;
        bool in_stopped_callback = false;
        bool last_job = false;    ///< Takes no other after the one it has.
        bool doomed = false;      ///< Is being killed; takes no job any more.
        bool not_forked = false;  ///< The zygote could not.
        StopReason killed_for = StopReason::none;
        std::deque<std::string> outbox;       ///< Frames; the first is being written.
        std::shared_ptr<OutputPipes> output;  ///< Null where it is not captured.
        std::uint64_t jobs_begun = 0;
        bool first_call = true;  ///< It has not begun its second.
        std::chrono::steady_clock::time_point born = std::chrono::steady_clock::now();
        std::uint64_t first_rss = 0;       ///< Bytes, at its first job.
        double cpu_before = 0;             ///< Used by earlier jobs.
        std::optional<ops::Usage> used;    ///< In all, once it has ended.
        std::optional<RunOutcome> excess;  ///< It was killed for what it used.

        /// With what it has started. At once, or as soon as its `pid` is known.
        void kill() {
            doomed = true;
            if (pid == 0 || status) return;
            ::kill(-pid, SIGKILL);  // Not its group yet in its very first moment.
            ::kill(pid, SIGKILL);
        }
    };

    Impl(asio::any_io_executor executor_, ZygoteKind kind_, ProcessTools tools_, Logger& log_,
         Events events_)
        : executor(std::move(executor_)),
          kind(std::move(kind_)),
          tools(std::move(tools_)),
          log(log_),
          events(std::move(events_)),
          changed(executor) {}

    asio::any_io_executor executor;
    const ZygoteKind kind;
    const ProcessTools tools;
    Logger& log;
    Events events;  ///< Empty once the worker is gone.

    pid_t zygote = 0;
    std::optional<asio::posix::stream_descriptor> control;
    bool ready = false;  ///< The zygote forks.
    bool has_been_ready = false;
    bool closed = false;
    std::string trouble;  ///< Why the last zygote did not get ready.
    Event changed;        ///< Of those above.
    std::uint64_t last_number = 0;
    bool asking_again = false;  ///< Somebody comes back to those who wait.
    std::list<std::shared_ptr<Slot>> slots;
    /// For a slot, once the zygote is back; with whether only the stopped callback is to run.
    std::deque<std::pair<std::shared_ptr<Execution>, bool>> waiting;

    // ---- the zygote ---------------------------------------------------------------------------

    void spawn_zygote() {
        auto [ours, theirs] = socket_pair(SOCK_SEQPACKET);
        zygote = kind.spawn(theirs.get());
        control.emplace(executor, ours.release());
        trouble.clear();
        ::send(control->native_handle(), kind.greeting.data(), kind.greeting.size(), MSG_NOSIGNAL);
        asio::co_spawn(executor, listen(shared_from_this()), asio::detached);
    }

    /// What the zygote says, until it is gone.
    static asio::awaitable<void> listen(std::shared_ptr<Impl> self) {
        std::string message(1 << 16, '\0');
        try {
            while (self->control) {
                co_await self->control->async_wait(asio::posix::stream_descriptor::wait_read,
                                                   asio::use_awaitable);
                const auto size = ::recv(self->control->native_handle(), message.data(),
                                         message.size(), MSG_DONTWAIT);
                if (size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR)) break;
                if (size > 0) self->heed({message.data(), static_cast<std::size_t>(size)});
            }
        } catch (const std::exception& error) {
            self->log.debug("A zygote is silent", "kind", self->kind.name, "error", error.what());
        }
        self->lose_zygote();
    }

    void heed(std::string_view message) {
        boost::system::error_code error;
        const json::value value = json::parse(message, error);
        const json::object* said = error ? nullptr : value.if_object();
        if (said == nullptr) return;
        const auto number = [&](std::string_view name) -> std::int64_t {
            const auto* found = said->if_contains(name);
            return found != nullptr && found->is_int64() ? found->as_int64() : 0;
        };
        const auto text = [&](std::string_view name) {
            const auto* found = said->if_contains(name);
            return found != nullptr && found->is_string() ? std::string(found->as_string())
                                                          : std::string();
        };
        if (said->contains("ready")) {
            ready = true;
            log.info(kind.name + " is ready", "version", text("version"));
            changed.notify();
            serve_waiting();
        } else if (said->contains("error")) {
            trouble = text("error");
            log.debug(kind.name + " did not start", "traceback", text("traceback"));
        } else if (said->contains("forked")) {
            for (const auto& slot : slots) {
                if (slot->number != static_cast<std::uint64_t>(number("forked"))) continue;
                meet(slot, static_cast<pid_t>(number("pid")));
            }
            serve_waiting();
        } else if (said->contains("failed")) {
            log.error(kind.name + " could not fork", "error", text("why"));
            for (const auto& slot : slots) {
                if (slot->number != static_cast<std::uint64_t>(number("failed"))) continue;
                slot->not_forked = true;
                ::shutdown(slot->socket.native_handle(), SHUT_RD);
            }
        } else if (said->contains("exited")) {
            for (const auto& slot : slots) {
                if (slot->pid != number("exited")) continue;
                slot->status = static_cast<int>(number("status"));
                const auto* cpu = said->if_contains("cpu_seconds");
                slot->used = ops::Usage{number("max_rss_kb"),
                                        cpu != nullptr && cpu->is_double() ? cpu->as_double() : 0};
                tools.watch->forget(slot->pid);
                tools.guardian->forget(slot->pid);
                // What it said before stands in the socket; behind that comes the end, also where
                // a child of its own keeps the other side open.
                ::shutdown(slot->socket.native_handle(), SHUT_RD);
            }
        }
    }

    /// A slot's process is there.
    void meet(const std::shared_ptr<Slot>& slot, pid_t pid) {
        slot->pid = pid;
        tools.guardian->watch(pid);
        if (slot->first_call) note_first_rss(*slot);
        if (slot->doomed)
            slot->kill();
        else if (!slot->jobs.empty())
            watch(slot);
    }

    /// What its growth counts from: at its first job, or once its process is known.
    void note_first_rss(Slot& slot) const {
        if (tools.recycling.growth > 0 && !kind.one_job_each && slot.pid != 0)
            slot.first_rss = consumption_of(slot.pid).rss_bytes;
    }

    /// Its job's limits are kept from now on.
    void watch(const std::shared_ptr<Slot>& slot) {
        const ResourceLimits& limits = slot->jobs.front()->limits;
        if (slot->pid == 0 || slot->status) return;
        tools.watch->watch(
            slot->pid, limits, [slot](std::string cause, std::string text, ops::Usage usage) {
                slot->excess = failed_with(RunOutcome::Kind::failure, text, std::move(cause));
                slot->excess->usage = usage;
                slot->kill();
            });
    }

    void lose_zygote() {
        if (closed) return;
        // One that has been ready may have been killed; one that never was would not be now.
        const bool hopeless = !std::exchange(ready, false);
        control.reset();
        if (zygote != 0) bury(std::exchange(zygote, 0));
        if (trouble.empty()) trouble = "it ended";
        changed.notify();
        // Its slots end with it; those that do not know yet are told.
        for (const auto& slot : slots) {
            slot->kill();
            ::shutdown(slot->socket.native_handle(), SHUT_RD);
        }
        if (!has_been_ready) return;  // `prepare` tells.
        log.error(kind.name + " has ended and is started again", "error", trouble);
        if (hopeless) give_back_waiting();
        asio::co_spawn(executor, restart(shared_from_this(), hopeless ? 2000ms : 100ms),
                       asio::detached);
    }

    static asio::awaitable<void> restart(std::shared_ptr<Impl> self,
                                         std::chrono::milliseconds wait) {
        const auto until = std::chrono::steady_clock::now() + wait;
        while (!self->closed && std::chrono::steady_clock::now() < until)
            co_await self->changed.wait(until - std::chrono::steady_clock::now());
        if (self->closed) co_return;
        try {
            self->spawn_zygote();
        } catch (const Error& error) {
            self->trouble = error.message();
            self->lose_zygote();
            co_return;
        }
        const pid_t started = self->zygote;
        const auto give_up = std::chrono::steady_clock::now() + longest_start;
        while (!self->closed && !self->ready && self->zygote == started) {
            const auto now = std::chrono::steady_clock::now();
            if (now >= give_up) {
                self->trouble = "it took over a minute to start";
                ::kill(started, SIGKILL);  // `listen` meets its end.
                co_return;
            }
            co_await self->changed.wait(give_up - now);
        }
    }

    /// Jobs go back to their queue until there is a zygote again.
    void give_back_waiting() {
        for (const auto& [execution, only_callback] : std::exchange(waiting, {})) {
            for (const auto& job : only_callback ? std::vector{execution} : jobs_of_call(execution))
                report(job, only_callback ? stopped()
                                          : RunOutcome{.kind = RunOutcome::Kind::postponed,
                                                       .payload = "0",
                                                       .error = kind.name +
                                                                " cannot be started: " + trouble});
        }
    }

    // ---- slots --------------------------------------------------------------------------------

    void serve_waiting() {
        while (!waiting.empty() && give(waiting.front().first, waiting.front().second))
            waiting.pop_front();
        // Nobody tells when there are descriptors again.
        if (!waiting.empty() && ready && !std::exchange(asking_again, true))
            asio::co_spawn(executor, ask_again(shared_from_this()), asio::detached);
    }

    static asio::awaitable<void> ask_again(std::shared_ptr<Impl> self) {
        co_await self->changed.wait(200ms);
        self->asking_again = false;
        self->serve_waiting();
    }

    /// Whether there was a slot for it, or none is needed any more.
    bool give(const std::shared_ptr<Execution>& execution, bool only_callback) {
        auto jobs = only_callback ? std::vector{execution} : jobs_of_call(execution);
        if (!only_callback && execution->shared) {
            end_early(jobs);
            if (jobs.empty()) return true;
        }
        const auto idle =
            std::ranges::find_if(slots, [](const auto& slot) { return is_idle(*slot); });
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

    /// Takes those out of a call whose end has been asked for while it waited.
    void end_early(std::vector<std::shared_ptr<Execution>>& jobs) {
        std::erase_if(jobs, [&](const auto& job) {
            const StopReason reason = job->stop_reason;
            if (job->settled || job->out_of_call) return true;
            if (reason == StopReason::none || reason == StopReason::time_limit) return false;
            job->out_of_call = true;
            end_later(job, reason);
            return true;
        });
    }

    /// Without having run. Later, because the caller may be on its way through all that runs.
    void end_later(const std::shared_ptr<Execution>& execution, StopReason reason) {
        asio::post(executor, [self = shared_from_this(), execution, reason] {
            if (reason == StopReason::stopped)
                self->end_stopped(execution);
            else
                self->report(execution, ended_by_force(*execution));
        });
    }

    /// For the next jobs, while this one runs: a fork takes longer than a short job.
    void fork_ahead() {
        auto idle = std::ranges::count_if(slots, [](const auto& slot) { return is_idle(*slot); });
        while (idle < 2 && fork_slot())
            ++idle;
    }

    static bool is_idle(const Slot& slot) {
        return slot.jobs.empty() && !slot.status && !slot.doomed && !slot.last_job;
    }

    std::string request(const Slot& slot) const {
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

    [[nodiscard]] std::string serializer_of(const Execution& execution) const {
        return kind.serializer.empty() ? std::string(to_string(execution.serializer))
                                       : kind.serializer;
    }

    static void add_fields(Frame& frame, const FieldList& fields) {
        for (const auto& [name, value] : fields) {
            frame.add(name);
            frame.add(value);
        }
    }

    /// Null where it has to wait: the zygote is not there or behind, or there is no descriptor
    /// left.
    std::shared_ptr<Slot> fork_slot() {
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

    /// A datagram to the zygote, with descriptors. Whether it took it.
    [[nodiscard]] bool send_with(std::string text, const std::vector<int>& fds) {
        iovec part{text.data(), text.size()};
        alignas(cmsghdr) char rights[CMSG_SPACE(3 * sizeof(int))] = {};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = rights;
        message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
        std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
        return ::sendmsg(control->native_handle(), &message, MSG_NOSIGNAL) >= 0;
    }

    void send(const std::shared_ptr<Slot>& slot, std::string frame) {
        slot->outbox.push_back(std::move(frame));
        if (slot->outbox.size() == 1)
            asio::co_spawn(executor, write(shared_from_this(), slot), asio::detached);
    }

    static asio::awaitable<void> write(std::shared_ptr<Impl>, std::shared_ptr<Slot> slot) {
        boost::system::error_code ignored;  // Its end is met by who reads.
        while (!slot->outbox.empty()) {
            co_await asio::async_write(slot->socket, asio::buffer(slot->outbox.front()),
                                       asio::redirect_error(asio::use_awaitable, ignored));
            slot->outbox.pop_front();
        }
    }

    /// What a slot says, until it is gone.
    static asio::awaitable<void> serve(std::shared_ptr<Impl> self, std::shared_ptr<Slot> slot) {
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

    /// Whether it was something that a slot says of a job that it has.
    bool heed(Slot& slot, const std::vector<std::string_view>& fields) {
        if (fields.size() < 3) return false;
        const auto job = std::ranges::find_if(
            slot.jobs, [&](const auto& execution) { return execution->id == fields[1]; });
        if (job == slot.jobs.end()) return false;
        const auto& execution = *job;
        if (fields[0] == "callback") {
            const auto seconds = number_of<std::int64_t>(fields[2]);
            if (!seconds) return false;
            if (events.on_callback)
                events.on_callback(execution, std::chrono::seconds(std::clamp<std::int64_t>(
                                                  *seconds, -1, 100'000'000)));
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

    /// What its process has used for one of its jobs: those of a call have equal parts.
    static double share_of_cpu(Slot& slot, double used_so_far) {
        const double share = std::max(used_so_far - slot.cpu_before, 0.0) /
                             static_cast<double>(std::max<std::size_t>(slot.jobs.size(), 1));
        slot.cpu_before += share;
        return share;
    }

    /// Whether a slot has run for long enough, or grown too large.
    [[nodiscard]] bool is_spent(const Slot& slot) const {
        const Recycling& most = tools.recycling;
        if (slot.last_job || slot.doomed) return false;
        if (most.jobs > 0 && slot.jobs_begun >= most.jobs) return true;
        if (most.age.count() > 0 && std::chrono::steady_clock::now() - slot.born >= most.age)
            return true;
        return most.growth > 0 && slot.pid != 0 &&
               consumption_of(slot.pid).rss_bytes > slot.first_rss + most.growth;
    }

    /// It takes no job any more and ends; the next is ready by the time it is needed.
    void retire(Slot& slot) {
        log.debug("A process is replaced", "kind", kind.name, "pid", slot.pid, "jobs",
                  slot.jobs_begun);
        slot.last_job = true;
        ::shutdown(slot.socket.native_handle(), SHUT_WR);
        fork_slot();
    }

    std::optional<RunOutcome> outcome_said(const Slot& slot, const Execution& execution,
                                           std::span<const std::string_view> fields) {
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
            return stopped();
        }
        return std::nullopt;
    }

    /// A slot has ended, perhaps with jobs in it.
    void conclude(Slot& slot) {
        const double used = slot.used ? slot.used->cpu_seconds : 0;
        while (!slot.jobs.empty()) {
            const double share = share_of_cpu(slot, used);
            auto execution = std::move(slot.jobs.front());
            slot.jobs.erase(slot.jobs.begin());
            const bool to_be_stopped = execution->shared
                                           ? execution->stop_reason == StopReason::stopped
                                           : slot.killed_for == StopReason::stopped;
            if (to_be_stopped && !slot.in_stopped_callback) {
                end_stopped(std::move(execution));
                continue;
            }
            RunOutcome outcome =
                slot.in_stopped_callback ? stopped() : how_it_ended(slot, *execution);
            if (!outcome.usage && slot.used)
                outcome.usage = ops::Usage{slot.used->max_rss_kb, share};
            else if (outcome.usage && execution->shared)
                outcome.usage->cpu_seconds = share;
            report(std::move(execution), std::move(outcome));
        }
    }

    RunOutcome how_it_ended(const Slot& slot, const Execution& execution) {
        if (slot.excess) {
            RunOutcome outcome = *slot.excess;
            if (slot.used && outcome.usage)
                outcome.usage->max_rss_kb =
                    std::max(outcome.usage->max_rss_kb, slot.used->max_rss_kb);
            return outcome;
        }
        if (slot.killed_for == StopReason::time_limit) return ended_by_force(execution);
        return failed_with(RunOutcome::Kind::failure, kind.died(slot.status),
                           slot.status ? describe_status(*slot.status) : "");
    }

    /// The process in which a stopped callback might have run is gone: it gets another.
    void end_stopped(std::shared_ptr<Execution> execution) {
        if (execution->job.stopped_callback_name.empty() || closed) {
            report(std::move(execution), stopped());
            return;
        }
        waiting.emplace_back(std::move(execution), true);
        serve_waiting();
    }

    /// The soft stage, for a slot that listens.
    void tell(const std::shared_ptr<Slot>& slot, const Execution& execution, StopReason reason) {
        Frame frame;
        frame.add("stop").add(execution.id).add(std::to_string(static_cast<int>(reason)));
        send(slot, frame.finish());
    }

    /// Ends what runs, or waits to; its outcome follows. False where it is not here.
    bool kill(const std::shared_ptr<Execution>& execution, StopReason reason) {
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

    void report(std::shared_ptr<Execution> execution, RunOutcome outcome) {
        if (events.on_done) events.on_done(std::move(execution), std::move(outcome));
    }

    [[nodiscard]] std::shared_ptr<Slot> slot_of(const Execution& execution) const {
        for (const auto& slot : slots) {
            for (const auto& job : slot->jobs) {
                if (job.get() == &execution) return slot;
            }
        }
        return nullptr;
    }

    /// Whether its call waits for a slot.
    [[nodiscard]] bool is_waiting(const Execution& execution) const {
        return std::ranges::any_of(waiting, [&](const auto& one) {
            return !one.second && one.first->shared == execution.shared;
        });
    }

    /// Whether it was waiting for its slot.
    bool forget_waiting(const Execution& execution) {
        return std::erase_if(waiting,
                             [&](const auto& one) { return one.first.get() == &execution; }) > 0;
    }
};

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
