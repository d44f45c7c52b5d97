#include "runtime/process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <rqxx/error.hpp>
#include <string_view>

extern char** environ;

namespace rqxx::runtime {
namespace {

/// A small file of /proc; empty where the process is gone.
std::string read_proc(const std::string& path) {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) return {};
    std::array<char, 4096> bytes;
    const auto size = ::read(file.get(), bytes.data(), bytes.size());
    return size > 0 ? std::string(bytes.data(), static_cast<std::size_t>(size)) : std::string();
}

/// The numbers of a line, by their places; a field that is none counts as 0.
std::vector<std::uint64_t> numbers_of(std::string_view line) {
    std::vector<std::uint64_t> numbers;
    while (!line.empty()) {
        const auto end = std::min(line.find_first_of(" \n"), line.size());
        std::uint64_t number = 0;
        std::from_chars(line.data(), line.data() + end, number);
        numbers.push_back(number);
        line.remove_prefix(std::min(end + 1, line.size()));
    }
    return numbers;
}

void add_consumption(pid_t process, Consumption& total, int& budget) {
    if (--budget < 0) return;
    const std::string folder = fmt::format("/proc/{}", process);
    const auto memory = numbers_of(read_proc(folder + "/statm"));
    if (memory.size() > 1)
        total.rss_bytes += memory[1] * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    const std::string stat = read_proc(folder + "/stat");
    const auto name_end = stat.rfind(')');  // The name may hold anything.
    if (name_end != std::string::npos && name_end + 2 < stat.size()) {
        // From field 3 on: utime, stime, cutime, cstime are 14 to 17. Source: proc(5).
        const auto fields = numbers_of(std::string_view(stat).substr(name_end + 2));
        if (fields.size() > 14)
            total.cpu_seconds +=
                static_cast<double>(fields[11] + fields[12] + fields[13] + fields[14]) /
                static_cast<double>(::sysconf(_SC_CLK_TCK));
    }
    std::error_code error;
    for (const auto& task : std::filesystem::directory_iterator(folder + "/task", error)) {
        for (const auto child : numbers_of(read_proc(task.path().string() + "/children")))
            if (child != 0) add_consumption(static_cast<pid_t>(child), total, budget);
    }
}

}  // namespace

std::pair<Fd, Fd> socket_pair(int type) {
    int fds[2];
    if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) != 0)
        throw Error(Errc::io, fmt::format("cannot make a socket: {}", std::strerror(errno)));
    return {Fd(fds[0]), Fd(fds[1])};
}

std::pair<Fd, Fd> output_pipe() {
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC) != 0)
        throw Error(Errc::io, fmt::format("cannot make a pipe: {}", std::strerror(errno)));
    ::fcntl(fds[0], F_SETFL, O_NONBLOCK);
    return {Fd(fds[0]), Fd(fds[1])};
}

std::vector<char*> environment_without_ours() {
    constexpr std::array<std::string_view, 4> ours = {
        "RQXX_", "RQ_JOB_ID=", "RQ_EXECUTION_ID=", "RQ_WORKER_ID="};
    std::vector<char*> result;
    for (char** entry = environ; *entry != nullptr; ++entry) {
        const auto begins_so = [&](auto start) {
            return std::string_view(*entry).starts_with(start);
        };
        if (std::ranges::none_of(ours, begins_so)) result.push_back(*entry);
    }
    result.push_back(nullptr);
    return result;
}

namespace {

/// Where this process' arguments stand. Allocates nothing. Source: proc(5), /proc/pid/stat.
std::pair<char*, std::size_t> argument_area() noexcept {
    std::array<char, 4096> line;
    const int file = ::open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    const auto got = file < 0 ? -1 : ::read(file, line.data(), line.size());
    if (file >= 0) ::close(file);
    if (got <= 0) return {};
    std::string_view left(line.data(), static_cast<std::size_t>(got));
    left.remove_prefix(std::min(left.rfind(')') + 2, left.size()));  // The name may hold anything.
    constexpr int first_field = 3, arg_start = 48, arg_end = 49;
    std::array<std::uintptr_t, 2> ends{};
    for (int field = first_field; field <= arg_end; ++field) {
        const auto end = std::min(left.find(' '), left.size());
        if (field >= arg_start)
            std::from_chars(left.data(), left.data() + end,
                            ends[static_cast<std::size_t>(field - arg_start)]);
        left.remove_prefix(std::min(end + 1, left.size()));
    }
    if (ends[0] == 0 || ends[1] <= ends[0]) return {};
    return {reinterpret_cast<char*>(ends[0]), ends[1] - ends[0]};
}

}  // namespace

void set_process_identity(const char* title) noexcept {
    ::prctl(PR_SET_NAME, title);
    // The kernel shows the memory in which it put the arguments at the start.
    const auto [area, size] = argument_area();
    if (size > 0) {
        std::memset(area, 0, size);
        std::strncpy(area, title, size - 1);
    }
    char** kept = environ;
    for (char** entry = environ; *entry != nullptr; ++entry) {
        if (std::strncmp(*entry, "RQXX_", 5) == 0)
            std::memset(*entry, 0, std::strlen(*entry));
        else
            *kept++ = *entry;
    }
    *kept = nullptr;
}

std::string describe_status(int status) {
    if (!WIFSIGNALED(status)) return fmt::format("exit status {}", WEXITSTATUS(status));
    const char* name = ::sigabbrev_np(WTERMSIG(status));
    if (name == nullptr) return fmt::format("signal {}", WTERMSIG(status));
    return fmt::format("signal {} (SIG{})", WTERMSIG(status), name);
}

void bury(pid_t child) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
}

std::uint64_t own_data_bytes() {
    const auto memory = numbers_of(read_proc("/proc/self/statm"));
    return memory.size() > 5 ? memory[5] * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) : 0;
}

Consumption consumption_of(pid_t process) {
    Consumption total;
    int budget = 200;  // Of processes: looking must not cost more than what is looked at.
    add_consumption(process, total, budget);
    return total;
}

}  // namespace rqxx::runtime
