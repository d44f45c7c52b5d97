#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <boost/asio/ip/host_name.hpp>
#include <charconv>
#include <deque>
#include <rqxx/codec.hpp>
#include <rqxx/events.hpp>
#include <rqxx/worker.hpp>
#include <unordered_map>

#include "base/task_group.hpp"
#include "ops/transitions.hpp"
#include "runtime/janitor.hpp"
#include "runtime/thread_executor.hpp"

namespace rqxx {

using namespace std::chrono_literals;
using ops::Settled;
using ops::Settlement;
using runtime::Execution;
using runtime::RunOutcome;
using runtime::StopReason;
namespace asio = boost::asio;

namespace {

/// How many jobs one script call takes or settles: enough to fill the pipe, few enough that Redis
/// serves others in between.
constexpr std::size_t batch_size = 128;
/// Calls under way at once: one is worked on while the next is on its way.
constexpr std::size_t settles_in_flight = 2;

std::string default_name() {
    return fmt::format("{}.{}.{}", asio::ip::host_name(), ::getpid(),
                       new_execution_id().substr(24));
}

/// Whether the process that registered under our name on this host is gone.
bool is_dead_here(const ops::WorkerOps::Birth& birth) {
    if (birth.other_host != asio::ip::host_name()) return false;
    int pid = 0;
    const char* end = birth.other_pid.data() + birth.other_pid.size();
    if (std::from_chars(birth.other_pid.data(), end, pid).ptr != end || pid <= 0) return false;
    return pid == ::getpid() || (::kill(pid, 0) != 0 && errno == ESRCH);
}

}  // namespace

struct Worker::Impl {
    Impl(RedisClient& redis_, const HandlerRegistry& handlers, WorkerOptions options_, Logger& log_)
        : redis(redis_),
          options(std::move(options_)),
          log(log_),
          executor(redis_.executor()),
          name(options.name.empty() ? default_name() : options.name),
          redis_ops(redis, name, options.queues, options.lease, options.strategy),
          janitor(redis, options.queues, options.recover, log),
          slot_freed(executor),
          hashes_wanted(executor),
          work_arrived(executor),
          queues_empty(executor),
          settle_wanted(executor),
          deadline_changed(executor),
          stop_wanted(executor),
          drained(executor),
          thread_executor(executor, handlers, options.callbacks, log,
                          {[this](std::shared_ptr<Execution> execution, RunOutcome outcome) {
                               on_done(std::move(execution), std::move(outcome));
                           },
                           [this](const std::shared_ptr<Execution>& execution,
                                  std::chrono::seconds limit) { on_callback(execution, limit); }}),
          watchers(executor),
          tasks(executor) {}

    RedisClient& redis;
    WorkerOptions options;
    Logger& log;
    asio::any_io_executor executor;
    std::string name;
    ops::WorkerOps redis_ops;
    runtime::Janitor janitor;

    std::list<std::shared_ptr<Execution>> running;  ///< Oldest first.
    std::deque<std::pair<Settlement, std::string>>
        outcomes;  ///< To be settled; with the error line.
    std::size_t settling = 0;
    std::deque<ops::Claimed> unread;           ///< Claimed; their hashes are to be read.
    std::size_t unstarted = 0;                 ///< These, and those whose hashes are being read.
    std::map<std::string, ops::Running> held;  ///< Claimed and not settled, by execution.
    WorkerSummary summary;
    std::uint64_t claimed = 0;
    std::chrono::steady_clock::time_point last_poll = std::chrono::steady_clock::now();
    std::map<std::string, std::chrono::steady_clock::time_point>
        broken_told;  ///< When to tell again.
    int stop_requests = 0;
    bool closed = false;        ///< Nothing is started any more.
    bool work_may_wait = true;  ///< A queue may have something to claim; watchers rest.

    Event slot_freed, hashes_wanted, work_arrived, queues_empty, settle_wanted, deadline_changed,
        stop_wanted, drained;
    runtime::ThreadExecutor thread_executor;
    std::vector<std::unique_ptr<RedisClient>> blocking;
    std::unique_ptr<RedisSubscriber> commands;
    bool suspended = false;  ///< As monitors are told.
    std::chrono::steady_clock::time_point last_worked = std::chrono::steady_clock::now();
    TaskGroup watchers;
    TaskGroup tasks;

