#include "runtime/command_executor.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstring>
#include <list>
#include <rqxx/codec.hpp>

#include "base/task_group.hpp"
#include "base/utf8.hpp"
#include "base/wildcard.hpp"
#include "runtime/command_line.hpp"
#include "runtime/job_document.hpp"
#include "runtime/output_pipes.hpp"

namespace rqxx::runtime {
namespace {

namespace asio = boost::asio;

/// Larger results are no results.
constexpr std::size_t longest_result = std::size_t{16} << 20;
constexpr std::size_t shown_stderr = 4000;

RunOutcome failed(const std::string& text, std::string cause = {}) {
    return failed_with(RunOutcome::Kind::failure, "rqxx.CommandFailed: " + text + "\n",
                       std::move(cause));
}

/// The last line that is not empty, of text that comes in pieces.
class LastLine {
public:
    void add(std::string_view text) {
        for (;;) {
            const auto end = text.find('\n');
            const std::string_view part = text.substr(0, end);
            if (current_.size() + part.size() > longest_result)
                too_long_ = true;
            else
                current_ += part;
            if (end == std::string_view::npos) return;
            finish_line();
            text.remove_prefix(end + 1);
        }
    }
    /// @throws Error `Errc::usage` where it was too long.
    std::string take() {
        finish_line();
        if (last_too_long_)
            throw Error(Errc::usage, "the last line of stdout is larger than 16 MB");
        return std::move(last_);
    }

private:
    void finish_line() {
        while (current_.ends_with('\r'))
            current_.pop_back();
        if (!current_.empty() || too_long_) {
            last_ = std::move(current_);
            last_too_long_ = too_long_;
        }
        current_.clear();
        too_long_ = false;
    }
    std::string current_, last_;
    bool too_long_ = false, last_too_long_ = false;
};

/// What a child needs, made before it is there: it shares our memory until it runs its program.
struct ChildSetup {
    std::vector<std::string> words;
    std::vector<std::string> variables;
    std::vector<char*> arguments, environment;
    std::array<int, 3> streams{};
    std::uint64_t max_rss = 0;
    pid_t parent = ::getpid();
};

/// Starts the program in a process group of its own that is killed with this process.
///
/// vfork, because copying page tables would cost more than starting a small program, and because
/// posix_spawn cannot ask for PR_SET_PDEATHSIG. Returns the process, or an error number below 0.
pid_t spawn(ChildSetup& setup) {
    sigset_t all, before;
    sigfillset(&all);
    ::sigprocmask(SIG_SETMASK, &all, &before);
    volatile int error = 0;
    const pid_t pid = ::vfork();
    if (pid == 0) {
        // No handler of ours may run here: the mask goes last.
        for (int number = 1; number < NSIG; ++number)
            ::signal(number, SIG_DFL);
        ::setpgid(0, 0);
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::getppid() != setup.parent) ::_exit(127);
        for (int fd = 0; fd < 3; ++fd) {
            if (setup.streams[static_cast<std::size_t>(fd)] >= 0)
                ::dup2(setup.streams[static_cast<std::size_t>(fd)], fd);
        }
        // Our connections to Redis and to others: Asio's sockets stay open on exec.
        ::syscall(SYS_close_range, 3U, ~0U, 0U);
        if (setup.max_rss > 0) {
            rlimit limit{};
            ::getrlimit(RLIMIT_DATA, &limit);
            limit.rlim_cur = std::min<rlim_t>(most_data(0, setup.max_rss), limit.rlim_max);
            ::setrlimit(RLIMIT_DATA, &limit);
        }
        sigset_t none;
        sigemptyset(&none);
        ::sigprocmask(SIG_SETMASK, &none, nullptr);
        ::execvpe(setup.arguments[0], setup.arguments.data(), setup.environment.data());
        error = errno;
        ::_exit(127);
    }
    const int fork_error = errno;
    ::sigprocmask(SIG_SETMASK, &before, nullptr);
    if (pid < 0) return -fork_error;
    if (error != 0) {
        ::waitpid(pid, nullptr, 0);
        return -error;
    }
    return pid;
}

}  // namespace

