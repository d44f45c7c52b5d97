#pragma once

#include <sys/types.h>

#include "runtime/process.hpp"

namespace rqxx::runtime {

/// A process that outlives the worker by a moment: where the worker is killed, it kills what the
/// worker's jobs have started, which the kernel alone would leave running.
///
/// It knows process groups, and that the worker is gone by the end of a socket.
class Guardian {
public:
    /// Where it cannot be started, only direct children end with a worker that is killed.
    Guardian();
    Guardian(const Guardian&) = delete;
    ~Guardian();
    void watch(pid_t group);
    /// Before the group's leader is waited for: its number may then be another's.
    void forget(pid_t group);

private:
    void tell(pid_t number) const;
    Fd socket_;
    pid_t process_ = 0;
};

}  // namespace rqxx::runtime
