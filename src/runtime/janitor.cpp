#include "runtime/janitor.hpp"

#include <rqxx/events.hpp>

#include "base/task_group.hpp"
#include "ops/upkeep.hpp"

namespace rqxx::runtime {

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {
constexpr auto recover_interval = 2s;
constexpr int recoveries_per_pass = 5;  ///< Of maintenance.
}  // namespace

asio::awaitable<void> Janitor::run() {
    Event pause(redis_.executor());
    for (int round = 0;; ++round) {
        co_await pause.wait(recover_interval);
        try {
            if (all_) queues_ = co_await ops::known_queues(redis_);
            co_await recover();
            co_await ops::tend_limits(redis_);
            co_await ops::maintain_batches(redis_);
            if (round % recoveries_per_pass == 0) co_await maintain();
        } catch (const Error& error) {
            log_.debug("Maintenance failed", "error", error.message());
        }
    }
}

asio::awaitable<void> Janitor::recover() {
    for (;;) {
        const auto result = co_await ops::recover(redis_, queues_, policy_);
        for (const auto& job : result.jobs) {
            if (job.what == "stale") continue;
            log_.warning("Job recovered", "id", job.job_id, "worker", job.worker, "queue",
                         job.queue, "outcome", job.what);
            if (job.what == "failed")
                log_job_failed(log_, job.job_id, "AbandonedJobError: its worker died");
            if (job.what == "retried")
                log_job_retry(log_, job.job_id, job.attempt, job.of, 0s,
                              "AbandonedJobError: its worker died");
        }
        if (!result.more) co_return;
    }
}

asio::awaitable<void> Janitor::maintain() {
    for (const auto& queue : std::vector(queues_)) {
        const auto counts = co_await ops::maintain(redis_, queue);
        for (const auto& [what, count] : counts) {
            if (what == "requeued")
                log_.warning("Jobs put back that a dead worker had taken", "queue", queue, "jobs",
                             count);
            else if (what == "released")
                log_.warning("Jobs released that nothing held back any more", "queue", queue,
                             "jobs", count);
            else
                log_.debug("Queue put in order", "queue", queue, "what", what, "count", count);
        }
    }
    co_await ops::maintain_groups(redis_);
    const auto freed = co_await ops::maintain_rate_limits(redis_);
    if (freed > 0) log_.warning("Slots of rate limits freed that nobody held", "slots", freed);
    if (const auto forgotten = co_await ops::maintain_dedups(redis_))
        log_.debug("Deduplication keys of ended jobs forgotten", "count", forgotten);
}

}  // namespace rqxx::runtime
