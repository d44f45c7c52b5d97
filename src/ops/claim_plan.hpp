#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <random>
#include <rqxx/job.hpp>
#include <rqxx/redis/client.hpp>
#include <rqxx/worker.hpp>
#include <string>
#include <utility>
#include <vector>

#include "ops/rule_set.hpp"

namespace rqxx::ops {

/// A job that has been started for us.
struct Claimed {
    std::string job_id;
    std::string execution_id;
    std::string origin;
    Timestamp started_at;
    /// On our clock: since then at the latest the job has been ours. Of a job that we waited for,
    /// when it came.
    std::chrono::steady_clock::time_point asked_at;
    FieldList fields;  ///< The hash as it was before the start; empty in a large claim: to be read.
};

/// An id that was on a queue and could not run: dropped from it.
struct Skipped {
    std::string job_id;
    std::string queue;
    std::string why;
};

struct ClaimResult {
    enum class State { ok = 0, suspended = 1, lease_gone = 2, no_slot = 3, rules_changed = 4 };
    State state = State::ok;
    std::vector<Claimed> claimed;
    std::vector<Skipped> skipped;

    // ---- of queues with rules ----

    /// When something may be claimed that cannot be now.
    std::optional<std::chrono::steady_clock::time_point> look_again;
    bool held_up = false;  ///< Jobs wait for what others give back; a message says when.
    bool paused = false;   ///< So do jobs of a paused queue, maybe.
    std::vector<std::string> unwatchable;  ///< Queues whose list says nothing about what can run.
    std::vector<std::string> unsorted;     ///< Queues with jobs that are not in their lanes yet.
};

/// How many of a worker's jobs run, by queue.
using RunningByQueue = std::map<std::string, std::size_t, std::less<>>;

/// What a worker claims, in which order, and under which rules.
class ClaimPlan {
public:
    explicit ClaimPlan(const WorkerOptions& options);

    void set_rules(RuleSet rules);
    [[nodiscard]] const RuleSet& rules() const noexcept { return rules_; }
    [[nodiscard]] const QueueRules& of_queue(std::size_t index) const {
        return queues_[index].rules;
    }
    [[nodiscard]] const std::string& queue(std::size_t index) const { return queues_[index].name; }
    /// Names of the limiters that hold for a job, as lua/includes/limits.lua has them.
    [[nodiscard]] std::vector<std::string> limiters_of(const Job& job,
                                                       const std::string& worker) const;
    [[nodiscard]] std::size_t size() const noexcept { return queues_.size(); }
    /// Whether a claim looks at more than the lists.
    [[nodiscard]] bool ruled() const noexcept { return ruled_; }
    [[nodiscard]] const std::vector<std::string>& queue_keys() const noexcept {
        return queue_keys_;
    }

    /// What both scripts need to know of the worker.
    struct Request {
        const std::string& worker;
        const std::string& worker_key;
        const std::string& executions_key;
        std::size_t limit = 0;
        std::size_t capacity = 0;
        std::string oldest_job;
        const RunningByQueue& running;
    };
    [[nodiscard]] const Script& script() const noexcept;
    /// Keys and arguments of `script`.
    [[nodiscard]] std::pair<std::vector<std::string>, std::vector<std::string>> arguments(
        Request request);
    ClaimResult digest(Reply reply, std::chrono::steady_clock::time_point asked_at);

private:
    struct PlannedQueue {
        std::string name;
        std::int64_t weight = 1;
        std::int64_t share = 0;
        std::optional<std::size_t> most_running;
        QueueRules rules;
    };
    [[nodiscard]] std::string plan_text(const RunningByQueue& running);

    Strategy strategy_;
    std::chrono::microseconds ageing_;
    std::vector<PlannedQueue> queues_;
    std::vector<std::string> queue_keys_;
    RuleSet rules_;
    std::string rules_text_;  ///< As the plan has them.
    bool ruled_ = false;
    bool after_risen_ = false;
    std::vector<std::size_t> order_;  ///< In which the queues went into the newest request.
    std::size_t first_queue_ = 0;     ///< Whose turn it is, where they take turns.
    std::minstd_rand random_{std::random_device{}()};
};

/// The hash that HGETALL answered.
[[nodiscard]] FieldList hash_fields(Reply reply);

}  // namespace rqxx::ops
