#include "runtime/guardian.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <rqxx/error.hpp>

namespace rqxx::runtime {
namespace {

/// More than a worker has slots, twice over.
constexpr std::size_t most_groups = 4096;

/// The guardian's life. The worker may have threads: nothing here takes a lock or allocates.
[[noreturn]] void guard(int socket) {
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
    static std::array<pid_t, most_groups> groups;
    std::size_t count = 0;
    pid_t said = 0;
    for (;;) {
        const auto size = ::read(3, &said, sizeof(said));
        if (size < 0 && errno == EINTR) continue;
        if (size != sizeof(said)) break;
        auto* const end = groups.data() + count;
        if (said > 0 && count < most_groups) {
            groups[count++] = said;
        } else if (auto* found = std::find(groups.data(), end, -said); found != end) {
            *found = groups[--count];
        }
    }
    for (std::size_t i = 0; i < count; ++i)
        ::kill(-groups[i], SIGKILL);
    ::_exit(0);
}

}  // namespace

Guardian::Guardian() {
    start();
}

void Guardian::start() {
    auto [ours, theirs] = socket_pair(SOCK_SEQPACKET);
    process_ = ::fork();
    if (process_ == 0) guard(theirs.get());
    if (process_ > 0) socket_ = std::move(ours);
}

Guardian::~Guardian() {
    socket_ = Fd();
    if (process_ > 0) ::waitpid(process_, nullptr, 0);
}

void Guardian::watch(pid_t group) {
    groups_.insert(group);
    tell(group);
}

void Guardian::forget(pid_t group) {
    groups_.erase(group);
    if (std::erase(unsent_, group) == 0) tell(-group);
}

void Guardian::tell(pid_t number) {
    if (socket_.get() < 0) return;
    unsent_.push_back(number);
    if (send_unsent()) return;
    socket_ = Fd();
    bury(process_);
    unsent_.assign(groups_.begin(), groups_.end());
    try {
        start();
    } catch (const Error&) {
        // There is no descriptor: as where it could not be started in the first place.
        process_ = 0;
    }
    if (socket_.get() >= 0) send_unsent();
}

bool Guardian::send_unsent() {
    while (!unsent_.empty()) {
        const pid_t number = unsent_.front();
        if (::send(socket_.get(), &number, sizeof(number), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            return errno == EAGAIN || errno == EINTR || errno == ENOBUFS;
        unsent_.pop_front();
    }
    return true;
}

}  // namespace rqxx::runtime
