#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>
#include <rqxx/log.hpp>
#include <rqxx/redis/client.hpp>
#include <rqxx/time.hpp>
#include <string>

#include "ops/doctor.hpp"

namespace rqxx::runtime {

/// The last examination of all of RQ's keys, and the one that goes on.
struct ExaminationState {
    bool running = false;
    std::string step;                   ///< Of the one that runs.
    std::uint64_t done = 0, total = 0;  ///< Of the step; `total` 0: unknown.
    std::optional<Timestamp> started_at, ended_at;
    std::optional<ops::DoctorReport> report;  ///< Of the last one that ended well.
    std::string error;                        ///< Why the last one did not.
};

/// Examines a Redis on demand, as `rqxx doctor` does: one at a time, in a thread and over a
/// connection of its own, so that nobody waits for it. It mends nothing.
///
/// Use from the client's executor only. Lifetime: client and logger outlive it; `join` before it
/// goes.
class Examiner {
public:
    Examiner(RedisClient& redis, Logger& log);
    ~Examiner();
    Examiner(const Examiner&) = delete;
    Examiner& operator=(const Examiner&) = delete;

    /// Begins one, unless one runs.
    void begin();
    [[nodiscard]] ExaminationState state() const;
    /// Ends the one that runs.
    boost::asio::awaitable<void> join();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace rqxx::runtime