struct CommandExecutor::Impl : std::enable_shared_from_this<Impl> {
    struct Run {
        std::shared_ptr<Execution> execution;
        const CommandFunction* command = nullptr;
        pid_t pid = 0;
        bool killed = false;
        std::shared_ptr<OutputPipes> output;
        LastLine last_line;
        std::string last_of_stderr;
        std::optional<RunOutcome> excess;  ///< It was killed for what it used.

        void signal(int number) const {
            if (pid != 0) ::kill(-pid, number);
        }
    };

    Impl(asio::any_io_executor executor_, std::vector<CommandFunction> functions_,
         CallbackPolicy callbacks_, ProcessTools tools_, Logger& log_, Events events_)
        : executor(std::move(executor_)),
          functions(std::move(functions_)),
          callbacks(callbacks_),
          tools(std::move(tools_)),
          log(log_),
          events(std::move(events_)) {}

    asio::any_io_executor executor;
    const std::vector<CommandFunction> functions;
    const CallbackPolicy callbacks;
    const ProcessTools tools;
    Logger& log;
    Events events;  ///< Empty once the worker is gone.
    std::list<std::shared_ptr<Run>> running;

    [[nodiscard]] const CommandFunction* find(const Call& call) const {
        if (call.func_name.empty() || !call.instance.is_none()) return nullptr;
        for (const auto& one : functions) {
            if (matches_wildcard(one.function, call.func_name)) return &one;
        }
        return nullptr;
    }

    [[nodiscard]] std::shared_ptr<Run> run_of(const Execution& execution) const {
        for (const auto& run : running) {
            if (run->execution.get() == &execution) return run;
        }
        return nullptr;
    }

    /// @throws Error where there is no process; `Errc::io` where there may be one later.
    void start(const std::shared_ptr<Run>& run) {
        const Execution& execution = *run->execution;
        ChildSetup setup;
        setup.words = command_words(*run->command, execution.job.id, execution.call);
        for (auto& word : setup.words)
            setup.arguments.push_back(word.data());
        setup.arguments.push_back(nullptr);
        setup.variables = {"RQ_JOB_ID=" + execution.job.id, "RQ_EXECUTION_ID=" + execution.id,
                           "RQ_WORKER_ID=" + tools.worker};
        setup.environment = environment_without_ours();
        setup.environment.pop_back();
        for (auto& variable : setup.variables)
            setup.environment.push_back(variable.data());
        setup.environment.push_back(nullptr);
        const Fd input = document(job_document(execution));
        run->output =
            std::make_shared<OutputPipes>(executor, tools.forward_output || tools.max_output == 0);
        run->output->read_for({run->execution});
        // Not the run's own: it holds the pipes.
        run->output->set_tap([to = run.get()](OutputPipes::Stream stream, std::string_view text) {
            if (stream == OutputPipes::Stream::out) {
                to->last_line.add(text);
                return;
            }
            std::string& kept = to->last_of_stderr;
            kept += text;
            if (kept.size() > shown_stderr) kept.erase(0, kept.size() - shown_stderr);
        });
        const auto ends = run->output->their_ends();
        setup.streams = {input.get(), ends[0], ends[1]};
        setup.max_rss = execution.limits.max_rss.value_or(0);
        const pid_t pid = spawn(setup);
        if (pid < 0) {
            run->output->close();
            const bool scarce =
                pid == -EAGAIN || pid == -ENOMEM || pid == -EMFILE || pid == -ENFILE;
            throw Error(scarce ? Errc::io : Errc::usage,
                        fmt::format("cannot run {}: {}", setup.words.front(), std::strerror(-pid)));
        }
        run->pid = pid;
        run->output->start();
        tools.guardian->watch(pid);
        tools.watch->watch(
            pid, execution.limits, [run](std::string cause, std::string text, ops::Usage usage) {
                run->excess = failed_with(RunOutcome::Kind::failure, text, std::move(cause));
                run->excess->usage = usage;
                run->signal(SIGKILL);
            });
        running.push_back(run);
        asio::co_spawn(executor, wait(shared_from_this(), run), asio::detached);
    }

