#include "runtime/python_executor.hpp"

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
#include "runtime/python_frames.hpp"
#include "runtime/python_interpreter.hpp"

namespace rqxx::runtime {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

/// More would only wait in the zygote's socket.
constexpr auto most_forks_under_way = 32;
/// Until when an interpreter has imported what it was told to.
constexpr auto longest_start = 60s;

/// The keyword arguments of redis.Redis. They travel through a socket: the password must not stand
/// in a command line or environment.
json::object redis_arguments(const RedisOptions& options) {
    const RedisUrl& url = options.url;
    json::object arguments{{"db", url.database}};
    if (url.transport == RedisUrl::Transport::unix_socket) {
        arguments["unix_socket_path"] = url.path;
    } else {
        arguments["host"] = url.host;
        arguments["port"] = std::stoi(url.port);
    }
    if (url.transport == RedisUrl::Transport::tls) {
        arguments["ssl"] = true;
        if (!options.tls_ca_file.empty()) arguments["ssl_ca_certs"] = options.tls_ca_file;
        if (!options.tls_verify) arguments["ssl_cert_reqs"] = "none";
    }
    if (!url.user.empty()) arguments["username"] = url.user;
    if (!url.password.empty()) arguments["password"] = url.password;
    return arguments;
}

std::string last_line(std::string_view text) {
    while (text.ends_with('\n'))
        text.remove_suffix(1);
    const auto at = text.rfind('\n');
    return std::string(at == std::string_view::npos ? text : text.substr(at + 1));
}

RunOutcome outcome_of(RunOutcome::Kind kind, std::string text) {
    std::string payload = encode_exc_string(text);
    return {.kind = kind, .payload = std::move(payload), .error = last_line(text)};
}

/// Word for word as RQ's workers leave it. Source: rq/worker/worker_classes.py (RQ 2.10).
RunOutcome died(std::optional<int> status) {
    std::string text = "Work-horse terminated unexpectedly; waitpid returned ";
    text += status ? std::to_string(*status) : "None";
    if (status && WIFSIGNALED(*status)) text += fmt::format(" (signal {})", WTERMSIG(*status));
    return outcome_of(RunOutcome::Kind::failure, text + "; ");
}

RunOutcome stopped() {
    return outcome_of(RunOutcome::Kind::stopped, "Job stopped by user, work-horse terminated.");
}

}  // namespace

struct PythonExecutor::Impl : std::enable_shared_from_this<Impl> {
    struct Slot {
        Slot(const asio::any_io_executor& executor, std::uint64_t number_, int fd)
            : number(number_), socket(executor, asio::local::stream_protocol(), fd) {}
        std::uint64_t number;
        asio::local::stream_protocol::socket socket;
        pid_t pid = 0;                         ///< 0 until the zygote has told.
        std::optional<int> status;             ///< As waitpid has it, once it has ended.
        std::shared_ptr<Execution> execution;  ///< What it runs.
        bool in_stopped_callback = false;
        bool last_job = false;    ///< Takes no other after the one it has.
        bool doomed = false;      ///< Is being killed; takes no job any more.
        bool not_forked = false;  ///< The zygote could not.
        StopReason killed_for = StopReason::none;

        /// With what it has started. At once, or as soon as its `pid` is known.
        void kill() {
            doomed = true;
            if (pid == 0 || status) return;
            ::kill(-pid, SIGKILL);  // Not its group yet in its very first moment.
            ::kill(pid, SIGKILL);
        }
    };

    Impl(asio::any_io_executor executor_, PythonOptions options_, std::string worker_,
         const RedisOptions& redis, Logger& log_, Events events_)
        : executor(std::move(executor_)),
          options(std::move(options_)),
          worker(std::move(worker_)),
          redis_settings(redis_arguments(redis)),
          log(log_),
          events(std::move(events_)),
          changed(executor) {}

    asio::any_io_executor executor;
    PythonOptions options;
    std::string worker;
    json::object redis_settings;
    Logger& log;
    Events events;  ///< Empty once the worker is gone.

