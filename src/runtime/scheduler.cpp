#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/system/system_error.hpp>
#include <cmath>
#include <deque>
#include <map>
#include <rqxx/job.hpp>
#include <rqxx/scheduler.hpp>
#include <set>

#include "base/task_group.hpp"
#include "ops/scheduling.hpp"

namespace rqxx {

using namespace std::chrono_literals;
using ops::Promoted;
namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;

namespace {

constexpr auto tick = 50ms;
/// Between attempts to get locks, and renewals of those held.
constexpr auto renew_interval = 1s;
/// With thousands of queues the ticks become rarer, so that looking costs Redis little.
constexpr auto tick_per_queue = 20us;
constexpr std::size_t queues_per_call = 256;
/// Due ids that stay (see lua/promote.lua) are looked at in each tick, or when there are more of
/// them, with each renewal.
constexpr std::int64_t kept_per_tick = 200;

}  // namespace

struct Scheduler::Impl {
    Impl(RedisClient& redis_, SchedulerOptions options_, Logger& log_)
        : redis(redis_),
          options(std::move(options_)),
          log(log_),
          redis_ops{&redis, options.name.empty() ? new_execution_id() : options.name} {}

    struct QueueState {
        std::string name;
        bool held = false;
        bool more = false;
        std::int64_t pass_over = 0;
        Clock::time_point told{};  ///< When it was last logged that it is broken.
    };

    RedisClient& redis;
    SchedulerOptions options;
    Logger& log;
    ops::SchedulerOps redis_ops;
    std::vector<QueueState> queues;  ///< Those that had more due than one call moves come last.
    std::string queue_list;          ///< Their names, as RQ writes them.
    std::uint64_t promoted = 0;
    std::map<std::int64_t, std::uint64_t> late_buckets;
    std::deque<std::pair<Clock::time_point, std::chrono::microseconds>> late_lately;

    asio::awaitable<void> run() {
        log.info(
            "Scheduler started", "name", redis_ops.name, "queues",
            options.queues.empty() ? "all" : fmt::format("{}", fmt::join(options.queues, ",")));
        try {
            co_await loop();
        } catch (const Cancelled&) {
        } catch (const boost::system::system_error& error) {
            if (error.code() != asio::error::operation_aborted) throw;
        }
        co_await asio::this_coro::reset_cancellation_state();
        // Without Redis the lease does it.
        if (redis.connected()) co_await release();
        log.info("Scheduler stopped", "name", redis_ops.name, "promoted", promoted);
    }

    asio::awaitable<std::uint64_t> run_once() {
        const std::uint64_t before = promoted;
        co_await read_queues();
        for (bool first = true; co_await step(first); first = false) {
        }
        co_await release();
        co_return promoted - before;
    }

    asio::awaitable<void> loop() {
        Event pause(redis.executor());
        auto next_renewal = Clock::now();
        for (;;) {
            std::chrono::nanoseconds wait{};
            try {
                const auto now = Clock::now();
                const bool renew = now >= next_renewal;
                if (renew) {
                    next_renewal = now + renew_interval;
                    co_await read_queues();
                }
                if (co_await step(renew)) continue;
                const auto held = static_cast<std::int64_t>(locks());
                wait = std::max<std::chrono::nanoseconds>(tick, held * tick_per_queue);
                if (held == 0) wait = renew_interval;
                wait = std::min<std::chrono::nanoseconds>(wait, next_renewal - Clock::now());
            } catch (const Error& error) {
                log.debug("Scheduling failed", "error", error.message());
                wait = error.retryable() ? 100ms : 1000ms;
                next_renewal = Clock::now();
            }
            co_await pause.wait(wait);
        }
    }

    asio::awaitable<void> read_queues() {
        std::vector<std::string> names = options.queues;
        if (names.empty()) names = co_await redis_ops.known_queues();
        const std::set<std::string> wanted(names.begin(), names.end());
        std::set<std::string> present;
        std::erase_if(queues, [&](const QueueState& queue) {
            return !wanted.contains(queue.name) || !present.insert(queue.name).second;
        });
        for (const auto& name : wanted) {
            if (!present.contains(name)) queues.push_back({.name = name});
        }
        queue_list = fmt::format("{}", fmt::join(wanted, ","));
    }

