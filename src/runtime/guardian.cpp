#include "runtime/guardian.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <rqxx/error.hpp>

namespace rqxx::runtime {
namespace {

/// The guardian's life. The worker may have threads: nothing here takes a lock or allocates.
[[noreturn]] void guard(int socket, const Guardian::Groups& groups) {
    ::setsid();
    set_process_identity("rqxx-guardian");
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2})
        ::signal(number, SIG_IGN);
    ::dup2(socket, 3);
    ::syscall(SYS_close_range, 4U, ~0U, 0U);
    const int null = ::open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; ++fd)
        ::dup2(null, fd);
    if (null > 3) ::close(null);
    char nothing = 0;
    while (::read(3, &nothing, 1) < 0 && errno == EINTR) {
    }
    for (const auto& group : groups) {
        const pid_t leader = group.load();
        if (leader > 0) ::kill(-leader, SIGKILL);
    }
    ::_exit(0);
}

}  // namespace

Guardian::Guardian() {
    void* shared =
        ::mmap(nullptr, sizeof(Groups), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return;
    groups_ = new (shared) Groups{};
    start();
}

void Guardian::start() {
    socket_ = Fd();
    process_ = 0;
    try {
        auto [ours, theirs] = socket_pair(SOCK_STREAM);
        const pid_t pid = ::fork();
        if (pid == 0) guard(theirs.get(), *groups_);
        if (pid < 0) return;
        process_ = pid;
        socket_ = std::move(ours);
    } catch (const Error&) {
        // There is no descriptor; the next group tries again.
    }
}

Guardian::~Guardian() {
    socket_ = Fd();
    if (process_ > 0) ::waitpid(process_, nullptr, 0);
    if (groups_ != nullptr) ::munmap(groups_, sizeof(Groups));
}

void Guardian::watch(pid_t group) {
    if (groups_ == nullptr) return;
    replace(0, group);
    if (process_ == 0 || ::waitpid(process_, nullptr, WNOHANG) != 0) start();
}

void Guardian::forget(pid_t group) {
    replace(group, 0);
}

void Guardian::replace(pid_t before, pid_t after) {
    if (groups_ == nullptr) return;
    const auto place = std::ranges::find_if(*groups_, [&](const auto& group) {
        return group.load(std::memory_order_relaxed) == before;
    });
    if (place != groups_->end()) place->store(after);
}

}  // namespace rqxx::runtime
