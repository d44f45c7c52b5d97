#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

/// What the executors that run jobs in processes have in common.
namespace rqxx::runtime {

/// Closed when it goes out of scope.
class Fd {
public:
    explicit Fd(int fd = -1) : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
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
/// The end to read, which does not block, and the end to write. Both closed on exec.
/// @throws Error `Errc::io`
[[nodiscard]] std::pair<Fd, Fd> output_pipe();

/// The environment without what is ours, which may hold passwords, and without what tells a job who
/// it is: a worker may itself run inside a job. Ends with a null pointer.
[[nodiscard]] std::vector<char*> environment_without_ours();

/// In a forked process that goes on with the worker's program: what others see of it. Its command
/// line becomes `title`, and our variables, which may hold passwords, leave its environment.
/// Allocates nothing.
void set_process_identity(const char* title) noexcept;

/// A status of waitpid in words: "exit status 3", "signal 11 (SIGSEGV)".
[[nodiscard]] std::string describe_status(int status);

/// Ends a child at once and takes its status.
void bury(pid_t child);

/// What a process and its descendants use now; zeros where there is none.
struct Consumption {
    std::uint64_t rss_bytes = 0;
    double cpu_seconds = 0;  ///< Of those that live, and of those that they have waited for.
};
[[nodiscard]] Consumption consumption_of(pid_t process);
/// Private memory that this process has asked for, touched or not: what RLIMIT_DATA counts.
[[nodiscard]] std::uint64_t own_data_bytes();

}  // namespace rqxx::runtime
