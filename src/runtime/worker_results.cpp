#include <fmt/format.h>

#include <rqxx/events.hpp>

#include "runtime/worker_impl.hpp"

namespace rqxx {

using ops::Settled;
using ops::Settlement;
using runtime::Execution;
using runtime::RunOutcome;
using runtime::StopReason;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

/// Of a job that runs; its end sets another.
constexpr std::int64_t running_output_ttl = std::int64_t{7} * 86400;
/// RQ's, as in lua/includes/transitions.lua.
constexpr std::int64_t default_failure_ttl = 31536000;

Settlement::Outcome settlement_of(const Execution& execution, RunOutcome::Kind kind) {
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
        case RunOutcome::Kind::postponed:
            return Settlement::Outcome::postponed;
    }
    return Settlement::Outcome::failure;
}

std::string known_result_ttl(const Job& job) {
    if (job.repeats_left || !job.group_id.empty() || !job.dependency_ids.empty() ||
        !job.webhooks.empty() || !job.rate_limit_key.empty())
        return {};
    return job.result_ttl ? std::to_string(*job.result_ttl) : "-";
}

std::string_view outcome_of(const Settlement& settlement, Settled::Code code) {
    const bool over_time = settlement.cause.starts_with("time limit");
    switch (code) {
        case Settled::Code::finished:
            return "success";
        case Settled::Code::failed:
            if (over_time) return "timeout";
            return settlement.cause.starts_with("memory limit") ? "killed_oom" : "failed";
        case Settled::Code::retried:
            return "retried";
        case Settled::Code::stopped:
            return "stopped";
        case Settled::Code::canceled:
            return "canceled";
        case Settled::Code::deleted:
            return "deleted";
        case Settled::Code::returned:
            return "returned";
        case Settled::Code::postponed:
            return "postponed";
        case Settled::Code::refused:
            return "refused";
    }
    return "failed";
}

}  // namespace

void Worker::Impl::on_done(std::shared_ptr<Execution> execution, RunOutcome outcome) {
    if (execution->settled) return;
    const auto as = settlement_of(*execution, outcome.kind);
    finish(execution, as, std::move(outcome));
}

void Worker::Impl::on_callback(const std::shared_ptr<Execution>& execution,
                               std::chrono::seconds limit) {
    execution->in_callback = true;
    execution->deadline.reset();
    if (limit.count() > 0) execution->deadline = std::chrono::steady_clock::now() + limit;
    // Stopped is what was asked for; its callback has a limit of its own.
    if (execution->stop_reason == StopReason::stopped) execution->give_up_at.reset();
    deadline_changed.notify();
}

void Worker::Impl::finish(const std::shared_ptr<Execution>& execution, Settlement::Outcome as,
                          RunOutcome outcome) {
    execution->settled = true;
    running.remove(execution);
    if (!execution->shared || --execution->shared->unsettled == 0) {
        --slots_running;
        groups_blocked = false;
    }
    last_worked = std::chrono::steady_clock::now();
    const auto run_time = std::chrono::duration_cast<std::chrono::microseconds>(
        std::chrono::steady_clock::now() - execution->started);
    usual_run_time += (Seconds(run_time) - usual_run_time) / 10;
    const Job& job = execution->job;
    if (as == Settlement::Outcome::postponed && outcome.payload.ends_with(" limit")) {
        for (const auto& limiter : redis_ops.plan().limiters_of(job, name))
            outcome.payload += "\n" + limiter;
    }
    outcomes.push_back({.settlement = {.job_id = job.id,
                                       .execution_id = execution->id,
                                       .origin = job.origin,
                                       .outcome = as,
                                       .payload = std::move(outcome.payload),
                                       .started_at = execution->started_at,
                                       .run_time = run_time,
                                       .queued_for = execution->queued_for,
                                       .known_result_ttl = known_result_ttl(job),
                                       .cause = std::move(outcome.cause),
                                       .usage = outcome.usage},
                        .error = std::move(outcome.error),
                        .output = execution->output.take_rest(),
                        .had_output = execution->output_stored,
                        .output_ttl = output_ttl(job, as),
                        .on_settled = std::move(outcome.on_settled)});
    if (on_run) {
        outcomes.back().function = execution->call.func_name;
        outcomes.back().executor = executors.name_of(*execution);
        outcomes.back().at = last_worked;
    }
    start_ahead();
    // In this order: a job that goes back to the front of its queue is the next to be claimed.
    settle_wanted.notify();
    slot_freed.notify();
}

