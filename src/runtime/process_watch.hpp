#pragma once

#include <sys/types.h>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <map>
#include <memory>
#include <rqxx/worker.hpp>
#include <string>

#include "ops/transitions.hpp"

namespace rqxx::runtime {

/// Measures processes that have limits, from outside, and says when one has gone beyond.
///
/// Memory is looked at every 50 ms; what grows faster meets RLIMIT_DATA at twice its limit.
/// Thread safety: use from the executor only.
class ProcessWatch : public std::enable_shared_from_this<ProcessWatch> {
public:
    /// The limit that was passed, the error to store, and what was used.
    using OnExcess = std::function<void(std::string cause, std::string text, ops::Usage)>;

    explicit ProcessWatch(const boost::asio::any_io_executor& executor) : timer_(executor) {}
    /// A process may have used CPU before: of `limits.max_cpu` that does not count.
    void watch(pid_t process, const ResourceLimits& limits, OnExcess on_excess);
    void forget(pid_t process);
    /// Nothing is watched any more, and nothing keeps the event loop running.
    void close();

private:
    struct Watched {
        ResourceLimits limits;
        OnExcess on_excess;
        double cpu_before = 0;
    };
    void look_later();
    void look();

    boost::asio::steady_timer timer_;
    bool waiting_ = false;
    std::map<pid_t, Watched> watched_;
};

/// For RLIMIT_DATA of a process that has asked for `now` bytes: keeps one that grows too fast to be
/// watched from taking all memory. python/executor.py counts the same.
[[nodiscard]] std::uint64_t most_data(std::uint64_t now, std::uint64_t max_rss);

}  // namespace rqxx::runtime
