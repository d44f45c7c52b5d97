#include <rqxx/events.hpp>

#include "runtime/worker_impl.hpp"

namespace rqxx {

using ops::Settled;
using ops::Settlement;
using runtime::Execution;
using runtime::RunOutcome;
using runtime::StopReason;
namespace asio = boost::asio;

namespace {

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
    }
    return Settlement::Outcome::failure;
}

std::string known_result_ttl(const Job& job) {
    if (job.repeats_left || !job.group_id.empty() || !job.dependency_ids.empty() ||
        !job.webhooks.empty())
        return {};
    return job.result_ttl ? std::to_string(*job.result_ttl) : "-";
}

}  // namespace

void Worker::Impl::on_done(std::shared_ptr<Execution> execution, RunOutcome outcome) {
    if (execution->settled) return;
    finish(execution, settlement_of(*execution, outcome.kind), std::move(outcome.payload),
           std::move(outcome.error));
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

void Worker::Impl::finish(const std::shared_ptr<Execution>& execution, Settlement::Outcome outcome,
                          std::string payload, std::string error) {
    execution->settled = true;
    running.remove(execution);
    last_worked = std::chrono::steady_clock::now();
    const auto run_time = std::chrono::duration_cast<std::chrono::microseconds>(
        std::chrono::steady_clock::now() - execution->started);
    outcomes.emplace_back(Settlement{execution->job.id, execution->id, execution->job.origin,
                                     outcome, std::move(payload), execution->started_at, run_time,
                                     execution->queued_for, known_result_ttl(execution->job)},
                          std::move(error));
    // In this order: a job that goes back to the front of its queue is the next to be claimed.
    settle_wanted.notify();
    slot_freed.notify();
}

asio::awaitable<void> Worker::Impl::settle_loop() {
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

void Worker::Impl::report(const Settlement& settlement, const Settled& settled,
                          const std::string& error, bool in_doubt) {
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

}  // namespace rqxx