std::int64_t Worker::Impl::output_ttl(const Job& job, Settlement::Outcome outcome) const {
    if (outcome == Settlement::Outcome::success)
        return job.result_ttl.value_or(options.default_result_ttl.count());
    const bool ends =
        outcome == Settlement::Outcome::terminal_failure ||
        outcome == Settlement::Outcome::stopped ||
        (outcome == Settlement::Outcome::failure && job.retries_left.value_or(0) <= 0);
    // The last of its executions says for how long the job is kept.
    return ends ? job.failure_ttl.value_or(default_failure_ttl) : running_output_ttl;
}

asio::awaitable<void> Worker::Impl::output_loop() {
    Event pause(executor);
    for (;;) {
        co_await pause.wait(500ms);
        for (const auto& execution : std::list(running)) {
            auto chunks = execution->output.take();
            if (chunks.empty()) continue;
            execution->output_stored = true;
            try {
                co_await redis_ops.append_output(execution->job.id, execution->id,
                                                 running_output_ttl, std::move(chunks));
            } catch (const Error& error) {
                log.debug("Output was not stored", "id", execution->job.id, "error",
                          error.message());
            }
        }
    }
}

asio::awaitable<void> Worker::Impl::settle_loop() {
    for (;;) {
        while (outcomes.empty())
            co_await settle_wanted.wait();
        std::vector<Ended> ended;
        std::vector<Settlement> batch;
        while (!outcomes.empty() && batch.size() < batch_size) {
            batch.push_back(std::move(outcomes.front().settlement));
            ended.push_back(std::move(outcomes.front()));
            outcomes.pop_front();
        }
        settling += batch.size();
        bool in_doubt = false;
        for (;;) {
            std::optional<Error> failed;
            try {
                co_await store_output(batch, ended);
                const auto settled =
                    co_await redis_ops.settle(batch, oldest_job(), options.default_result_ttl);
                for (std::size_t i = 0; i < batch.size(); ++i) {
                    held.erase(batch[i].execution_id);
                    report(batch[i], ended[i], settled[i], in_doubt);
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

asio::awaitable<void> Worker::Impl::store_output(const std::vector<Settlement>& batch,
                                                 std::vector<Ended>& ended) {
    for (std::size_t i = 0; i < batch.size(); ++i) {
        if (ended[i].output.empty() && !ended[i].had_output) continue;
        co_await redis_ops.append_output(batch[i].job_id, batch[i].execution_id,
                                         ended[i].output_ttl, ended[i].output);
        ended[i].output.clear();
        ended[i].had_output = false;
    }
}

void Worker::Impl::observe(const Settlement& settlement, const Ended& ended,
                           const Settled& settled) const {
    if (!on_run || ended.never_started || ended.executor.empty()) return;
    RunRecord record;
    record.queue = settlement.origin;
    record.function = ended.function;
    record.executor = ended.executor;
    record.outcome = outcome_of(settlement, settled.code);
    record.run = settlement.run_time;
    if (settlement.queued_for) record.waited = *settlement.queued_for;
    record.to_settle = std::chrono::steady_clock::now() - ended.at;
    on_run(record);
}

void Worker::Impl::report(const Settlement& settlement, const Ended& ended, const Settled& settled,
                          bool in_doubt) {
    if (ended.on_settled) ended.on_settled(settled.code);
    observe(settlement, ended, settled);
    const std::string& error = ended.error;
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
            if (ended.never_started) break;
            ++summary.returned;
            log.info("Job returned", "id", settlement.job_id, "queue", settlement.origin);
            break;
        case Settled::Code::postponed:
            log.info("Job postponed", "id", settlement.job_id, "next_in",
                     fmt::format("{}s", settled.next_in.count()), "reason", error);
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

}  // namespace rqxx
