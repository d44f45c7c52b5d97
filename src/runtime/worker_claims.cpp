#include <rqxx/codec.hpp>
#include <rqxx/events.hpp>

#include "ops/sorting.hpp"
#include "runtime/worker_impl.hpp"

namespace rqxx {

using namespace std::chrono_literals;
using ops::Settlement;
using runtime::Execution;
namespace asio = boost::asio;

namespace {

/// Jobs that take no longer are short: waiting for Redis would take a good part of the time.
constexpr Seconds short_job = 3ms;
/// What has waited for so long for a slot goes back.
constexpr auto longest_ahead = 20ms;

}  // namespace

std::size_t Worker::Impl::most_ahead() const {
    // With many slots some are always full while others are claimed for.
    if (options.concurrency > 16 || options.max_jobs || stopping() || usual_run_time > short_job)
        return 0;
    // A place under a limit must not be taken by what does not run.
    if (redis_ops.plan().ruled()) return 0;
    return std::max<std::size_t>(options.concurrency, 2);
}

void Worker::Impl::place(ops::Claimed job) {
    const bool slot_is_free = slots_in_use() < options.concurrency;
    if (slot_is_free || !forming.empty()) {
        auto [execution, unreadable] = read(job);
        if (execution->aggregated && stopping()) {
            give_back({&execution, 1});
            return;
        }
        if (join_group(execution)) return;
        if (slot_is_free) {
            if (unreadable)
                refuse(execution, *unreadable);
            else if (!begin_group(execution))
                launch({&execution, 1});
            return;
        }
    }
    ahead.emplace_back(std::move(job), std::chrono::steady_clock::now());
    ahead_changed.notify();
    no_slot_for_a_job();
}

void Worker::Impl::refuse(const std::shared_ptr<Execution>& execution, ParseError unreadable) {
    ++slots_running;
    execution->started = std::chrono::steady_clock::now();
    running.push_back(execution);
    log_job_started(log, execution->job.id, execution->queued_for.value_or(0us));
    if (unreadable.field.empty()) unreadable.field = "data";
    const std::string line = "rqxx.DeserializationError: " + unreadable.describe();
    finish(execution, Settlement::Outcome::terminal_failure,
           {.payload = encode_exc_string(line + "\n"), .error = line});
}

void Worker::Impl::start_ahead() {
    while (!ahead.empty() && !stopping() && slots_in_use() < options.concurrency) {
        auto job = std::move(ahead.front().first);
        ahead.pop_front();
        place(std::move(job));
    }
}

void Worker::Impl::give_back_ahead() {
    std::vector<ops::Claimed> jobs;
    for (auto& [job, since] : std::exchange(ahead, {}))
        jobs.push_back(std::move(job));
    claimed -= jobs.size();
    give_back(jobs);
}

asio::awaitable<void> Worker::Impl::ahead_loop() {
    for (;;) {
        if (ahead.empty()) {
            co_await ahead_changed.wait();
            continue;
        }
        const auto now = std::chrono::steady_clock::now();
        const auto until = ahead.front().second + longest_ahead;
        if (now >= until) {
            usual_run_time = Seconds(1);
            give_back_ahead();
        } else {
            Event pause(executor);
            co_await pause.wait(until - now);
        }
    }
}

std::size_t Worker::Impl::most_per_claim() const {
    return std::min(batch_size, std::max<std::size_t>(32, options.concurrency * 3 / 8));
}

asio::awaitable<void> Worker::Impl::gather_slots() {
    const std::size_t enough = options.concurrency / 4;
    if (enough < 8) co_return;
    const auto until = std::chrono::steady_clock::now() + 300us;
    while (free_slots() < enough && !stopping()) {
        const auto now = std::chrono::steady_clock::now();
        if (now >= until) co_return;
        co_await slot_freed.wait(until - now);
    }
}

asio::awaitable<void> Worker::Impl::claim_loop() {
    while (!stopping()) {
        if (options.max_jobs && claimed >= *options.max_jobs) {
            if (ahead.empty()) co_return;
            co_await slot_freed.wait(20ms);  // What goes back has not been one of them.
            continue;
        }
        if (!executors.available()) {
            co_await stop_wanted.wait(200ms);
            continue;
        }
        co_await gather_slots();
        std::size_t free = std::min(free_slots() + room_in_groups(), most_per_claim());
        if (options.max_jobs) free = std::min<std::size_t>(free, *options.max_jobs - claimed);
        if (free == 0) {
            co_await slot_freed.wait();
            continue;
        }
        ops::ClaimResult result;
        std::optional<Error> failed;
        bool was_busy = false;
        try {
            if (!rules_known) co_await learn_rules();
            if (!held_back.unsorted.empty() && !co_await sort_jobs()) {
                Event pause(executor);
                co_await pause.wait(5ms);
            }
            woken = false;
            was_busy = busy() || !outcomes.empty() || settling > 0;
            // What is settled by a command that stands before this one no longer counts.
            result = co_await redis_ops.claim(free, most_held() + most_ahead() + outcomes.size(),
                                              oldest_job(), running_by_queue());
            last_poll = std::chrono::steady_clock::now();
        } catch (const Error& error) {
            failed = error;
        }
        if (failed) {
            co_await pause_after(*failed, "Claiming failed");
            continue;
        }
        const auto [dropped, broken] = report_skipped(result.skipped);
        co_await tell_suspended(result.state == ops::ClaimResult::State::suspended);
        if (result.state == ops::ClaimResult::State::lease_gone) {
            co_await register_again();
            continue;
        }
        if (result.state == ops::ClaimResult::State::rules_changed) {
            rules_known = false;
            continue;
        }
        if (result.state == ops::ClaimResult::State::no_slot) {
            // A watcher's claim has taken the last slot; its answer is on the way.
            co_await slot_freed.wait(20ms);
            continue;
        }
        const bool any = !result.claimed.empty();
        accept(std::move(result.claimed));
        held_back = std::move(result);
        if (any || dropped || woken || !held_back.unsorted.empty()) continue;
        if (options.burst) {
            if (unstarted == 0) start_groups();  // Nothing comes that they could wait for.
            // A running job may yet come back as a retry, and limited ones have their time.
            const bool idle = !busy() && outcomes.empty() && settling == 0;
            // Its last jobs have ended since: one may have put another on the queue, or made room.
            if (idle && was_busy) continue;
            if (idle && !held_back.held_up && !held_back.look_again) co_return;
            const auto now = std::chrono::steady_clock::now();
            co_await drained.wait(std::min<std::chrono::steady_clock::duration>(
                held_back.look_again.value_or(now + 1h) - now, 100ms));
            continue;
        }
        // Blocking on a queue that cannot be taken from would return at once, again and again.
        if (broken || suspended)
            co_await stop_wanted.wait(1s);
        else if (!co_await wait_for_work())
            co_return;
    }
}

asio::awaitable<void> Worker::Impl::learn_rules() {
    co_await redis_ops.load_rules();
    rules_known = true;
    const auto& plan = redis_ops.plan();
    for (std::size_t i = 0; i < plan.size(); ++i) {
        while (rules_known && !stopping()) {
            const auto sorted = co_await ops::sort_some_again(
                redis, plan.queue(i), plan.of_queue(i), plan.rules().version());
            if (sorted.rules_changed) rules_known = false;
            if (!sorted.busy && sorted.moved == 0) break;
            if (sorted.busy) {
                Event pause(executor);
                co_await pause.wait(20ms);
            }
        }
    }
}

asio::awaitable<bool> Worker::Impl::sort_jobs() {
    const auto& plan = redis_ops.plan();
    bool sorted_any = false;
    for (std::size_t i = 0; i < plan.size(); ++i) {
        if (std::ranges::find(held_back.unsorted, plan.queue(i)) == held_back.unsorted.end())
            continue;
        const auto sorted =
            co_await ops::sort_some(redis, plan.queue(i), plan.of_queue(i), plan.rules().version());
        if (sorted.rules_changed) rules_known = false;
        sorted_any = sorted_any || !sorted.busy;
    }
    held_back.unsorted.clear();
    co_return sorted_any;
}

void Worker::Impl::wake(const std::string& payload) {
    if (payload == "*")
        rules_known = false;
    else if (std::ranges::find(options.queues, payload) == options.queues.end())
        return;
    woken = true;
    work_may_wait = true;
    work_arrived.notify();
}

ops::RunningByQueue Worker::Impl::running_by_queue() const {
    ops::RunningByQueue counts;
    if (options.queue_slots.empty()) return counts;
    for (const auto& [id, job] : held)
        ++counts[job.origin];
    return counts;
}

std::optional<std::chrono::steady_clock::time_point> Worker::Impl::look_again() const {
    auto at = held_back.look_again;
    // Messages can be lost, and limits change.
    if (held_back.held_up || held_back.paused || at) {
        const auto in_any_case = std::chrono::steady_clock::now() + 5s;
        at = std::min(in_any_case, at.value_or(in_any_case));
    }
    return at;
}

asio::awaitable<void> Worker::Impl::tell_suspended(bool now) {
    if (now == suspended) co_return;
    suspended = now;
    log.info(now ? "Worker suspended" : "Worker resumed", "name", name);
    try {
        // As RQ: a worker that ends because of it has started, and no more.
        const char* held_up = options.burst ? "started" : "suspended";
        co_await redis_ops.set_state(now ? held_up : "idle");
    } catch (const Error&) {
    }
}

Worker::Impl::Skips Worker::Impl::report_skipped(const std::vector<ops::Skipped>& list) {
    Skips skips;
    for (const auto& skipped : list) {
        if (skipped.job_id.empty() && skipped.why != "not a job id") {
            skips.broken = true;
            report_broken(skipped);
        } else {
            skips.dropped = true;
            log.warning("Job skipped", "id", skipped.job_id, "queue", skipped.queue, "reason",
                        skipped.why);
        }
    }
    return skips;
}

void Worker::Impl::report_broken(const ops::Skipped& queue) {
    const auto now = std::chrono::steady_clock::now();
    auto& next = broken_told[queue.queue];
    if (now < next) return;
    next = now + 60s;
    log.error("Queue cannot be read", "queue", queue.queue, "reason", queue.why);
}

asio::awaitable<bool> Worker::Impl::wait_for_work() {
    if (watchers.size() == 0) {
        for (const auto& key : redis_ops.queue_keys()) {
            blocking.push_back(
                std::make_unique<RedisClient>(executor, redis.options(), null_logger()));
            watchers.spawn("watching " + key, watch(*blocking.back(), key));
        }
    }
    work_may_wait = false;
    queues_empty.notify();
    const auto again = look_again();
    while (!work_may_wait && !stopping()) {
        const auto now = std::chrono::steady_clock::now();
        if (again && now >= *again) co_return true;
        auto until = again;
        if (options.max_idle_time) {
            const auto idle_until = (!busy() ? last_worked : now) + *options.max_idle_time;
            if (now >= idle_until) {
                log.info("Worker has been idle for long enough", "name", name);
                co_return false;
            }
            until = std::min(idle_until, until.value_or(idle_until));
        }
        if (until)
            co_await work_arrived.wait(*until - now);
        else
            co_await work_arrived.wait();
    }
    co_return true;
}

asio::awaitable<void> Worker::Impl::watch(RedisClient& client, std::string key) {
    while (!stopping()) {
        if (work_may_wait ||
            std::ranges::find(held_back.unwatchable, key) != held_back.unwatchable.end()) {
            // There is something to claim already, or nothing that may be; look again after the
            // next claim.
            co_await queues_empty.wait();
            continue;
        }
        // Where there are rules, the first job may have to wait, and another may not.
        const bool as_it_comes =
            !options.max_jobs && executors.available() && !redis_ops.plan().ruled();
        const std::size_t limit = as_it_comes ? 1 : 0;
        bool failed = false;
        ops::ClaimResult result;
        try {
            if (co_await redis_ops.wait_for_job(client, key, 30s, limit, most_held(), result))
                work_may_wait = true;
            last_poll = std::chrono::steady_clock::now();
        } catch (const Error& error) {
            failed = true;
            if (!error.retryable())
                log.warning("Watching a queue failed", "queue", key, "error", error.message());
        }
        report_skipped(result.skipped);
        accept(std::move(result.claimed));
        if (failed) {
            Event pause(executor);
            co_await pause.wait(1s);
            work_may_wait = true;  // Whatever came meanwhile is found by a claim.
        }
        if (work_may_wait) work_arrived.notify();
    }
}

void Worker::Impl::accept(std::vector<ops::Claimed> jobs) {
    if (is_too_late(jobs)) {
        log.warning("Jobs are put back: Redis was not there when they were to start", "jobs",
                    jobs.size());
        give_back(jobs);
        return;
    }
    for (auto& job : jobs) {
        ++claimed;
        held[job.execution_id] = {job.job_id, job.execution_id, job.origin, {}};
        if (!job.fields.empty()) {
            place(std::move(job));
            continue;
        }
        ++unstarted;
        unread.push_back(std::move(job));
    }
    if (!unread.empty()) hashes_wanted.notify();
}

bool Worker::Impl::is_too_late(const std::vector<ops::Claimed>& jobs) const {
    return !jobs.empty() &&
           std::chrono::steady_clock::now() - jobs.front().asked_at > options.lease;
}

void Worker::Impl::give_back(std::span<const ops::Claimed> jobs) {
    // Each goes to the front: in the end the first is first again.
    for (auto job = jobs.rbegin(); job != jobs.rend(); ++job)
        outcomes.push_back({.settlement = {.job_id = job->job_id,
                                           .execution_id = job->execution_id,
                                           .origin = job->origin,
                                           .outcome = Settlement::Outcome::returned,
                                           .started_at = job->started_at},
                            .never_started = true});
    settle_wanted.notify();
}

asio::awaitable<void> Worker::Impl::start_loop() {
    for (;;) {
        while (unread.empty())
            co_await hashes_wanted.wait();
        std::vector<ops::Claimed> batch(std::move_iterator(unread.begin()),
                                        std::move_iterator(unread.end()));
        unread.clear();
        bool read = false;
        try {
            co_await redis_ops.read_hashes(batch);
            read = !is_too_late(batch);
        } catch (const Error& error) {
            log.debug("Reading jobs failed", "error", error.message());
        }
        if (closed) co_return;  // Signing off puts them back.
        unstarted -= batch.size();
        if (read) {
            for (auto& job : batch)
                place(std::move(job));
        } else {
            claimed -= batch.size();
            log.warning("Jobs are put back: Redis was not there when they were to start", "jobs",
                        batch.size());
            give_back(batch);
            slot_freed.notify();
        }
    }
}

Worker::Impl::Read Worker::Impl::read(const ops::Claimed& claimed_job) const {
    auto execution = std::make_shared<Execution>();
    execution->id = claimed_job.execution_id;
    execution->started_at = claimed_job.started_at;
    std::vector<std::pair<std::string_view, std::string_view>> fields(claimed_job.fields.begin(),
                                                                      claimed_job.fields.end());
    auto job = parse_job(claimed_job.job_id, fields);
    std::optional<ParseError> unreadable;
    if (job) {
        execution->job = std::move(*job);
        // A serializer of the application's own is known to Python only.
        if (!options.python || options.python->serializer.empty()) {
            auto call = decode_call(execution->job.data, {}, &execution->serializer);
            if (call)
                execution->call = std::move(*call);
            else if (!options.python)  // Python may know more than our decoder.
                unreadable = call.error();
        }
    } else {
        unreadable = job.error();
        execution->job.id = claimed_job.job_id;
    }
    execution->job.origin = claimed_job.origin;
    if (execution->job.enqueued_at)
        execution->queued_for = std::max(execution->started_at - *execution->job.enqueued_at, 0us);
    if (options.serializer) execution->serializer = *options.serializer;
    execution->aggregated = !unreadable && executors.aggregate() &&
                            executors.aggregation_of(execution->call).has_value();
    return {std::move(execution), std::move(unreadable)};
}

void Worker::Impl::launch(std::span<const std::shared_ptr<Execution>> jobs) {
    std::shared_ptr<runtime::SharedCall> shared;
    if (jobs.size() > 1) {
        shared = std::make_shared<runtime::SharedCall>();
        shared->jobs.assign(jobs.begin(), jobs.end());
        shared->first = jobs.front().get();
        shared->unsettled = jobs.size();
    }
    std::int64_t timeout = 0;  // The smallest.
    for (const auto& execution : jobs) {
        const std::int64_t own = execution->job.timeout.value_or(180);
        if (own > 0) timeout = timeout > 0 ? std::min(timeout, own) : own;
    }
    const auto now = std::chrono::steady_clock::now();
    ++slots_running;
    for (const auto& execution : jobs) {
        execution->started = now;
        execution->shared = shared;
        execution->time_limit = timeout;
        if (timeout > 0) {
            execution->function_deadline = now + std::chrono::seconds(timeout);
            execution->deadline = execution->function_deadline;
        }
        running.push_back(execution);
    }
    // The handler's thread wakes up while the rest is done here.
    executors.start(jobs.front());
    for (const auto& execution : jobs)
        log_job_started(log, execution->job.id, execution->queued_for.value_or(0us));
    if (timeout > 0) deadline_changed.notify();
}

}  // namespace rqxx
