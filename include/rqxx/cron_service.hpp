#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <rqxx/cron.hpp>
#include <rqxx/queue.hpp>
#include <string>
#include <vector>

namespace rqxx {

/// What becomes of slots that were missed because nobody was there to fire them.
enum class CatchUp { skip, one, all };
/// What becomes of a slot while the job of the slot before is unfinished.
enum class Overlap { allow, skip };

[[nodiscard]] Parsed<CatchUp> parse_catch_up(std::string_view text) noexcept;
[[nodiscard]] Parsed<Overlap> parse_overlap(std::string_view text) noexcept;
[[nodiscard]] std::string_view to_string(CatchUp catch_up) noexcept;
[[nodiscard]] std::string_view to_string(Overlap overlap) noexcept;

/// A job that is enqueued again and again.
struct CronSchedule {
    std::string name;  ///< Letters, digits, `_` and `-`. One schedule per name and Redis.
    Call call;
    std::string queue = "default";
    std::optional<CronExpression> cron;  ///< Either this or `every`.
    std::chrono::seconds every{0};       ///< Slots are its multiples since the epoch.
    TimeZone zone;                       ///< In which `cron` is read.
    CatchUp catch_up = CatchUp::skip;
    Overlap overlap = Overlap::allow;
    std::chrono::seconds jitter{0};  ///< Each slot is delayed by less than this.
    EnqueueOptions options;          ///< `job_id` and `unique` are not used.
    Serializer serializer = Serializer::pickle;

    /// @throws Error `Errc::usage` that names the member.
    void check() const;
    /// The first slot after `after`; nothing when there is none any more.
    [[nodiscard]] std::optional<Slot> next(Slot after) const;
    /// The newest `limit` slots in (after, until], oldest first.
    [[nodiscard]] std::vector<Slot> newest(Slot after, Slot until, std::size_t limit) const;
    /// By how much this slot is delayed: the same in every process.
    [[nodiscard]] std::chrono::microseconds delay(Slot slot) const;
    /// `cron-<name>-<seconds since the epoch>`
    [[nodiscard]] std::string job_id(Slot slot) const;
    /// What decides on the slots, as text.
    [[nodiscard]] std::string rule() const;
};

/// Decides which slots are to be fired when. No clock and no I/O: fed with the time.
///
/// A slot is missed when it is more than `lateness` late; what is less late is fired always. So a
/// restart or another leader within that time leaves nothing out.
class CronPlan {
public:
    static constexpr std::chrono::seconds lateness{15};
    static constexpr std::size_t catch_up_limit = 1000;

    explicit CronPlan(std::vector<CronSchedule> schedules);
    [[nodiscard]] const std::vector<CronSchedule>& schedules() const noexcept { return schedules_; }

    /// All slots of a schedule up to `last` are done.
    void resume(std::size_t schedule, Slot last);

    struct Due {
        std::size_t schedule = 0;
        Slot slot;
    };
    /// Missed slots that are not made up for.
    struct Missed {
        std::size_t schedule = 0;
        Slot since;  ///< The first of them.
    };
    struct Decision {
        std::vector<Due> due;  ///< Of each schedule in order.
        std::vector<Missed> missed;
    };
    /// What to do now. Each slot is told once, until `resume` says otherwise.
    [[nodiscard]] Decision take_due(Timestamp now);
    /// When there is something to do next.
    [[nodiscard]] std::optional<Timestamp> next_due() const;
    /// The first slot of a schedule that is not done.
    [[nodiscard]] std::optional<Slot> next_slot(std::size_t schedule) const {
        return positions_[schedule].next;
    }

private:
    struct Position {
        Slot done{};
        std::optional<Slot> next;
    };

    std::vector<CronSchedule> schedules_;
    std::vector<Position> positions_;
};

struct CronServiceOptions {
    std::string name;         ///< Empty: host, pid and a random part.
    std::string config_file;  ///< Shown by RQ's monitors.
    std::string group;        ///< Of whom one leads; empty: those with the same schedules.
    std::chrono::milliseconds lease{10000};
    std::chrono::milliseconds renew{3000};     ///< How often the leader renews its lease.
    std::chrono::milliseconds stand_by{1000};  ///< How often the others ask for it.
};

/// Enqueues the jobs of schedules when they are due, in Redis' time.
///
/// Any number of services with the same schedules may run: one of them leads, another one takes
/// over when it has gone for the time of the lease. That each slot is enqueued at most once does
/// not depend on it: job ids are made from the slot and one script compares and enqueues.
/// Lifetime: everything given by reference outlives it.
class CronService {
public:
    /// @throws Error `Errc::usage` for a schedule that is not valid or a name used twice.
    CronService(RedisClient& redis, std::vector<CronSchedule> schedules, CronServiceOptions options,
                Logger& log);
    ~CronService();
    /// Works until stopped, also through outages of Redis.
    boost::asio::awaitable<void> run();
    /// On the client's executor.
    void request_stop();
    [[nodiscard]] const std::string& name() const noexcept;
    [[nodiscard]] bool leads() const noexcept;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace rqxx