    /// Looks once at each queue (`renew`), or at those held. Returns whether more is due.
    asio::awaitable<bool> step(bool renew) {
        std::vector<std::size_t> places;
        for (std::size_t i = 0; i < queues.size(); ++i) {
            auto& queue = queues[i];
            if (renew && !queue.more) queue.pass_over = 0;
            queue.more = false;
            if (renew || queue.held) places.push_back(i);
        }
        std::vector<std::string> taken;
        for (std::size_t from = 0; from < places.size(); from += queues_per_call) {
            const std::size_t count = std::min(places.size() - from, queues_per_call);
            std::vector<ops::SchedulerOps::DueQueue> batch;
            for (std::size_t i = 0; i < count; ++i) {
                const auto& queue = queues[places[from + i]];
                batch.push_back({queue.name, queue.pass_over});
            }
            const auto result = co_await redis_ops.promote(std::move(batch), renew, queue_list);
            for (std::size_t i = 0; i < count; ++i)
                queues[places[from + i]].held = true;
            for (const auto& row : result.queues)
                note(queues.at(places.at(from + row.queue)), row, taken);
            count_promoted(result);
        }
        if (!taken.empty())
            log.info("Scheduler has taken locks", "queues",
                     taken.size() <= 10 ? fmt::format("{}", fmt::join(taken, ","))
                                        : std::to_string(taken.size()));
        // Who got much comes last the next time, so that one queue cannot hold up the others.
        const auto busy = std::stable_partition(
            queues.begin(), queues.end(), [](const QueueState& queue) { return !queue.more; });
        for (auto& queue : queues) {
            if (!queue.more && queue.pass_over <= kept_per_tick) queue.pass_over = 0;
        }
        co_return busy != queues.end();
    }

    void note(QueueState& queue, const Promoted& row, std::vector<std::string>& taken) {
        queue.held = row.lock != Promoted::Lock::not_ours;
        queue.more = row.more;
        queue.pass_over += row.kept;
        if (row.lock == Promoted::Lock::taken) taken.push_back(queue.name);
        if (row.lock == Promoted::Lock::taken_over)
            log.info("Scheduler has taken over from one that died", "queue", queue.name, "from",
                     row.note);
        if (row.promoted > 0)
            log.debug("Scheduled jobs promoted", "queue", queue.name, "jobs", row.promoted);
        if (row.dropped > 0)
            log.warning("Due ids dropped that stand for no scheduled job", "queue", queue.name,
                        "ids", row.dropped);
        if (row.lock == Promoted::Lock::broken && Clock::now() - queue.told > 60s) {
            queue.told = Clock::now();
            log.error("Scheduled jobs cannot be promoted", "queue", queue.name, "reason", row.note);
        }
    }

    void count_promoted(const ops::PromoteResult& result) {
        if (result.promoted == 0) return;
        promoted += static_cast<std::uint64_t>(result.promoted);
        for (const auto& [bucket, count] : result.late_buckets)
            late_buckets[bucket] += static_cast<std::uint64_t>(count);
        const auto now = Clock::now();
        while (!late_lately.empty() && now - late_lately.front().first > 60s)
            late_lately.pop_front();
        if (late_lately.empty() || now - late_lately.back().first > 1s)
            late_lately.emplace_back(now, result.late_max);
        else
            late_lately.back().second = std::max(late_lately.back().second, result.late_max);
    }

    asio::awaitable<void> release() {
        std::vector<std::string> names;
        for (auto& queue : queues) {
            names.push_back(queue.name);
            queue.held = false;
        }
        std::string failed;
        for (std::size_t from = 0; from < names.size() && failed.empty(); from += queues_per_call) {
            const auto begin = names.begin() + static_cast<std::ptrdiff_t>(from);
            const auto end = names.begin() + static_cast<std::ptrdiff_t>(
                                                 std::min(names.size(), from + queues_per_call));
            try {
                co_await redis_ops.release({begin, end}, 2s);
            } catch (const Error& error) {
                failed = error.message();
            }
        }
        if (!failed.empty())
            log.warning("Scheduler could not give up its locks", "name", redis_ops.name, "error",
                        failed);
    }

    [[nodiscard]] std::size_t locks() const {
        return static_cast<std::size_t>(std::count_if(
            queues.begin(), queues.end(), [](const auto& queue) { return queue.held; }));
    }
};

Scheduler::Scheduler(RedisClient& redis, SchedulerOptions options, Logger& log) {
    for (char c : options.name) {
        if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f)
            throw Error(Errc::usage, "name: spaces and control characters are not allowed");
    }
    impl_ = std::make_unique<Impl>(redis, std::move(options), log);
}

Scheduler::~Scheduler() = default;

asio::awaitable<void> Scheduler::run() {
    return impl_->run();
}
asio::awaitable<std::uint64_t> Scheduler::run_once() {
    return impl_->run_once();
}
const std::string& Scheduler::name() const noexcept {
    return impl_->redis_ops.name;
}
std::size_t Scheduler::locks() const noexcept {
    return impl_->locks();
}
std::uint64_t Scheduler::promoted() const noexcept {
    return impl_->promoted;
}
std::chrono::microseconds Scheduler::lag() const noexcept {
    std::chrono::microseconds worst{};
    for (const auto& [when, late] : impl_->late_lately) {
        if (Clock::now() - when <= 60s) worst = std::max(worst, late);
    }
    return worst;
}
std::chrono::microseconds Scheduler::lateness(double quantile) const noexcept {
    std::uint64_t before = 0;
    for (const auto& [bucket, count] : impl_->late_buckets) {
        before += count;
        if (static_cast<double>(before) >= quantile * static_cast<double>(impl_->promoted))
            return std::chrono::microseconds(
                std::llround(100 * std::pow(1.05, static_cast<double>(bucket + 1))));
    }
    return {};
}

}  // namespace rqxx
