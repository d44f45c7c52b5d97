#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <rqxx/log.hpp>
#include <rqxx/redis/client.hpp>
#include <string>
#include <vector>

namespace rqxx {

struct SchedulerOptions {
    std::vector<std::string> queues;  ///< Empty: all that Redis knows, read again each second.
    std::string name;                 ///< Empty: a random one. Stands in the locks.
};

/// Moves jobs that were enqueued for later, and delayed retries, to their queues when they are due.
///
/// One scheduler at a time serves a queue: RQ's lock is shared with stock RQ schedulers, and any
/// number of these may run. One that died is replaced within 15 s; a stock one when its lock
/// expires, after a minute. A job is promoted within 100 ms of its time, by Redis' clock, and once,
/// whoever else tries.
///
/// Thread safety: use from the client's executor only. The client outlives it.
/// Source: rq/scheduler.py RQScheduler (RQ 2.10).
class Scheduler {
public:
    /// @throws Error `Errc::usage` for a name that cannot stand in a lock.
    Scheduler(RedisClient& redis, SchedulerOptions options, Logger& log);
    ~Scheduler();

    /// Schedules until cancelled, then gives up its locks. Goes on through outages of Redis.
    boost::asio::awaitable<void> run();
    /// One pass over what is due now, as a burst worker of RQ makes one: takes the locks that are
    /// free, promotes, gives them up. Returns how many jobs it promoted.
    boost::asio::awaitable<std::uint64_t> run_once();

    [[nodiscard]] const std::string& name() const noexcept;
    /// Queues whose lock this one has.
    [[nodiscard]] std::size_t locks() const noexcept;
    /// Jobs promoted since the beginning.
    [[nodiscard]] std::uint64_t promoted() const noexcept;
    /// The greatest lateness of a job promoted within the last minute.
    [[nodiscard]] std::chrono::microseconds lag() const noexcept;
    /// Lateness below which the share `quantile` (0…1) of all promotions stayed; 5 % steps.
    [[nodiscard]] std::chrono::microseconds lateness(double quantile) const noexcept;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace rqxx
