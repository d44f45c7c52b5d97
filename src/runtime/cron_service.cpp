#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/ip/host_name.hpp>
#include <rqxx/cron_service.hpp>
#include <rqxx/events.hpp>
#include <set>

#include "base/task_group.hpp"
#include "ops/cron_ops.hpp"

namespace rqxx {

using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

/// How often a process that does not lead looks where the schedules stand.
constexpr auto refresh_interval = 10s;

/// Source: rq/cron.py CronScheduler.__init__ (RQ 2.10).
std::string default_name() {
    return fmt::format("{}:{}:{}", asio::ip::host_name(), ::getpid(),
                       new_execution_id().substr(26));
}

/// Processes with the same schedules are one group: one of them leads.
std::string group_of(const std::vector<CronSchedule>& schedules) {
    std::set<std::string_view> names;
    for (const auto& schedule : schedules)
        names.insert(schedule.name);
    std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
    for (const auto name : names) {
        for (char c : name)
            hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
        hash = (hash ^ 0) * 0x100000001b3;
    }
    return fmt::format("{:016x}", hash);
}

std::vector<CronSchedule> checked(std::vector<CronSchedule> schedules) {
    std::set<std::string_view> names;
    for (const auto& schedule : schedules) {
        schedule.check();
        if (!names.insert(schedule.name).second)
            throw Error(Errc::usage, fmt::format("name: {} is used twice", schedule.name));
    }
    return schedules;
}

}  // namespace

struct CronService::Impl {
    Impl(RedisClient& redis_, std::vector<CronSchedule> schedules, CronServiceOptions options_,
         Logger& log_)
        : redis(redis_),
          options(std::move(options_)),
          log(log_),
          name(options.name.empty() ? default_name() : options.name),
          plan(checked(std::move(schedules))),
          redis_ops(redis, name, options.config_file,
                    options.group.empty() ? group_of(plan.schedules()) : options.group),
          latest(plan.schedules().size()),
          failed(plan.schedules().size()),
          unfinished(plan.schedules().size()),
          wake(redis.executor()) {}

    RedisClient& redis;
    CronServiceOptions options;
    Logger& log;
    std::string name;
    CronPlan plan;
    ops::CronOps redis_ops;

    std::vector<std::optional<Timestamp>> latest;  ///< Of each schedule's jobs.
    std::vector<std::optional<Slot>> failed;       ///< Slots whose failure has been told.
    std::vector<std::string> unfinished;           ///< Jobs whose overlap has been told.
    std::string in_doubt;                          ///< Job that may or may not be there.
    bool leads = false;
    bool unpublished = true;  ///< What RQ's monitors see is not up to date.
    bool trouble = false;     ///< Told that Redis cannot be reached.
    bool stopping = false;
    Timestamp redis_time;  ///< As of `redis_time_at`.
    SteadyTime redis_time_at, next_lease, next_refresh;
    Event wake;

    /// At most Redis' own time: nothing is fired early.
    [[nodiscard]] Timestamp now() const {
        return redis_time + std::chrono::floor<std::chrono::microseconds>(
                                std::chrono::steady_clock::now() - redis_time_at);
    }

    asio::awaitable<void> run() {
        log.info("Cron started", "name", name, "schedules", plan.schedules().size());
        while (!stopping) {
            std::chrono::steady_clock::duration pause = 1s;
            std::optional<Error> error;
            try {
                pause = co_await step();
                trouble = false;
            } catch (const Error& caught) {
                error = caught;
            }
            if (error) {
                // Where the schedules stand is read anew.
                leads = false;
                next_lease = {};
                pause = error->retryable() ? 100ms : 1000ms;
                if (!std::exchange(trouble, true))
                    log.error("Cron cannot reach its data", "error", error->message());
            }
            if (!stopping) co_await wake.wait(pause);
        }
        try {
            co_await redis_ops.retire();
        } catch (const Error& error) {
            // The lease and RQ's own limit of 120 s end what is left.
            log.warning("Cron could not sign off", "name", name, "error", error.message());
        }
        log.info("Cron stopped", "name", name);
    }

    /// Does what is due, and returns how long there is nothing to do.
    asio::awaitable<std::chrono::steady_clock::duration> step() {
        co_await renew_lease();
        bool refused = false;
        if (leads) {
            const auto decision = plan.take_due(now());
            for (const auto& missed : decision.missed)
                report(missed);
            std::set<std::size_t> held_up;
            for (const auto& due : decision.due) {
                // The slots behind one that failed wait for it: they are fired in order.
                if (held_up.contains(due.schedule)) continue;
                co_await renew_lease();
                if (!leads || stopping) break;
                if (!co_await fire(due)) held_up.insert(due.schedule);
            }
            refused = !held_up.empty();
        }
        auto until = next_lease;
        if (const auto next = leads ? plan.next_due() : std::nullopt)
            until = std::min(until, redis_time_at + (*next - redis_time));
        const auto pause = until - std::chrono::steady_clock::now();
        co_return refused ? std::max<std::chrono::steady_clock::duration>(pause, 1s) : pause;
    }