    /// Where descriptors or processes have run out, a job waits for them, as for a slot.
    static asio::awaitable<void> start_later(std::shared_ptr<Impl> self, std::shared_ptr<Run> run) {
        Event pause(self->executor);
        for (;;) {
            co_await pause.wait(std::chrono::milliseconds(200));
            if (!self->events.on_done || run->execution->settled) co_return;
            RunOutcome outcome;
            try {
                if (run->execution->stop_reason == StopReason::none) {
                    self->start(run);
                    co_return;
                }
                outcome = ended_by_force(*run->execution);
            } catch (const Error& error) {
                if (error.code() == Errc::io) continue;
                outcome = failed(error.message());
            }
            self->events.on_done(std::exchange(run->execution, nullptr), std::move(outcome));
            co_return;
        }
    }

    /// A file in memory with the text: unlike a pipe it needs nobody who writes.
    static Fd document(const std::string& text) {
        Fd file(::memfd_create("job", MFD_CLOEXEC));
        std::string_view left = text;
        while (file.get() >= 0 && !left.empty()) {
            const auto written = ::write(file.get(), left.data(), left.size());
            if (written < 0) file = Fd();
            left.remove_prefix(written > 0 ? static_cast<std::size_t>(written) : left.size());
        }
        if (file.get() < 0)
            throw Error(Errc::io,
                        fmt::format("cannot hand over the job: {}", std::strerror(errno)));
        ::lseek(file.get(), 0, SEEK_SET);
        return file;
    }

    static asio::awaitable<void> wait(std::shared_ptr<Impl> self, std::shared_ptr<Run> run) {
        Fd fd(static_cast<int>(::syscall(SYS_pidfd_open, run->pid, 0)));
        if (fd.get() >= 0) {
            asio::posix::stream_descriptor end(self->executor, fd.release());
            boost::system::error_code error;
            co_await end.async_wait(asio::posix::stream_descriptor::wait_read,
                                    asio::redirect_error(asio::use_awaitable, error));
        } else {  // There is no descriptor left.
            Event pause(self->executor);
            siginfo_t ended{};
            const auto id = static_cast<id_t>(run->pid);
            while (::waitid(P_PID, id, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
                   ended.si_pid == 0)
                co_await pause.wait(std::chrono::milliseconds(10));
        }
        int status = 0;
        rusage used{};
        self->tools.watch->forget(run->pid);
        run->signal(SIGKILL);  // What it has left behind.
        self->tools.guardian->forget(run->pid);
        ::wait4(run->pid, &status, 0, &used);
        run->pid = 0;
        run->output->drain();
        run->output->close();
        self->running.remove(run);
        if (!self->events.on_done) co_return;
        RunOutcome outcome = self->outcome_of(*run, status);
        const auto seconds = [](const timeval& time) {
            return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
        };
        if (!outcome.usage) outcome.usage = ops::Usage{};
        outcome.usage->max_rss_kb =
            std::max<std::int64_t>(outcome.usage->max_rss_kb, used.ru_maxrss);
        outcome.usage->cpu_seconds = seconds(used.ru_utime) + seconds(used.ru_stime);
        self->events.on_done(std::exchange(run->execution, nullptr), std::move(outcome));
    }

    RunOutcome outcome_of(Run& run, int status) const {
        const Execution& execution = *run.execution;
        if (run.excess) return std::move(*run.excess);
        const StopReason reason = execution.stop_reason;
        const bool succeeded = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (reason != StopReason::none && !(succeeded && reason == StopReason::shutdown)) {
            RunOutcome outcome = ended_by_force(execution);
            if (reason == StopReason::time_limit && !run.killed)
                outcome.cause = "time limit (soft)";
            return outcome;
        }
        if (!succeeded) {
            const std::string how = describe_status(status);
            std::string text = to_valid_utf8(run.last_of_stderr);
            if (!text.empty() && !text.ends_with('\n')) text += '\n';
            text += fmt::format("rqxx.CommandFailed: {} ended with {}\n",
                                run.command->words.front(), how);
            return failed_with(RunOutcome::Kind::failure, text, how);
        }
        try {
            return {.kind = RunOutcome::Kind::success,
                    .payload = encode_return_value(result_of(run), execution.serializer),
                    .error = {}};
        } catch (const Error& error) {
            return failed(error.message());
        }
    }

    static Value result_of(Run& run) {
        const std::string line = run.last_line.take();
        switch (run.command->result) {
            case CommandFunction::Result::none:
                return {};
            case CommandFunction::Result::text:
                return line.empty() ? Value() : Value(to_valid_utf8(line));
            case CommandFunction::Result::json:
                break;
        }
        if (line.empty()) return {};
        auto value = decode_json(line, {.max_bytes = longest_result});
        if (!value)
            throw Error(Errc::usage,
                        fmt::format("the last line of stdout is not JSON ({}): {}",
                                    value.error().describe(), to_valid_utf8(line.substr(0, 200))));
        return std::move(*value);
    }

    /// Later: who starts a job does not expect its end.
    void report(std::shared_ptr<Execution> execution, RunOutcome outcome) {
        asio::post(executor, [self = shared_from_this(), execution = std::move(execution),
                              outcome = std::move(outcome)]() mutable {
            if (self->events.on_done)
                self->events.on_done(std::move(execution), std::move(outcome));
        });
    }
};

CommandExecutor::CommandExecutor(asio::any_io_executor executor,
                                 std::vector<CommandFunction> functions, CallbackPolicy callbacks,
                                 ProcessTools tools, Logger& log, Events events)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(functions), callbacks,
                                   std::move(tools), log, std::move(events))) {
    for (const auto& one : impl_->functions) {
        try {
            check_placeholders(one);
        } catch (const Error& error) {
            throw Error(Errc::usage, fmt::format("command: {}: {}", one.function, error.message()));
        }
    }
}