    [[nodiscard]] bool stopping() const { return stop_requests > 0; }
    [[nodiscard]] bool busy() const { return !running.empty() || unstarted > 0; }
    [[nodiscard]] std::string oldest_job() const {
        return running.empty() ? std::string() : running.front()->job.id;
    }

    // ---- life -----------------------------------------------------------------------------------

    asio::awaitable<WorkerSummary> run() {
        co_await be_born();
        log.info("Worker started", "name", name, "queues",
                 fmt::format("{}", fmt::join(options.queues, ",")), "concurrency",
                 options.concurrency);
        commands = std::make_unique<RedisSubscriber>(executor, redis.options(),
                                                     std::vector{redis_ops.command_channel()}, log);
        tasks.spawn("heartbeat", heartbeat_loop());
        tasks.spawn("janitor", janitor.run());
        tasks.spawn("deadlines", deadline_loop());
        tasks.spawn("commands", command_loop());
        for (std::size_t i = 0; i < settles_in_flight; ++i)
            tasks.spawn("settling", settle_loop());
        tasks.spawn("starting", start_loop());
        std::exception_ptr failure;
        try {
            co_await claim_loop();
            co_await stop_watching();
            co_await drain();
        } catch (const Cancelled&) {
            throw_away();
        } catch (...) {
            failure = std::current_exception();
        }
        co_await stop_watching();
        tasks.cancel();
        commands->close();
        co_await tasks.join();
        if (failure) std::rethrow_exception(failure);
        try {
            co_await redis_ops.register_death();
        } catch (const Error& error) {
            // RQ's maintenance and our recovery treat us as any dead worker.
            log.warning("Worker could not sign off", "name", name, "error", error.message());
        }
        log.info("Worker stopped", "name", name, "finished", summary.finished, "failed",
                 summary.failed, "retried", summary.retried, "returned", summary.returned);
        co_return summary;
    }

    /// A claim that is answered meanwhile is dropped here and put back by `register_death`.
    asio::awaitable<void> stop_watching() {
        watchers.cancel();
        for (auto& client : blocking)
            client->close();
        co_await watchers.join();
        blocking.clear();
    }

    asio::awaitable<void> be_born() {
        for (int attempt = 0;; ++attempt) {
            const auto birth = co_await redis_ops.register_birth();
            if (birth.registered) co_return;
            if (!is_dead_here(birth))
                throw Error(Errc::usage,
                            fmt::format("name: a worker named {} lives already (host {}, pid {})",
                                        name, birth.other_host, birth.other_pid));
            // Killed on this host: its lease need not run out first.
            if (attempt == 0) {
                log.warning("Taking over from a killed worker", "name", name, "pid",
                            birth.other_pid);
                co_await redis_ops.expire_lease();
            }
            if (attempt > 40)
                throw Error(Errc::internal, fmt::format("name: {} could not be taken over", name));
            co_await janitor.recover();
            Event pause(executor);
            co_await pause.wait(500ms);
        }
    }

    void throw_away() {
        for (auto& execution : running)
            execution->request_stop(StopReason::shutdown);
    }

    [[nodiscard]] std::size_t free_slots() const {
        return options.concurrency - std::min(running.size() + unstarted, options.concurrency);
    }

    // ---- taking jobs ----------------------------------------------------------------------------

    /// With many slots a third at a time: Redis starts some jobs while others run and others are
    /// settled, and none of the three waits for the next.
    [[nodiscard]] std::size_t most_per_claim() const {
        return std::min(batch_size, std::max<std::size_t>(32, options.concurrency * 3 / 8));
    }

    /// Where short jobs end one after the other, a claim for each would cost more than the job.
    asio::awaitable<void> gather_slots() {
        const std::size_t enough = options.concurrency / 4;
        if (enough < 8) co_return;
        const auto until = std::chrono::steady_clock::now() + 300us;
        while (free_slots() < enough && !stopping()) {
            const auto now = std::chrono::steady_clock::now();
            if (now >= until) co_return;
            co_await slot_freed.wait(until - now);
        }
    }