    asio::awaitable<void> renew_lease() {
        if (std::chrono::steady_clock::now() < next_lease) co_return;
        std::optional<std::string> jobs;
        if (std::exchange(unpublished, false)) jobs = describe();
        std::optional<Error> failure;
        ops::Lease lease;
        try {
            lease = co_await redis_ops.lease(options.lease, std::move(jobs));
        } catch (const Error& error) {
            failure = error;
        }
        if (failure) {
            unpublished = true;
            throw *failure;
        }
        redis_time = lease.now;
        redis_time_at = std::chrono::steady_clock::now();
        if (!lease.known) unpublished = true;
        const bool led = std::exchange(leads, false);
        if (lease.leads ? !led : redis_time_at >= next_refresh) co_await resume(lease.leads);
        if (led && !lease.leads) log.warning("Cron stands by: another process leads", "name", name);
        if (!led && lease.leads) log.info("Cron leads", "name", name);
        leads = lease.leads;
        next_lease = redis_time_at + (leads && !unpublished ? options.renew : options.stand_by);
    }

    asio::awaitable<void> resume(bool leading) {
        for (std::size_t i = 0; i < plan.schedules().size(); ++i) {
            const CronSchedule& schedule = plan.schedules()[i];
            const auto past = co_await redis_ops.resume(schedule, leading);
            plan.resume(i, past.last_slot);
            latest[i] = past.last_enqueued_at;
            if (!in_doubt.empty() && past.last_job == in_doubt) report_enqueued(schedule, in_doubt);
        }
        in_doubt.clear();
        unpublished = true;
        next_refresh = std::chrono::steady_clock::now() + refresh_interval;
    }

    /// Returns whether the schedule can go on.
    asio::awaitable<bool> fire(CronPlan::Due due) {
        const CronSchedule& schedule = plan.schedules()[due.schedule];
        const std::string id = schedule.job_id(due.slot);
        ops::Fired fired;
        std::optional<Error> error;
        try {
            fired = co_await redis_ops.fire(schedule, due.slot);
        } catch (const Error& caught) {
            error = caught;
        }
        if (error) {
            if (error->in_doubt()) in_doubt = id;
            if (error->code() != Errc::server) throw *error;
            if (failed[due.schedule] != due.slot)
                log.error("Cron job could not be enqueued", "id", id, "queue", schedule.queue,
                          "error", error->message());
            failed[due.schedule] = due.slot;
            plan.resume(due.schedule, due.slot - 1s);
            co_return false;
        }
        if (fired.code == ops::Fired::Code::enqueued) {
            latest[due.schedule] = fired.at;
            unpublished = true;
            report_enqueued(schedule, id);
        } else if (fired.code == ops::Fired::Code::overlaps) {
            const bool told =
                std::exchange(unfinished[due.schedule], fired.last_job) == fired.last_job;
            const auto level = told ? LogLevel::debug : LogLevel::info;
            const LogField fields[] = {{"id", id}, {"unfinished", fired.last_job}};
            log.log(level, "Cron slot left out", fields);
        }
        co_return true;
    }

    void report_enqueued(const CronSchedule& schedule, const std::string& id) {
        log_job_enqueued(log, id, {}, schedule.queue, schedule.options.timeout.value_or(180s));
    }

    void report(const CronPlan::Missed& missed) {
        const CronSchedule& schedule = plan.schedules()[missed.schedule];
        const std::string since = format_utc(missed.since);
        if (schedule.catch_up == CatchUp::all)
            log.warning("Cron slots missed beyond the limit", "schedule", schedule.name, "since",
                        since, "limit", CronPlan::catch_up_limit);
        else
            log.info("Cron slots missed", "schedule", schedule.name, "since", since, "catch_up",
                     to_string(schedule.catch_up));
    }

    /// All schedules as RQ's monitors read them.
    [[nodiscard]] std::string describe() const {
        Value jobs = Value::list();
        for (std::size_t i = 0; i < plan.schedules().size(); ++i)
            jobs.items().push_back(
                ops::CronOps::describe(plan.schedules()[i], latest[i], plan.next_slot(i)));
        return encode_json(jobs);
    }
};

CronService::CronService(RedisClient& redis, std::vector<CronSchedule> schedules,
                         CronServiceOptions options, Logger& log)
    : impl_(std::make_unique<Impl>(redis, std::move(schedules), std::move(options), log)) {}

CronService::~CronService() = default;

asio::awaitable<void> CronService::run() {
    return impl_->run();
}
void CronService::request_stop() {
    impl_->stopping = true;
    impl_->wake.notify();
}
const std::string& CronService::name() const noexcept {
    return impl_->name;
}
bool CronService::leads() const noexcept {
    return impl_->leads;
}

}  // namespace rqxx
