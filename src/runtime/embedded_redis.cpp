#include "runtime/embedded_redis.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <iterator>
#include <rqxx/error.hpp>
#include <thread>

namespace rqxx::runtime {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

std::string read_file(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

std::string last_lines(const fs::path& path, std::size_t count) {
    const std::string text = read_file(path);
    std::size_t at = text.size();
    for (std::size_t i = 0; i <= count && at != std::string::npos && at > 0; ++i)
        at = text.rfind('\n', at - 1);
    return text.substr(at == std::string::npos ? 0 : at + 1);
}

/// Unix socket addresses hold 107 bytes; a deep data directory gets a short path elsewhere.
fs::path socket_path(const fs::path& directory) {
    fs::path path = directory / "redis.sock";
    if (path.native().size() <= 100) return path;
    const fs::path shared = fs::temp_directory_path() / fmt::format("rqxx-{}", ::getuid());
    fs::create_directories(shared);
    fs::permissions(shared, fs::perms::owner_all);
    struct stat owner {};
    if (::lstat(shared.c_str(), &owner) != 0 || !S_ISDIR(owner.st_mode) ||
        owner.st_uid != ::getuid())
        throw Error(Errc::io, fmt::format("{} belongs to somebody else", shared.native()));
    return shared / fmt::format("{:016x}.sock", std::hash<std::string>{}(directory.native()));
}

bool wait_for_end(pid_t pid, std::chrono::milliseconds timeout, bool is_child) {
    const auto until = std::chrono::steady_clock::now() + timeout;
    for (;;) {
        if (is_child ? ::waitpid(pid, nullptr, WNOHANG) != 0 : ::kill(pid, 0) != 0) return true;
        if (std::chrono::steady_clock::now() > until) return false;
        std::this_thread::sleep_for(10ms);
    }
}

void end_process(pid_t pid, bool is_child) {
    ::kill(pid, SIGTERM);
    if (wait_for_end(pid, 10s, is_child)) return;
    ::kill(pid, SIGKILL);
    wait_for_end(pid, 5s, is_child);
}

}  // namespace

DataDirectory::DataDirectory(fs::path path) {
    std::error_code error;
    fs::create_directories(path, error);
    path_ = fs::canonical(path, error);
    if (error)
        throw Error(Errc::io,
                    fmt::format("data-dir: cannot create {}: {}", path.native(), error.message()));
    const fs::path lock = path_ / "lock";
    lock_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock_ < 0)
        throw Error(Errc::io, fmt::format("data-dir: cannot write to {}: {}", path_.native(),
                                          std::strerror(errno)));
    if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
        const std::string pid = read_file(lock);
        ::close(lock_);
        throw Error(Errc::usage,
                    fmt::format("data-dir: {} is in use by process {}", path_.native(), pid));
    }
    const std::string pid = std::to_string(::getpid());
    if (::ftruncate(lock_, 0) != 0 || ::write(lock_, pid.data(), pid.size()) < 0) {
        // Only the message for a second instance suffers.
    }
}

DataDirectory::~DataDirectory() {
    ::close(lock_);
}

EmbeddedRedis::EmbeddedRedis(const DataDirectory& directory, Logger& log, std::string program)
    : directory_(directory.path()),
      socket_(socket_path(directory.path())),
      program_(std::move(program)),
      log_(log) {
    end_predecessor();
    start();
}

EmbeddedRedis::~EmbeddedRedis() {
    stop();
}

RedisUrl EmbeddedRedis::url() const {
    RedisUrl url;
    url.transport = RedisUrl::Transport::unix_socket;
    url.path = socket_.native();
    return url;
}

void EmbeddedRedis::end_predecessor() {
    const pid_t pid =
        static_cast<pid_t>(std::strtol(read_file(directory_ / "redis.pid").c_str(), nullptr, 10));
    if (pid > 1) {
        // The number may belong to anybody by now: only a redis-server that works in our directory
        // is ours.
        std::error_code error;
        const fs::path cwd = fs::read_symlink(fmt::format("/proc/{}/cwd", pid), error);
        const std::string name = read_file(fmt::format("/proc/{}/comm", pid));
        if (!error && cwd == directory_ / "redis" && name.starts_with("redis-server")) {
            log_.warning("Ending the Redis of a crashed predecessor", "pid",
                         static_cast<std::int64_t>(pid));
            end_process(pid, false);
        }
    }
    std::error_code ignored;
    fs::remove(socket_, ignored);
}

