#include "runtime/python_interpreter.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstring>
#include <python_files.hpp>
#include <rqxx/error.hpp>
#include <string_view>
#include <vector>

extern char** environ;

namespace rqxx::runtime {
namespace {

/// The environment without what is ours: it may hold passwords.
std::vector<char*> environment() {
    std::vector<char*> result;
    for (char** entry = environ; *entry != nullptr; ++entry) {
        if (std::string_view(*entry).substr(0, 5) != "RQXX_") result.push_back(*entry);
    }
    result.push_back(nullptr);
    return result;
}

/// Reads the program from one file descriptor, so that neither a file nor a long argument is
/// needed.
constexpr const char* bootstrap =
    "import sys\n"
    "source = open(4, 'rb').read().decode()\n"
    "names = {'__name__': 'rqxx_executor'}\n"
    "exec(compile(source, 'rqxx/python/executor.py', 'exec'), names)\n"
    "sys.exit(names['main'](3, source))\n";

}  // namespace

std::pair<Fd, Fd> socket_pair(int type) {
    int fds[2];
    if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) != 0)
        throw Error(Errc::io, fmt::format("cannot make a socket: {}", std::strerror(errno)));
    return {Fd(fds[0]), Fd(fds[1])};
}

pid_t spawn_interpreter(const std::string& interpreter, int control) {
    const std::string_view source = python_files().front().body;
    const Fd program(::memfd_create("executor.py", MFD_CLOEXEC));
    if (program.get() < 0 ||
        ::write(program.get(), source.data(), source.size()) != static_cast<ssize_t>(source.size()))
        throw Error(Errc::io, "cannot hand over the Python side");
    ::lseek(program.get(), 0, SEEK_SET);
    // Numbers above those that the child gets: dup2 of a descriptor onto itself keeps it closed.
    const Fd control_copy(::fcntl(control, F_DUPFD_CLOEXEC, 10));
    const Fd program_copy(::fcntl(program.get(), F_DUPFD_CLOEXEC, 10));
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, control_copy.get(), 3);
    ::posix_spawn_file_actions_adddup2(&actions, program_copy.get(), 4);
    posix_spawnattr_t attributes;
    ::posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    sigset_t all;
    sigfillset(&all);
    ::posix_spawnattr_setsigdefault(&attributes, &all);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    std::string name = interpreter, flag = "-c", code = bootstrap;
    char* const arguments[] = {name.data(), flag.data(), code.data(), nullptr};
    auto variables = environment();
    pid_t pid = 0;
    const int error = ::posix_spawnp(&pid, interpreter.c_str(), &actions, &attributes, arguments,
                                     variables.data());
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
    if (error != 0)
        throw Error(Errc::usage,
                    fmt::format("python: cannot run {}: {}", interpreter, std::strerror(error)));
    return pid;
}

void bury(pid_t interpreter) {
    ::kill(interpreter, SIGKILL);
    ::waitpid(interpreter, nullptr, 0);
}

}  // namespace rqxx::runtime