    asio::awaitable<void> claim_loop() {
        while (!stopping()) {
            if (options.max_jobs && claimed >= *options.max_jobs) co_return;
            co_await gather_slots();
            std::size_t free = std::min(free_slots(), most_per_claim());
            if (options.max_jobs) free = std::min<std::size_t>(free, *options.max_jobs - claimed);
            if (free == 0) {
                co_await slot_freed.wait();
                continue;
            }
            ops::ClaimResult result;
            std::optional<Error> failed;
            try {
                // What is settled by a command that stands before this one no longer counts.
                result = co_await redis_ops.claim(free, options.concurrency + outcomes.size(),
                                                  oldest_job());
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
            if (result.state == ops::ClaimResult::State::no_slot) {
                // A watcher's claim has taken the last slot; its answer is on the way.
                co_await slot_freed.wait(20ms);
                continue;
            }
            const bool any = !result.claimed.empty();
            accept(std::move(result.claimed));
            if (any || dropped) continue;
            if (options.burst) {
                // A running job may yet come back as a retry.
                if (!busy() && outcomes.empty() && settling == 0) co_return;
                co_await drained.wait(100ms);
                continue;
            }
            // Blocking on a queue that cannot be taken from would return at once, again and again.
            if (broken || suspended)
                co_await stop_wanted.wait(1s);
            else if (!co_await wait_for_work())
                co_return;
        }
    }

    /// For monitors; a Redis that does not answer is met again by the next claim.
    asio::awaitable<void> tell_suspended(bool now) {
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

    struct Skips {
        bool dropped = false;  ///< Ids that led nowhere were taken off their queue.
        bool broken = false;   ///< A queue cannot be taken from.
    };
    Skips report_skipped(const std::vector<ops::Skipped>& list) {
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

    /// A queue that nothing can be taken from; told once a minute.
    void report_broken(const ops::Skipped& queue) {
        const auto now = std::chrono::steady_clock::now();
        auto& next = broken_told[queue.queue];
        if (now < next) return;
        next = now + 60s;
        log.error("Queue cannot be read", "queue", queue.queue, "reason", queue.why);
    }

    /// Blocks until a queue has a job, without removing it. False when the worker has been idle for
    /// as long as it may.
    asio::awaitable<bool> wait_for_work() {
        if (watchers.size() == 0) {
            for (const auto& key : redis_ops.queue_keys()) {
                blocking.push_back(
                    std::make_unique<RedisClient>(executor, redis.options(), null_logger()));
                watchers.spawn("watching " + key, watch(*blocking.back(), key));
            }
        }
        work_may_wait = false;
        queues_empty.notify();
        while (!work_may_wait && !stopping()) {
            if (!options.max_idle_time) {
                co_await work_arrived.wait();
                continue;
            }
            const auto until =
                (!busy() ? last_worked : std::chrono::steady_clock::now()) + *options.max_idle_time;
            if (std::chrono::steady_clock::now() >= until) {
                log.info("Worker has been idle for long enough", "name", name);
                co_return false;
            }
            co_await work_arrived.wait(until - std::chrono::steady_clock::now());
        }
        co_return true;
    }

    asio::awaitable<void> watch(RedisClient& client, std::string key) {
        while (!stopping()) {
            if (work_may_wait) {
                // There is something to claim already; look again once it has been.
                co_await queues_empty.wait();
                continue;
            }
            const std::size_t limit = options.max_jobs ? 0 : 1;
            bool failed = false;
            ops::ClaimResult result;
            try {
                if (co_await redis_ops.wait_for_job(client, key, 30s, limit, options.concurrency,
                                                    result))
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

    /// What has been claimed: held from now on, and started as soon as its hash is here.
    void accept(std::vector<ops::Claimed> jobs) {
        for (auto& job : jobs) {
            ++claimed;
            held[job.execution_id] = {job.job_id, job.execution_id, job.origin, {}};
            if (!job.fields.empty()) {
                start(std::move(job));
                continue;
            }
            ++unstarted;
            unread.push_back(std::move(job));
        }
        if (!unread.empty()) hashes_wanted.notify();
    }

    /// Starts the jobs of large claims, whose hashes come behind; the next claim does not wait for
    /// it.
    asio::awaitable<void> start_loop() {
        for (;;) {
            while (unread.empty())
                co_await hashes_wanted.wait();
            std::vector<ops::Claimed> batch(std::move_iterator(unread.begin()),
                                            std::move_iterator(unread.end()));
            unread.clear();
            for (;;) {
                std::optional<Error> failed;
                try {
                    co_await redis_ops.read_hashes(batch);
                    break;
                } catch (const Error& error) {
                    failed = error;
                }
                co_await pause_after(*failed, "Reading jobs failed");
            }
            if (closed) co_return;  // Signing off puts them back.
            unstarted -= batch.size();
            for (auto& job : batch)
                start(std::move(job));
        }
    }

    void start(ops::Claimed claimed_job) {
        auto execution = std::make_shared<Execution>();
        execution->id = std::move(claimed_job.execution_id);
        execution->started_at = claimed_job.started_at;
        execution->started = std::chrono::steady_clock::now();
        std::vector<std::pair<std::string_view, std::string_view>> fields(
            claimed_job.fields.begin(), claimed_job.fields.end());
        auto job = parse_job(claimed_job.job_id, fields);
        std::optional<ParseError> unreadable;
        if (job) {
            execution->job = std::move(*job);
            auto call = decode_call(execution->job.data, {}, &execution->serializer);
            if (call)
                execution->call = std::move(*call);
            else
                unreadable = call.error();
        } else {
            unreadable = job.error();
            execution->job.id = claimed_job.job_id;
        }
        execution->job.origin = std::move(claimed_job.origin);
        if (execution->job.enqueued_at)
            execution->queued_for =
                std::max(execution->started_at - *execution->job.enqueued_at, 0us);
        if (options.serializer) execution->serializer = *options.serializer;
        running.push_back(execution);
        const auto queued_for = execution->queued_for.value_or(0us);
        if (unreadable) {
            log_job_started(log, execution->job.id, queued_for);
            if (unreadable->field.empty()) unreadable->field = "data";
            const std::string line = "rqxx.DeserializationError: " + unreadable->describe();
            finish(execution, Settlement::Outcome::terminal_failure, encode_exc_string(line + "\n"),
                   line);
            return;
        }
        const std::int64_t timeout = execution->job.timeout.value_or(180);
        if (timeout > 0) {
            execution->function_deadline = execution->started + std::chrono::seconds(timeout);
            execution->deadline = execution->function_deadline;
        }
        // The handler's thread wakes up while the rest is done here.
        thread_executor.start(execution);
        log_job_started(log, execution->job.id, queued_for);
        if (timeout > 0) deadline_changed.notify();
    }

    // ---- ending jobs ----------------------------------------------------------------------------

    void on_done(std::shared_ptr<Execution> execution, RunOutcome outcome) {
        if (execution->settled) return;
        finish(execution, settlement_of(*execution, outcome.kind), std::move(outcome.payload),
               std::move(outcome.error));
    }

    static Settlement::Outcome settlement_of(const Execution& execution, RunOutcome::Kind kind) {
        if (execution.stop_reason == StopReason::shutdown && kind != RunOutcome::Kind::success)
            return Settlement::Outcome::returned;
        switch (kind) {
            case RunOutcome::Kind::success:
                return Settlement::Outcome::success;
            case RunOutcome::Kind::failure:
                return Settlement::Outcome::failure;
            case RunOutcome::Kind::stopped:
                return Settlement::Outcome::stopped;
            case RunOutcome::Kind::retry:
                return Settlement::Outcome::retry;
        }
        return Settlement::Outcome::failure;
    }

    void on_callback(const std::shared_ptr<Execution>& execution, std::chrono::seconds limit) {
        execution->in_callback = true;
        execution->deadline = std::chrono::steady_clock::now() + limit;
        deadline_changed.notify();
    }

    void finish(const std::shared_ptr<Execution>& execution, Settlement::Outcome outcome,
                std::string payload, std::string error) {
        execution->settled = true;
        running.remove(execution);
        last_worked = std::chrono::steady_clock::now();
        const auto run_time = std::chrono::duration_cast<std::chrono::microseconds>(
            std::chrono::steady_clock::now() - execution->started);
        outcomes.emplace_back(
            Settlement{execution->job.id, execution->id, execution->job.origin, outcome,
                       std::move(payload), execution->started_at, run_time, execution->queued_for,
                       known_result_ttl(execution->job)},
            std::move(error));
        // In this order: a job that goes back to the front of its queue is the next to be claimed.
        settle_wanted.notify();
        slot_freed.notify();
    }

    static std::string known_result_ttl(const Job& job) {
        if (job.repeats_left || !job.group_id.empty() || !job.dependency_ids.empty() ||
            !job.webhooks.empty())
            return {};
        return job.result_ttl ? std::to_string(*job.result_ttl) : "-";
    }

    asio::awaitable<void> settle_loop() {
        for (;;) {
            while (outcomes.empty())
                co_await settle_wanted.wait();
            std::vector<Settlement> batch;
            std::vector<std::string> errors;
            while (!outcomes.empty() && batch.size() < batch_size) {
                batch.push_back(std::move(outcomes.front().first));
                errors.push_back(std::move(outcomes.front().second));
                outcomes.pop_front();
            }
            settling += batch.size();
            bool in_doubt = false;
            for (;;) {
                std::optional<Error> failed;
                try {
                    const auto settled =
                        co_await redis_ops.settle(batch, oldest_job(), options.default_result_ttl);
                    for (std::size_t i = 0; i < batch.size(); ++i) {
                        held.erase(batch[i].execution_id);
                        report(batch[i], settled[i], errors[i], in_doubt);
                    }
                    break;
                } catch (const Error& error) {
                    failed = error;
                }
                // The fence makes a repetition harmless.
                in_doubt = in_doubt || failed->in_doubt();
                co_await pause_after(*failed, "Storing results failed");
            }
            settling -= batch.size();
            drained.notify();
        }
    }

    void report(const Settlement& settlement, const Settled& settled, const std::string& error,
                bool in_doubt) {
        switch (settled.code) {
            case Settled::Code::finished:
                ++summary.finished;
                log_job_finished(log, settlement.job_id, settlement.run_time);
                break;
            case Settled::Code::failed:
                ++summary.failed;
                log_job_failed(log, settlement.job_id, error);
                break;
            case Settled::Code::retried:
                ++summary.retried;
                log_job_retry(log, settlement.job_id, settled.attempt, settled.of, settled.next_in,
                              error);
                break;
            case Settled::Code::stopped:
                ++summary.stopped;
                log.warning("Job stopped", "id", settlement.job_id);
                break;
            case Settled::Code::returned:
                ++summary.returned;
                log.info("Job returned", "id", settlement.job_id, "queue", settlement.origin);
                break;
            case Settled::Code::canceled:
                log.info("Job canceled", "id", settlement.job_id);
                break;
            case Settled::Code::deleted:
                // With a result TTL of 0, the first attempt to settle it may have deleted it.
                log.info(in_doubt ? "Job settled in an unclear moment" : "Job deleted while it ran",
                         "id", settlement.job_id);
                break;
            case Settled::Code::refused:
                if (in_doubt) {
                    log.warning("Job settled in an unclear moment", "id", settlement.job_id);
                } else {
                    ++summary.lost;
                    log.warning("Result refused: the job was taken from this worker", "id",
                                settlement.job_id);
                }
                break;
        }
    }

    /// First signal: wait for what runs. After the grace, or on a second signal: put it back.
    asio::awaitable<void> drain() {
        const auto until = std::chrono::steady_clock::now() + options.grace;
        if (stopping() && busy()) {
            try {
                co_await redis_ops.note_shutdown();
            } catch (const Error&) {
                // Only monitors miss something.
            }
        }
        while (busy() && stop_requests < 2) {
            const auto now = std::chrono::steady_clock::now();
            if (stopping() && now >= until) break;
            co_await drained.wait(
                stopping() ? std::min<std::chrono::steady_clock::duration>(until - now, 500ms)
                           : 500ms);
        }
        closed = true;
        for (const auto& execution : std::list(running)) {
            execution->request_stop(StopReason::shutdown);
            thread_executor.abandon(execution);
            finish(execution, Settlement::Outcome::returned, {}, {});
        }
        // Results must not be lost, but an absent Redis must not keep us for ever either.
        const auto give_up =
            std::chrono::steady_clock::now() + std::max<std::chrono::seconds>(options.grace, 10s);
        while ((!outcomes.empty() || settling > 0) && std::chrono::steady_clock::now() < give_up)
            co_await drained.wait(200ms);
        summary.unstored = outcomes.size() + settling;
        if (summary.unstored > 0)
            log.error("Results could not be stored before the end", "jobs", summary.unstored);
    }

    // ---- staying alive --------------------------------------------------------------------------

    asio::awaitable<void> heartbeat_loop() {
        Event pause(executor);
        std::chrono::milliseconds wait = options.heartbeat;
        for (;;) {
            co_await pause.wait(std::exchange(wait, options.heartbeat));
            auto jobs_by_execution = held;
            for (const auto& execution : running) {
                const std::scoped_lock lock(execution->progress_mutex);
                jobs_by_execution[execution->id].progress.swap(execution->progress);
            }
            std::vector<ops::Running> jobs;
            for (auto& [id, job] : jobs_by_execution)
                jobs.push_back(std::move(job));
            const Seconds oldest =
                running.empty()
                    ? Seconds(0)
                    : Seconds(std::chrono::steady_clock::now() - running.front()->started);
            bool lease_held = true;
            bool failed = false;
            try {
                const auto result =
                    co_await redis_ops.heartbeat(std::move(jobs), oldest_job(), oldest);
                lease_held = result.lease_held;
                if (result.orphans > 0)
                    log.warning("Jobs put back whose claim was never answered", "jobs",
                                result.orphans);
                for (const auto& notice : result.notices) {
                    for (const auto& execution : running) {
                        if (execution->id != notice.execution_id) continue;
                        ask_to_stop(*execution, notice.canceled ? StopReason::canceled
                                                                : StopReason::lease_lost);
                    }
                }
            } catch (const Error& error) {
                log.debug("Heartbeat failed", "error", error.message());
                failed = true;
            }
            if (failed) {
                // The next one goes out as soon as Redis is back.
                try {
                    co_await redis.connect(options.heartbeat);
                    wait = 100ms;
                } catch (const Error&) {
                }
                continue;
            }
            if (!lease_held) co_await register_again();
        }
    }

    asio::awaitable<void> register_again() {
        log.warning("Worker was taken for dead; registering again", "name", name);
        try {
            const auto birth = co_await redis_ops.register_birth();
            if (!birth.registered)
                co_await redis_ops.expire_lease();  // Our own old record: to be buried first.
        } catch (const Error& error) {
            log.debug("Registering failed", "error", error.message());
        }
        Event pause(executor);
        co_await pause.wait(200ms);
    }

    /// The soft stage; `deadline_loop` gives up on a handler that does not listen.
    void ask_to_stop(Execution& execution, StopReason reason) {
        execution.request_stop(reason);
        if (execution.give_up_at) return;
        execution.give_up_at = std::chrono::steady_clock::now() + options.kill_after;
        deadline_changed.notify();
    }

    asio::awaitable<void> deadline_loop() {
        for (;;) {
            const auto now = std::chrono::steady_clock::now();
            auto next = now + 1h;
            for (const auto& execution : std::list(running))
                next = std::min(next, look_at_limits(execution, now));
            co_await deadline_changed.wait(next - now);
        }
    }

    /// Soft at the time limit, hard `kill_after` later. When to look again.
    std::chrono::steady_clock::time_point look_at_limits(
        const std::shared_ptr<Execution>& execution, std::chrono::steady_clock::time_point now) {
        auto next = now + 1h;
        if (execution->give_up_at) {
            if (now >= *execution->give_up_at) {
                give_up(execution);
                return next;
            }
            next = *execution->give_up_at;
        }
        if (!execution->deadline) return next;
        if (now < *execution->deadline) return std::min(next, *execution->deadline);
        const auto hard = *execution->deadline + options.kill_after;
        if (now >= hard) {
            execution->request_stop(StopReason::time_limit);
            give_up(execution);
            return next;
        }
        if (execution->in_callback)
            execution->callback_over_limit();
        else
            execution->request_stop(StopReason::time_limit);
        return std::min(next, hard);
    }

    /// The handler does not listen: its job ends without it, and its place is taken.
    void give_up(const std::shared_ptr<Execution>& execution) {
        log.error("Handler ignores that it is to stop; its thread is replaced", "id",
                  execution->job.id, "function", execution->call.func_name);
        thread_executor.abandon(execution);
        auto outcome = Settlement::Outcome::failure;
        std::string text;
        switch (execution->stop_reason.load()) {
            case StopReason::stopped:
                outcome = Settlement::Outcome::stopped;
                text = "Job stopped by user, work-horse terminated.";
                if (!execution->job.stopped_callback_name.empty())
                    log.error("Callback skipped", "id", execution->job.id, "callback",
                              execution->job.stopped_callback_name, "reason",
                              "the handler had to be given up");
                break;
            case StopReason::killed:
                text = "Work-horse terminated unexpectedly; waitpid returned 9 (signal 9); ";
                break;
            default:
                text = fmt::format(
                    "rq.timeouts.JobTimeoutException: Task exceeded maximum timeout value ({} "
                    "seconds)\n",
                    execution->job.timeout.value_or(180));
        }
        std::string payload = encode_exc_string(text);
        if (text.ends_with('\n')) text.pop_back();
        finish(execution, outcome, std::move(payload), std::move(text));
    }

    // ---- commands -------------------------------------------------------------------------------

    asio::awaitable<void> command_loop() {
        for (;;) {
            const auto message = co_await commands->next();
            obey(message.payload);
        }
    }

    /// Source: rq/command.py; `stop-execution` is of RQ's main branch. What is not understood is
    /// passed over: the channel is open to anybody.
    void obey(const std::string& payload) {
        const auto command = decode_json(payload, {.max_bytes = 65536, .max_depth = 8});
        if (!command || !command->is_dict()) return;
        const auto text = [&](std::string_view key) {
            const Value* value = command->find(key);
            return value != nullptr && value->is_string() ? value->as_text() : std::string();
        };
        const std::string what = text("command");
        if (what == "shutdown") {
            log.info("Told to shut down", "name", name);
            request_stop();
        } else if (what == "stop-job" || what == "stop-execution" || what == "kill-horse") {
            const auto reason = what == "kill-horse" ? StopReason::killed : StopReason::stopped;
            const std::string id = text("job_id"), execution_id = text("execution_id");
            for (const auto& execution : std::list(running)) {
                if (reason == StopReason::stopped && execution->job.id != id) continue;
                if (what == "stop-execution" && execution->id != execution_id) continue;
                ask_to_stop(*execution, reason);
            }
        }
    }

    asio::awaitable<void> pause_after(const Error& error, std::string_view what) {
        if (!error.retryable()) log.error(what, "error", error.message());
        co_await stop_wanted.wait(error.retryable() ? 100ms : 1000ms);
    }

    void request_stop() {
        ++stop_requests;
        for (Event* event : {&slot_freed, &work_arrived, &queues_empty, &stop_wanted, &drained})
            event->notify();
    }
};

Worker::Worker(RedisClient& redis, const HandlerRegistry& handlers, WorkerOptions options,
               Logger& log) {
    if (options.queues.empty()) throw Error(Errc::usage, "queues: at least one is needed");
    if (options.concurrency < 1 || options.concurrency > 1024)
        throw Error(Errc::usage, "concurrency: must be from 1 to 1024");
    for (char c : options.name) {
        if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f)
            throw Error(Errc::usage, "name: spaces and control characters are not allowed");
    }
    impl_ = std::make_unique<Impl>(redis, handlers, std::move(options), log);
}

Worker::~Worker() = default;

asio::awaitable<WorkerSummary> Worker::run() {
    return impl_->run();
}
void Worker::request_stop() {
    impl_->request_stop();
}
const std::string& Worker::name() const noexcept {
    return impl_->name;
}
std::size_t Worker::running() const noexcept {
    return impl_->running.size();
}
std::chrono::steady_clock::time_point Worker::last_poll() const noexcept {
    return impl_->last_poll;
}

}  // namespace rqxx
