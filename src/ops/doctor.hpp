#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <rqxx/redis/client.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// A consistency check of all that is in RQ's keys: what crashes, races and other programs leave
/// behind.
namespace rqxx::ops {

namespace asio = boost::asio;

enum class Severity { info, warning, error };
[[nodiscard]] std::string_view to_string(Severity severity) noexcept;

/// What may be wrong.
struct FindingKind {
    std::string_view code;  ///< Stable: scripts and documentation name it.
    Severity severity;
    std::string_view what, why;
    std::string_view repair;  ///< What mending does; empty: it is a person's decision.
};
/// Every kind, in the order in which they are mended.
[[nodiscard]] std::span<const FindingKind> finding_kinds() noexcept;

struct FindingExample {
    std::string subject;  ///< Job id, or whatever else it is about.
    std::string key;      ///< Where it was found; may be empty.
    std::string note;
};

struct Finding {
    const FindingKind* kind = nullptr;
    std::uint64_t found = 0;
    std::uint64_t repaired = 0;
    std::uint64_t left = 0;
    std::vector<FindingExample> examples;
};

struct DoctorProgress {
    std::string_view step;
    std::uint64_t done = 0, total = 0;  ///< `total` 0: unknown.
};

struct DoctorOptions {
    bool repair = false;
    std::string queue;  ///< Only what concerns this queue, and the server; empty: everything.
    std::size_t examples = 5;
    /// Between two looks at what is suspected. A job that is merely moving has moved by then.
    std::chrono::milliseconds recheck{5000};
    std::function<void(const DoctorProgress&)> progress;

    /// Whether what is of this queue is looked at.
    [[nodiscard]] bool concerns(std::string_view name) const noexcept;
    void report(std::string_view step, std::uint64_t done, std::uint64_t total) const;
};

struct DoctorReport {
    std::uint64_t keys = 0, jobs = 0, queues = 0;
    std::vector<Finding> findings;  ///< In the order of `finding_kinds`.
    /// Nothing but infos is left.
    [[nodiscard]] bool healthy() const noexcept;
};

/// Looks at every key of RQ in bounded steps, looks twice at what is suspected, and mends it where
/// asked to: each repair is one script that looks a third time.
///
/// Memory: about 150 bytes a job, and what is suspected.
asio::awaitable<DoctorReport> examine(RedisClient& redis, DoctorOptions options);

}  // namespace rqxx::ops
