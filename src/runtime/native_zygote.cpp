#include "runtime/native_zygote.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <rqxx/codec.hpp>
#include <set>
#include <span>
#include <thread>

#include "runtime/frames.hpp"
#include "runtime/native_runner.hpp"

namespace rqxx::runtime {
namespace {

namespace json = boost::json;

/// In the zygote and its slots: where the socket to the worker stands.
constexpr int control_fd = 3;

void close_from(unsigned first) {
    ::syscall(SYS_close_range, first, ~0U, 0U);
}

/// As the worker had them when it began.
void reset_signals() {
    for (int number = 1; number < NSIG; ++number)
        ::signal(number, SIG_DFL);
    ::signal(SIGPIPE, SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

void die_with_parent(pid_t parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
}

bool read_exactly(int fd, char* to, std::size_t size) {
    while (size > 0) {
        const auto got = ::read(fd, to, size);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        to += got;
        size -= static_cast<std::size_t>(got);
    }
    return true;
}

/// A process that runs jobs, one after the other.
///
/// The main thread listens, so that a job can be asked to stop; the other runs the handlers.
class NativeSlot {
public:
    NativeSlot(const HandlerRegistry& handlers, CallbackPolicy callbacks, Logger& log)
        : runner_(
              handlers, callbacks, log,
              {.on_callback =
                   [this](const std::shared_ptr<Execution>& execution, std::chrono::seconds limit) {
                       in_callback_ = true;
                       send(Frame()
                                .add("callback")
                                .add(execution->id)
                                .add(std::to_string(limit.count()))
                                .finish());
                   },
               .on_progress =
                   [this](Execution& execution, const std::string& json) {
                       send(Frame().add("progress").add(execution.id).add(json).finish());
                   },
               .on_print =
                   [this](Execution& execution, std::string_view text) {
                       if (execution.aggregated) {  // What is on stdout is said of all jobs.
                           send(Frame().add("print").add(execution.id).add(text).finish());
                           return;
                       }
                       std::fwrite(text.data(), 1, text.size(), stdout);
                       std::fflush(stdout);
                   }}) {}

    /// Until the worker closes the socket.
    [[noreturn]] void serve() {
        std::thread jobs;
        std::string body;
        while (read(body)) {
            const auto fields = fields_of(body);
            if (fields.size() >= 3 && fields[0] == "stop") {
                stop(fields[1], fields[2]);
            } else if (fields.size() >= 8) {
                if (jobs.joinable()) jobs.join();  // The last one has said that it is done.
                auto executions = executions_in(fields);
                {
                    // Before anything else is read: a request to stop may stand behind it.
                    const std::scoped_lock lock(current_mutex_);
                    current_ = executions;
                    in_callback_ = false;
                }
                jobs =
                    std::thread([this, executions = std::move(executions), said = std::move(body)] {
                        const auto parts = fields_of(said);
                        if (parts[0] == "group")
                            run_together(executions, parts);
                        else
                            run(executions.front(), parts);
                    });
            }
        }
        std::fflush(nullptr);
        ::_exit(0);
    }

private:
    bool read(std::string& body) {
        std::array<char, 4> size{};
        if (!read_exactly(control_fd, size.data(), size.size())) return false;
        body.resize(frame_size(std::string_view(size.data(), size.size())));
        return read_exactly(control_fd, body.data(), body.size());
    }

    void send(const std::string& frame) {
        const std::scoped_lock lock(sending_);
        std::string_view left = frame;
        while (!left.empty()) {
            const auto sent = ::send(control_fd, left.data(), left.size(), MSG_NOSIGNAL);
            if (sent < 0 && errno == EINTR) continue;
            if (sent < 0) ::_exit(0);  // The worker is gone.
            left.remove_prefix(static_cast<std::size_t>(sent));
        }
    }

    /// With their ids alone.
    static std::vector<std::shared_ptr<Execution>> executions_in(
        const std::vector<std::string_view>& fields) {
        std::vector<std::shared_ptr<Execution>> executions;
        const auto add = [&](std::string_view id) {
            executions.push_back(std::make_shared<Execution>());
            executions.back()->id = id;
        };
        if (fields[0] != "group") add(fields[1]);
        for (std::size_t at = first_of_group; fields[0] == "group" && at + 4 < fields.size();
             at = next_of_group(fields, at))
            add(fields[at]);
        return executions;
    }

    /// Where the jobs of a call begin, each with five fields and its hash.
    static constexpr std::size_t first_of_group = 4;
    static std::size_t next_of_group(const std::vector<std::string_view>& fields, std::size_t at) {
        return at + 5 + 2 * std::strtoull(std::string(fields[at + 4]).c_str(), nullptr, 10);
    }

    void stop(std::string_view execution_id, std::string_view reason) {
        const std::scoped_lock lock(current_mutex_);
        const auto found = std::ranges::find_if(
            current_, [&](const auto& execution) { return execution->id == execution_id; });
        if (found == current_.end()) return;
        const auto why = static_cast<StopReason>(std::atoi(std::string(reason).c_str()));
        if (in_callback_ && why == StopReason::time_limit)
            (*found)->callback_over_limit();
        else
            (*found)->request_stop(why);
    }

    static void read_job(Execution& execution, std::string_view id, std::string_view serializer,
                         std::span<const std::string_view> hash, std::string_view time_limit) {
        std::vector<std::pair<std::string_view, std::string_view>> fields;
        for (std::size_t i = 0; i + 1 < hash.size(); i += 2)
            fields.emplace_back(hash[i], hash[i + 1]);
        auto job = parse_job(id, fields);
        if (job) execution.job = std::move(*job);
        auto call = decode_call(execution.job.data, {}, &execution.serializer);
        if (call) execution.call = std::move(*call);
        execution.serializer = serializer == "json" ? Serializer::json : Serializer::pickle;
        execution.time_limit = std::atoll(std::string(time_limit).c_str());
        if (execution.time_limit > 0)
            execution.function_deadline =
                std::chrono::steady_clock::now() + std::chrono::seconds(execution.time_limit);
    }

    void run(const std::shared_ptr<Execution>& execution,
             const std::vector<std::string_view>& fields) {
        read_job(*execution, fields[2], fields[3], std::span(fields).subspan(8), fields[6]);
        limit_memory(*execution, fields[7]);
        Frame frame;
        if (fields[0] == "stopped") {
            const std::string error = runner_.call_stopped_callback(execution);
            begin_done(frame, *execution, "").add("stopped").add(error);
        } else {
            const RunOutcome outcome = runner_.run(execution);
            begin_done(frame, *execution, outcome.cause);
            add_outcome(frame, outcome);
        }
        forget(*execution);
        std::fflush(nullptr);
        send(frame.finish());
    }

    void run_together(const std::vector<std::shared_ptr<Execution>>& executions,
                      const std::vector<std::string_view>& fields) {
        std::size_t at = first_of_group;
        for (const auto& execution : executions) {
            const std::size_t next = next_of_group(fields, at);
            read_job(*execution, fields[at + 1], fields[at + 2],
                     std::span(fields).subspan(at + 5, next - at - 5), fields[2]);
            execution->aggregated = true;
            if (at == first_of_group) limit_memory(*execution, fields[3]);
            execution->limits = executions.front()->limits;
            at = next;
        }
        runner_.run_together(
            executions, [this](const std::shared_ptr<Execution>& execution, RunOutcome outcome) {
                Frame frame;
                begin_done(frame, *execution, outcome.cause);
                add_outcome(frame, outcome);
                forget(*execution);
                std::fflush(nullptr);
                send(frame.finish());
            });
    }

    /// It is not to be stopped any more.
    void forget(const Execution& execution) {
        const std::scoped_lock lock(current_mutex_);
        std::erase_if(current_, [&](const auto& one) { return one.get() == &execution; });
    }

    static void limit_memory(Execution& execution, std::string_view max_rss) {
        const auto bytes = std::strtoull(std::string(max_rss).c_str(), nullptr, 10);
        if (bytes > 0) execution.limits.max_rss = bytes;
        rlimit limit{};
        ::getrlimit(RLIMIT_DATA, &limit);
        limit.rlim_cur = limit.rlim_max;
        if (bytes > 0)
            limit.rlim_cur = std::min<rlim_t>(limit.rlim_cur, most_data(own_data_bytes(), bytes));
        ::setrlimit(RLIMIT_DATA, &limit);
    }

    static Frame& begin_done(Frame& frame, const Execution& execution, std::string_view cause) {
        rusage own{}, children{};
        ::getrusage(RUSAGE_SELF, &own);
        ::getrusage(RUSAGE_CHILDREN, &children);
        double cpu = 0;
        for (const timeval& time :
             {own.ru_utime, own.ru_stime, children.ru_utime, children.ru_stime})
            cpu += static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
        return frame.add("done")
            .add(execution.id)
            .add(std::to_string(std::max(own.ru_maxrss, children.ru_maxrss)))
            .add(fmt::format("{:.6f}", cpu))
            .add(cause);
    }

    static void add_outcome(Frame& frame, const RunOutcome& outcome) {
        switch (outcome.kind) {
            case RunOutcome::Kind::success:
                frame.add("success").add(outcome.payload);
                break;
            case RunOutcome::Kind::retry: {
                const auto first = outcome.payload.find(' ');
                const auto second = outcome.payload.find(' ', first + 1);
                const std::string_view payload = outcome.payload;
                frame.add("retry")
                    .add(payload.substr(0, first))
                    .add(payload.substr(first + 1, second - first - 1))
                    .add(payload.substr(second + 1));
                break;
            }
            case RunOutcome::Kind::postponed:
                frame.add("later").add(outcome.payload.substr(0, outcome.payload.find(' ')));
                break;
            case RunOutcome::Kind::stopped:
                frame.add("stopped").add("");
                break;
            default:
                frame.add("failure").add(outcome.payload).add(outcome.error);
        }
    }

    NativeRunner runner_;
    std::mutex sending_;
    std::mutex current_mutex_;
    std::vector<std::shared_ptr<Execution>> current_;
    std::atomic<bool> in_callback_{false};
};

/// Forks slots as the worker asks, and tells how they end. The same as Zygote in
/// python/executor.py.
class NativeZygote {
public:
    NativeZygote(const HandlerRegistry& handlers, CallbackPolicy callbacks, Logger& log)
        : handlers_(handlers), callbacks_(callbacks), log_(log) {}

    [[noreturn]] void serve() {
        sigset_t child;
        sigemptyset(&child);
        sigaddset(&child, SIGCHLD);
        ::sigprocmask(SIG_BLOCK, &child, nullptr);
        const int ended = ::signalfd(-1, &child, SFD_NONBLOCK | SFD_CLOEXEC);
        char greeting[16];
        ::recv(control_fd, greeting, sizeof(greeting), 0);
        say({{"ready", true}, {"version", RQXX_VERSION}});
        for (;;) {
            pollfd watched[] = {{control_fd, POLLIN, 0}, {ended, POLLIN, 0}};
            if (::poll(watched, 2, -1) < 0) continue;
            signalfd_siginfo told;
            while (::read(ended, &told, sizeof(told)) > 0) {
            }
            reap();
            if (watched[0].revents != 0 && !obey()) break;
        }
        for (const pid_t slot : slots_)
            ::kill(slot, SIGKILL);
        ::_exit(0);
    }

private:
    static void say(const json::object& what) {
        const std::string text = json::serialize(what);
        ::send(control_fd, text.data(), text.size(), MSG_NOSIGNAL);
    }

    void reap() {
        int status = 0;
        rusage used{};
        for (;;) {
            // While its number is still its own: what it has started goes with one that died.
            siginfo_t ended{};
            if (::waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) != 0 || ended.si_pid == 0)
                break;
            if (ended.si_code != CLD_EXITED || ended.si_status != 0) ::kill(-ended.si_pid, SIGKILL);
            const pid_t pid = ::wait4(ended.si_pid, &status, WNOHANG, &used);
            if (pid <= 0) break;
            slots_.erase(pid);
            const auto seconds = [](const timeval& time) {
                return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
            };
            say({{"exited", pid},
                 {"status", status},
                 {"max_rss_kb", used.ru_maxrss},
                 {"cpu_seconds", seconds(used.ru_utime) + seconds(used.ru_stime)}});
        }
    }

    /// Whether there was something to do: at the end of the worker there is not.
    bool obey() {
        char text[4096];
        alignas(cmsghdr) char rights[CMSG_SPACE(3 * sizeof(int))];
        iovec part{text, sizeof(text)};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = rights;
        message.msg_controllen = sizeof(rights);
        const auto size = ::recvmsg(control_fd, &message, MSG_CMSG_CLOEXEC);
        if (size < 0 && errno == EINTR) return true;
        if (size <= 0) return false;
        std::array<int, 3> fds{-1, -1, -1};
        const cmsghdr* header = CMSG_FIRSTHDR(&message);
        if (header != nullptr && header->cmsg_type == SCM_RIGHTS)
            std::memcpy(fds.data(), CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
        const json::value number = json::parse({text, static_cast<std::size_t>(size)}).at("fork");
        const pid_t zygote = ::getpid();
        const bool all_there = (message.msg_flags & MSG_CTRUNC) == 0;
        errno = EMFILE;
        const pid_t pid = all_there ? ::fork() : -1;
        if (pid == 0) become_slot(fds, zygote);
        const int error = errno;
        for (const int fd : fds) {
            if (fd >= 0) ::close(fd);
        }
        if (pid < 0) {
            say({{"failed", number}, {"why", std::strerror(error)}});
        } else {
            slots_.insert(pid);
            say({{"forked", number}, {"pid", pid}});
        }
        return true;
    }

    [[noreturn]] void become_slot(const std::array<int, 3>& fds, pid_t zygote) {
        ::setpgid(0, 0);
        ::prctl(PR_SET_NAME, "rqxx-slot");
        reset_signals();
        ::signal(SIGINT, SIG_IGN);
        die_with_parent(zygote);
        if (fds[1] >= 0) ::dup2(fds[1], STDOUT_FILENO);
        if (fds[2] >= 0) ::dup2(fds[2], STDERR_FILENO);
        ::dup2(fds[0], control_fd);
        close_from(control_fd + 1);
        NativeSlot(handlers_, callbacks_, log_).serve();
    }

    const HandlerRegistry& handlers_;
    const CallbackPolicy callbacks_;
    Logger& log_;
    std::set<pid_t> slots_;
};

std::string died(std::optional<int> status) {
    return fmt::format("rqxx.ProcessEnded: the handler's process ended with {}\n",
                       status ? describe_status(*status) : "an unknown status");
}

}  // namespace

ZygoteKind native_zygote(const HandlerRegistry& handlers, CallbackPolicy callbacks, Logger& log) {
    return {.name = "Native process",
            .spawn =
                [&handlers, callbacks, &log](int control) {
                    const pid_t worker = ::getpid();
                    const pid_t pid = ::fork();
                    if (pid < 0)
                        throw Error(Errc::io, fmt::format("cannot fork: {}", std::strerror(errno)));
                    if (pid > 0) return pid;
                    reset_signals();
                    ::signal(SIGINT, SIG_IGN);  // The worker ends it by closing the socket.
                    ::signal(SIGTERM, SIG_IGN);
                    die_with_parent(worker);
                    set_process_identity("rqxx-zygote");
                    ::dup2(control, control_fd);
                    close_from(control_fd + 1);
                    NativeZygote(handlers, callbacks, log).serve();
                },
            .greeting = "{}",
            .one_job_each = false,
            .listens = true,
            .died = died};
}

}  // namespace rqxx::runtime
