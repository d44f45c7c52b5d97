#include "runtime/python_zygote.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cstring>
#include <python_files.hpp>
#include <rqxx/error.hpp>
#include <string_view>

namespace rqxx::runtime {
namespace {

namespace json = boost::json;

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

/// Reads the program from one file descriptor, so that neither a file nor a long argument is
/// needed.
constexpr const char* bootstrap =
    "import sys\n"
    "source = open(4, 'rb').read().decode()\n"
    "names = {'__name__': 'rqxx_executor'}\n"
    "exec(compile(source, 'rqxx/python/executor.py', 'exec'), names)\n"
    "sys.exit(names['main'](3, source))\n";

/// Starts an interpreter with python/executor.py, and `control` as the socket that it obeys.
/// @throws Error `Errc::usage` when there is no such program
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
    // Our connections to Redis and to others: Asio's sockets stay open on exec.
    ::posix_spawn_file_actions_addclosefrom_np(&actions, 5);
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
    auto variables = environment_without_ours();
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

/// Word for word as RQ's workers leave it. Source: rq/worker/worker_classes.py (RQ 2.10).
std::string died(std::optional<int> status) {
    std::string text = "Work-horse terminated unexpectedly; waitpid returned ";
    text += status ? std::to_string(*status) : "None";
    if (status && WIFSIGNALED(*status)) text += fmt::format(" (signal {})", WTERMSIG(*status));
    return text + "; ";
}

json::array list_of(const std::vector<std::string>& names) {
    return json::array(names.begin(), names.end());
}

}  // namespace

ZygoteKind python_zygote(const PythonOptions& options, const RedisOptions& redis) {
    const bool one_job_each = options.isolation == Isolation::fork;
    return {.name = "Python",
            .spawn = [interpreter = options.interpreter](
                         int control) { return spawn_interpreter(interpreter, control); },
            .greeting = json::serialize(
                json::object{{"redis", redis_arguments(redis)},
                             {"path", list_of(options.path)},
                             {"init", list_of(options.init)},
                             {"preload", list_of(options.preload)},
                             {"exception_handlers", list_of(options.exception_handlers)},
                             {"serializer", options.serializer},
                             {"one_job_each", one_job_each}}),
            .serializer = options.serializer,
            .one_job_each = one_job_each,
            .listens = false,
            .died = died};
}

}  // namespace rqxx::runtime