    pid_t zygote = 0;
    std::optional<asio::posix::stream_descriptor> control;
    bool ready = false;  ///< The zygote forks.
    bool has_been_ready = false;
    bool closed = false;
    std::string trouble;  ///< Why the last zygote did not get ready.
    Event changed;        ///< Of the three above.
    std::uint64_t last_number = 0;
    std::list<std::shared_ptr<Slot>> slots;
    /// For a slot, once the zygote is back; with whether only the stopped callback is to run.
    std::deque<std::pair<std::shared_ptr<Execution>, bool>> waiting;

    // ---- the zygote ---------------------------------------------------------------------------

    void spawn_zygote() {
        auto [ours, theirs] = socket_pair(SOCK_SEQPACKET);
        zygote = spawn_interpreter(options.interpreter, theirs.get());
        control.emplace(executor, ours.release());
        trouble.clear();
        const auto array = [](const std::vector<std::string>& list) {
            return json::array(list.begin(), list.end());
        };
        const std::string said =
            json::serialize(json::object{{"redis", redis_settings},
                                         {"path", array(options.path)},
                                         {"init", array(options.init)},
                                         {"preload", array(options.preload)},
                                         {"exception_handlers", array(options.exception_handlers)},
                                         {"serializer", options.serializer},
                                         {"one_job_each", options.isolation == Isolation::fork}});
        ::send(control->native_handle(), said.data(), said.size(), MSG_NOSIGNAL);
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
            self->log.debug("Python's zygote is silent", "error", error.what());
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
            log.info("Python is ready", "python", text("python"), "rq",
                     text("rq").empty() ? "none" : text("rq"));
            changed.notify();
            serve_waiting();
        } else if (said->contains("error")) {
            trouble = text("error");
            log.debug("Python did not start", "traceback", text("traceback"));
        } else if (said->contains("forked")) {
            for (const auto& slot : slots) {
                if (slot->number != static_cast<std::uint64_t>(number("forked"))) continue;
                slot->pid = static_cast<pid_t>(number("pid"));
                if (slot->doomed) slot->kill();
            }
            serve_waiting();
        } else if (said->contains("failed")) {
            log.error("Python could not fork", "error", text("why"));
            for (const auto& slot : slots) {
                if (slot->number != static_cast<std::uint64_t>(number("failed"))) continue;
                slot->not_forked = true;
                ::shutdown(slot->socket.native_handle(), SHUT_RD);
            }
        } else if (said->contains("exited")) {
            for (const auto& slot : slots) {
                if (slot->pid != number("exited")) continue;
                slot->status = static_cast<int>(number("status"));
                // What it said before stands in the socket; behind that comes the end, also where
                // a child of its own keeps the other side open.
                ::shutdown(slot->socket.native_handle(), SHUT_RD);
            }
        }
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
        log.error("Python has ended and is started again", "error", trouble);
        if (hopeless) fail_waiting();
        asio::co_spawn(executor, restart(shared_from_this(), hopeless ? 2000ms : 100ms),
                       asio::detached);
    }

    static asio::awaitable<void> restart(std::shared_ptr<Impl> self,
                                         std::chrono::milliseconds wait) {
        Event pause(self->executor);
        co_await pause.wait(wait);
        if (self->closed) co_return;
        try {
            self->spawn_zygote();
        } catch (const Error& error) {
            self->trouble = error.message();
            self->lose_zygote();
        }
    }

    void fail_waiting() {
        for (auto& [execution, only_callback] : std::exchange(waiting, {}))
            report(std::move(execution),
                   only_callback
                       ? stopped()
                       : outcome_of(RunOutcome::Kind::failure,
                                    "rqxx.PythonUnavailable: the interpreter cannot be started: " +
                                        trouble + "\n"));
    }

    // ---- slots --------------------------------------------------------------------------------

    void serve_waiting() {
        while (!waiting.empty() && give(waiting.front().first, waiting.front().second))
            waiting.pop_front();
    }

    /// Whether there was a slot for it.
    bool give(const std::shared_ptr<Execution>& execution, bool only_callback) {
        const auto idle = std::ranges::find_if(slots, [](const auto& slot) {
            return !slot->execution && !slot->status && !slot->doomed && !slot->last_job;
        });
        const auto slot = idle != slots.end() ? *idle : fork_slot();
        if (!slot) return false;
        slot->execution = execution;
        slot->in_stopped_callback = only_callback;
        slot->last_job = options.isolation == Isolation::fork;
        if (slot->last_job) fork_slot();  // For the next job, while this one runs.
        asio::co_spawn(executor, write(shared_from_this(), slot, request(*slot)), asio::detached);
        return true;
    }

    std::string request(const Slot& slot) const {
        const Execution& execution = *slot.execution;
        Frame frame;
        frame.add(slot.in_stopped_callback ? "stopped" : "run")
            .add(execution.id)
            .add(execution.job.id)
            .add(options.serializer.empty() ? to_string(execution.serializer) : options.serializer)
            .add(worker)
            .add(format_utc(execution.started_at))
            .add(std::to_string(execution.job.timeout.value_or(180)));
        for (const auto& [name, value] : to_fields(execution.job)) {
            frame.add(name);
            frame.add(value);
        }
        return frame.finish();
    }

    /// Null where it has to wait: the zygote is not there or behind, or there is no descriptor
    /// left.
    std::shared_ptr<Slot> fork_slot() {
        const auto under_way = std::ranges::count_if(
            slots, [](const auto& slot) { return slot->pid == 0 && !slot->not_forked; });
        if (!ready || under_way >= most_forks_under_way) return nullptr;
        int fds[2];
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
            log.warning("There is no socket for a Python job", "error", std::strerror(errno));
            return nullptr;
        }
        Fd ours(fds[0]);
        const Fd theirs(fds[1]);
        const std::uint64_t number = ++last_number;
        std::string text = json::serialize(json::object{{"fork", number}});
        iovec part{text.data(), text.size()};
        alignas(cmsghdr) char rights[CMSG_SPACE(sizeof(int))] = {};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = rights;
        message.msg_controllen = sizeof(rights);
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        const int fd = theirs.get();
        std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
        if (::sendmsg(control->native_handle(), &message, MSG_NOSIGNAL) < 0) return nullptr;
        auto slot = std::make_shared<Slot>(executor, number, ours.release());
        slots.push_back(slot);
        asio::co_spawn(executor, serve(shared_from_this(), slot), asio::detached);
        return slot;
    }

    static asio::awaitable<void> write(std::shared_ptr<Impl>, std::shared_ptr<Slot> slot,
                                       std::string frame) {
        boost::system::error_code ignored;  // Its end is met by who reads.
        co_await asio::async_write(slot->socket, asio::buffer(frame),
                                   asio::redirect_error(asio::use_awaitable, ignored));
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
        self->slots.remove(slot);
        if (slot->execution && slot->not_forked && !self->closed) {
            self->waiting.emplace_front(std::exchange(slot->execution, nullptr),
                                        slot->in_stopped_callback);
            co_await pause.wait(200ms);
        } else if (slot->execution) {
            self->conclude(*slot);
        }
        self->serve_waiting();
    }

    /// Whether it was something that a slot says of the job that it has.
    bool heed(Slot& slot, const std::vector<std::string_view>& fields) {
        if (!slot.execution || fields.size() < 3 || fields[1] != slot.execution->id) return false;
        if (fields[0] == "callback") {
            std::int64_t seconds = 0;
            const char* end = fields[2].data() + fields[2].size();
            const auto [at, error] = std::from_chars(fields[2].data(), end, seconds);
            if (error != std::errc() || at != end) return false;
            seconds = std::clamp<std::int64_t>(seconds, -1, 100'000'000);
            if (events.on_callback)
                events.on_callback(slot.execution, std::chrono::seconds(seconds));
            return true;
        }
        if (fields[0] != "done") return false;
        auto outcome = outcome_said(slot, std::span(fields).subspan(2));
        if (!outcome) return false;
        report(std::exchange(slot.execution, nullptr), std::move(*outcome));
        return true;
    }

    std::optional<RunOutcome> outcome_said(const Slot& slot,
                                           std::span<const std::string_view> fields) {
        const std::string_view kind = fields[0];
        if (kind == "success" && fields.size() == 2)
            return RunOutcome{RunOutcome::Kind::success, std::string(fields[1]), {}};
        if (kind == "failure" && fields.size() == 3)
            return RunOutcome{RunOutcome::Kind::failure, std::string(fields[1]),
                              std::string(fields[2])};
        if (kind == "retry" && fields.size() == 4)
            return RunOutcome{RunOutcome::Kind::retry,
                              fmt::format("{} {} {}", fields[1], fields[2], fields[3]),
                              "the function asked for a retry"};
        if (kind == "stopped" && fields.size() == 2 && slot.in_stopped_callback) {
            if (!fields[1].empty())
                log.error("Callback failed", "id", slot.execution->job.id, "callback",
                          slot.execution->job.stopped_callback_name, "error", fields[1]);
            return stopped();
        }
        return std::nullopt;
    }

    /// A slot has ended with a job in it.
    void conclude(Slot& slot) {
        auto execution = std::exchange(slot.execution, nullptr);
        const bool was_stopped = slot.in_stopped_callback || slot.killed_for == StopReason::stopped;
        if (!was_stopped)
            report(std::move(execution), died(slot.status));
        else if (slot.in_stopped_callback)
            report(std::move(execution), stopped());
        else
            end_stopped(std::move(execution));
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

    void report(std::shared_ptr<Execution> execution, RunOutcome outcome) {
        if (events.on_done) events.on_done(std::move(execution), std::move(outcome));
    }

    [[nodiscard]] std::shared_ptr<Slot> slot_of(const Execution& execution) const {
        for (const auto& slot : slots) {
            if (slot->execution.get() == &execution) return slot;
        }
        return nullptr;
    }

    /// Whether it was waiting for its slot.
    bool forget_waiting(const Execution& execution) {
        return std::erase_if(waiting,
                             [&](const auto& one) { return one.first.get() == &execution; }) > 0;
    }
};

