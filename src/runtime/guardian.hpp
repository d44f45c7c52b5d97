#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>

#include "runtime/process.hpp"

namespace rqxx::runtime {

/// A process that outlives the worker by a moment: where the worker is killed, it kills what the
/// worker's jobs have started, which the kernel alone would leave running.
///
/// Both share a list of process groups; that the worker is gone it knows by the end of a socket.
/// Where it is killed itself, the next group that is to be watched brings another.
class Guardian {
public:
    /// More than a worker has slots, twice over. 0: free.
    using Groups = std::array<std::atomic<pid_t>, 4096>;

    /// Where it cannot be started, only direct children end with a worker that is killed.
    Guardian();
    Guardian(const Guardian&) = delete;
    ~Guardian();
    void watch(pid_t group);
    /// Before the group's leader is waited for: its number may then be another's.
    void forget(pid_t group);

private:
    void start();
    void replace(pid_t before, pid_t after);
    Fd socket_;
    Groups* groups_ = nullptr;
    pid_t process_ = 0;
};

}  // namespace rqxx::runtime