void EmbeddedRedis::start() {
    const fs::path work = directory_ / "redis";
    fs::create_directories(work);
    // Through standard input, so that nothing of it shows in the process list. Double quotes as
    // redis.conf has them.
    const auto quoted = [](const fs::path& path) {
        std::string text = "\"";
        for (char c : path.native()) {
            if (c == '"' || c == '\\') text += '\\';
            text += c;
        }
        return text + "\"";
    };
    const std::string config = fmt::format(
        "port 0\nunixsocket {}\nunixsocketperm 700\ndir {}\npidfile {}\nlogfile {}\ndaemonize "
        "no\nloglevel notice\n"
        "appendonly yes\nappendfsync everysec\nsave \"\"\nmaxmemory-policy noeviction\n"
        // One small stream per job: with the default node of 4 kB most of it would be empty.
        "stream-node-max-bytes 256\n",
        quoted(socket_), quoted(work), quoted(directory_ / "redis.pid"),
        quoted(directory_ / "redis.log"));

    int input[2];
    int failed[2];
    if (::pipe2(input, O_CLOEXEC) != 0 || ::pipe2(failed, O_CLOEXEC) != 0)
        throw Error(Errc::io, fmt::format("cannot start redis-server: {}", std::strerror(errno)));
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ < 0)
        throw Error(Errc::io, fmt::format("cannot start redis-server: {}", std::strerror(errno)));
    if (pid_ == 0) {
        // Only async-signal-safe calls from here to exec.
        ::prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (::getppid() != parent) ::_exit(1);
        ::setpgid(0, 0);  // Ctrl-C at the terminal is for us; the server is stopped last.
        ::dup2(input[0], STDIN_FILENO);
        const int null = ::open("/dev/null", O_WRONLY);
        ::dup2(null, STDOUT_FILENO);
        ::dup2(null, STDERR_FILENO);
        if (::chdir(work.c_str()) == 0)
            ::execlp(program_.c_str(), program_.c_str(), "-", static_cast<char*>(nullptr));
        const int reason = errno;
        if (::write(failed[1], &reason, sizeof reason) < 0) ::_exit(126);
        ::_exit(127);
    }
    ::close(input[0]);
    ::close(failed[1]);
    if (::write(input[1], config.data(), config.size()) < 0)
        log_.debug("redis-server did not take its configuration");
    ::close(input[1]);
    int reason = 0;
    const bool exec_failed = ::read(failed[0], &reason, sizeof reason) == sizeof reason;
    ::close(failed[0]);
    if (exec_failed) {
        ::waitpid(pid_, nullptr, 0);
        pid_ = -1;
        throw Error(
            Errc::io,
            reason == ENOENT
                ? fmt::format(
                      "{} was not found. Install it (Debian: apt-get install redis-server), or "
                      "give --redis-url",
                      program_)
                : fmt::format("cannot run {}: {}", program_, std::strerror(reason)));
    }
    // A large append-only file takes its time to load; the socket answers before that.
    const auto until = std::chrono::steady_clock::now() + 30s;
    while (!accepts()) {
        if (::waitpid(pid_, nullptr, WNOHANG) != 0) {
            pid_ = -1;
            throw Error(Errc::io, fmt::format("redis-server ended at once. Its log says:\n{}",
                                              last_lines(directory_ / "redis.log", 8)));
        }
        if (std::chrono::steady_clock::now() > until) {
            stop();
            throw Error(Errc::io,
                        fmt::format("redis-server does not listen on {}", socket_.native()));
        }
        std::this_thread::sleep_for(5ms);
    }
    std::ofstream(directory_ / "redis.url") << url().redacted() << '\n';
    log_.debug("redis-server started", "pid", static_cast<std::int64_t>(pid_));
}

bool EmbeddedRedis::accepts() const noexcept {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, socket_.c_str(), sizeof address.sun_path - 1);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool connected =
        ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    ::close(fd);
    return connected;
}

void EmbeddedRedis::keep_running() {
    if (pid_ > 0 && ::waitpid(pid_, nullptr, WNOHANG) == 0) return;
    log_.error("redis-server has ended; starting it again", "log",
               (directory_ / "redis.log").native());
    std::error_code ignored;
    fs::remove(socket_, ignored);
    start();
}

void EmbeddedRedis::stop() noexcept {
    if (pid_ <= 0) return;
    end_process(pid_, true);
    pid_ = -1;
    std::error_code ignored;
    fs::remove(directory_ / "redis.url", ignored);
    fs::remove(socket_, ignored);
}

std::optional<RedisUrl> find_embedded_redis(const fs::path& data_dir) {
    std::string text = read_file(data_dir / "redis.url");
    while (!text.empty() && text.back() == '\n')
        text.pop_back();
    const auto url = parse_redis_url(text);
    if (!url || !fs::exists(url->path)) return std::nullopt;
    return *url;
}

}  // namespace rqxx::runtime
