#pragma once

#include <sys/types.h>

#include <deque>
#include <set>

#include "runtime/process.hpp"

namespace rqxx::runtime {

/// A process that outlives the worker by a moment: where the worker is killed, it kills what the
/// worker's jobs have started, which the kernel alone would leave running.
///
/// It knows process groups, and that the worker is gone by the end of a socket. Where it is killed
/// itself, the next that is to be watched brings another.
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
    void start();
    void tell(pid_t number);
    /// False where there is nobody any more.
    bool send_unsent();
    Fd socket_;
    pid_t process_ = 0;
    std::set<pid_t> groups_;
    std::deque<pid_t> unsent_;  ///< It is behind: one that it never forgets would be killed later.
};

}  // namespace rqxx::runtime