CommandExecutor::~CommandExecutor() {
    close();
}

void CommandExecutor::close() {
    impl_->events = {};
    for (const auto& run : impl_->running)
        run->signal(SIGKILL);
}

void CommandExecutor::start(std::shared_ptr<Execution> execution) {
    if (const std::string callback = callback_of(execution->job); !callback.empty()) {
        if (impl_->callbacks == CallbackPolicy::require) {
            impl_->report(std::move(execution),
                          failed_with(RunOutcome::Kind::failure,
                                      fmt::format("rqxx.UnsupportedCallback: {} would not be "
                                                  "called: the function is a command\n",
                                                  callback)));
            return;
        }
        impl_->log.warning("Callback skipped", "id", execution->job.id, "callback", callback,
                           "reason", "the function is a command");
    }
    auto run = std::make_shared<Impl::Run>();
    run->execution = execution;
    run->command = impl_->find(execution->call);
    try {
        impl_->start(run);
    } catch (const Error& error) {
        if (error.code() == Errc::io) {
            impl_->log.warning("There is no process for a job", "id", execution->job.id, "error",
                               error.message());
            asio::co_spawn(impl_->executor, Impl::start_later(impl_, std::move(run)),
                           asio::detached);
            return;
        }
        impl_->report(std::move(execution), failed(error.message()));
    }
}

void CommandExecutor::interrupt(const std::shared_ptr<Execution>& execution, StopReason) {
    if (const auto run = impl_->run_of(*execution)) run->signal(SIGTERM);
}

bool CommandExecutor::kill(const std::shared_ptr<Execution>& execution) {
    const auto run = impl_->run_of(*execution);
    if (!run) return false;
    run->killed = true;
    run->signal(SIGKILL);
    return true;
}

void CommandExecutor::abandon(const std::shared_ptr<Execution>& execution) {
    if (const auto run = impl_->run_of(*execution)) run->signal(SIGKILL);
}

}  // namespace rqxx::runtime
