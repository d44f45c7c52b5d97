#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <string>
#include <utility>

namespace rqxx::runtime {

/// Closed when it goes out of scope.
class Fd {
public:
    explicit Fd(int fd) : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&&) = delete;
    ~Fd() {
        if (fd_ >= 0) ::close(fd_);
    }
    [[nodiscard]] int get() const noexcept { return fd_; }
    [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }

private:
    int fd_;
};

/// Both closed on exec. @throws Error `Errc::io`
[[nodiscard]] std::pair<Fd, Fd> socket_pair(int type);

/// Starts an interpreter with python/executor.py, and `control` as the socket that it obeys.
/// @throws Error `Errc::usage` when there is no such program
pid_t spawn_interpreter(const std::string& interpreter, int control);

/// Ends it at once; its own children end with it.
void bury(pid_t interpreter);

}  // namespace rqxx::runtime