PythonExecutor::PythonExecutor(asio::any_io_executor executor, PythonOptions options,
                               std::string worker, const RedisOptions& redis, Logger& log,
                               Events events)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(options), std::move(worker),
                                   redis, log, std::move(events))) {}

PythonExecutor::~PythonExecutor() {
    close();
}

void PythonExecutor::close() {
    impl_->closed = true;
    impl_->events = {};
    impl_->control.reset();
    for (const auto& slot : impl_->slots) {
        boost::system::error_code ignored;
        slot->socket.close(ignored);
    }
    impl_->waiting.clear();
    impl_->changed.notify();
    if (impl_->zygote != 0) bury(std::exchange(impl_->zygote, 0));
}

asio::awaitable<void> PythonExecutor::prepare() {
    impl_->spawn_zygote();
    const auto until = std::chrono::steady_clock::now() + longest_start;
    while (!impl_->ready && impl_->zygote != 0) {
        const auto now = std::chrono::steady_clock::now();
        if (now >= until) throw Error(Errc::usage, "preload: the modules take over a minute");
        co_await impl_->changed.wait(until - now);
    }
    if (impl_->closed) co_return;
    if (!impl_->ready) throw Error(Errc::usage, fmt::format("python: {}", impl_->trouble));
    impl_->has_been_ready = true;
}

void PythonExecutor::start(std::shared_ptr<Execution> execution) {
    impl_->waiting.emplace_back(std::move(execution), false);
    impl_->serve_waiting();
}

void PythonExecutor::interrupt(const std::shared_ptr<Execution>& execution, StopReason reason) {
    if (reason == StopReason::time_limit) return;  // The slot measures the same time.
    if (const auto slot = impl_->slot_of(*execution)) {
        if (slot->in_stopped_callback && reason == StopReason::stopped) return;
        slot->killed_for = reason;
        slot->kill();
    } else if (impl_->forget_waiting(*execution)) {
        // Later, because the caller may be on its way through all that runs.
        asio::post(impl_->executor, [impl = impl_, execution, reason] {
            if (reason == StopReason::stopped)
                impl->end_stopped(execution);
            else
                impl->report(execution, died(std::nullopt));
        });
    }
}

void PythonExecutor::abandon(const std::shared_ptr<Execution>& execution) {
    impl_->forget_waiting(*execution);
    if (const auto slot = impl_->slot_of(*execution)) {
        slot->execution.reset();
        slot->kill();
    }
}

}  // namespace rqxx::runtime
