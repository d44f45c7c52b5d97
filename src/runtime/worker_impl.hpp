#pragma once

#include <algorithm>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <rqxx/worker.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/task_group.hpp"
#include "ops/transitions.hpp"
#include "runtime/executors.hpp"
#include "runtime/janitor.hpp"

namespace rqxx {

/// The engine of a worker: loops that share its state, all on the client's executor.
///
/// Taking, starting and settling jobs go on side by side and wake each other by events.
struct Worker::Impl {
    /// How many jobs one script call takes or settles: enough to fill the pipe, few enough that
    /// Redis serves others in between.
    static constexpr std::size_t batch_size = 128;

    Impl(RedisClient& redis_, const HandlerRegistry& handlers, WorkerOptions options_,
         Logger& log_);

    RedisClient& redis;
    WorkerOptions options;
    Logger& log;
    boost::asio::any_io_executor executor;
    std::string name;
    ops::WorkerOps redis_ops;
    runtime::Janitor janitor;

    std::list<std::shared_ptr<runtime::Execution>> running;  ///< Oldest first.
    /// A run that is over.
    struct Ended {
        ops::Settlement settlement;
        std::string error{};  ///< One line.
        ops::OutputChunks output{};
        bool had_output = false;  ///< Some stands in Redis; its TTL is still that of a running job.
        std::int64_t output_ttl = -1;
        std::function<void(ops::Settled::Code)> on_settled{};
        bool never_started = false;
        // For `on_run`, where somebody listens.
        std::string function{};
        std::string_view executor{};
        std::chrono::steady_clock::time_point at{};
    };
    std::deque<Ended> outcomes;  ///< To be settled.
    std::size_t settling = 0;
    std::deque<ops::Claimed> unread;  ///< Claimed; their hashes are to be read.
    std::size_t unstarted = 0;        ///< These, and those whose hashes are being read.
    /// Claimed beyond the free slots, with the time: started as soon as a slot is free. With short
    /// jobs a slot would else spend most of its time waiting for Redis.
    std::deque<std::pair<ops::Claimed, std::chrono::steady_clock::time_point>> ahead;
    /// Jobs that wait for others of their function, to run in one call. Each such group keeps a
    /// slot free, so that it starts when its time has come.
    struct Forming {
        Aggregation most;
        std::vector<std::shared_ptr<runtime::Execution>> jobs;
        std::chrono::steady_clock::time_point until;
    };
    std::map<std::string, Forming> forming;  ///< By function.
    std::size_t grouped_in_a_row = 0;        ///< Jobs claimed since one that joined no group.
    bool groups_blocked = false;    ///< What is claimed next needs a slot, and there is none.
    std::size_t slots_running = 0;  ///< A call of several jobs takes one.
    Seconds usual_run_time{1};      ///< Of the newest jobs.
    std::map<std::string, ops::Running> held;  ///< Claimed and not settled, by execution.
    WorkerSummary summary;
    std::function<void(const RunRecord&)> on_run;
    std::uint64_t claimed = 0;
    std::chrono::steady_clock::time_point last_poll = std::chrono::steady_clock::now();
    std::map<std::string, std::chrono::steady_clock::time_point>
        broken_told;  ///< When to tell again.
    int stop_requests = 0;
    bool prepared = false;             ///< Jobs can be run.
    bool closed = false;               ///< Nothing is started any more.
    bool news_to_acknowledge = false;  ///< The next heartbeat is not to wait.
    bool work_may_wait = true;         ///< A queue may have something to claim; watchers rest.
    bool rules_known = false;          ///< The rules are those that held a moment ago.
    bool woken = false;                ///< Since the newest claim was sent.
    ops::ClaimResult held_back;        ///< The newest claim, for what it says of waiting.

    std::chrono::steady_clock::time_point lease_renewed = std::chrono::steady_clock::now();

    Event slot_freed, hashes_wanted, ahead_changed, forming_changed, work_arrived, queues_empty,
        settle_wanted, deadline_changed, stop_wanted, drained, heartbeat_wanted;
    runtime::Executors executors;
    std::vector<std::unique_ptr<RedisClient>> blocking;
    std::unique_ptr<RedisSubscriber> commands;
    bool suspended = false;  ///< As monitors are told.
    std::chrono::steady_clock::time_point last_worked = std::chrono::steady_clock::now();
    TaskGroup watchers;
    TaskGroup tasks;

    [[nodiscard]] bool stopping() const { return stop_requests > 0; }
    [[nodiscard]] bool busy() const {
        return !running.empty() || unstarted > 0 || !ahead.empty() || !forming.empty();
    }
    [[nodiscard]] std::size_t slots_in_use() const { return slots_running + forming.size(); }
    [[nodiscard]] std::string oldest_job() const {
        return running.empty() ? std::string() : running.front()->job.id;
    }
    /// How many jobs may be claimed.
    [[nodiscard]] std::size_t free_slots() const {
        const std::size_t most = options.concurrency + most_ahead();
        return most - std::min(slots_in_use() + unstarted + ahead.size(), most);
    }
    /// How many may be held in all, those ahead and those to be settled aside.
    [[nodiscard]] std::size_t most_held() const {
        return options.concurrency + beside_slots() + room_in_groups();
    }
    /// Only while jobs are short: one that is claimed too early waits for a slot here, though
    /// another worker may have one.
    [[nodiscard]] std::size_t most_ahead() const;

    // ---- life: worker.cpp ----

    boost::asio::awaitable<WorkerSummary> run();
    boost::asio::awaitable<void> check();
    /// A claim that is answered meanwhile is dropped here and put back by `register_death`.
    boost::asio::awaitable<void> stop_watching();
    /// Registers the worker, also in the place of one that was killed on this host.
    boost::asio::awaitable<void> be_born();
    /// First signal: wait for what runs. After the grace, or on a second signal: put it back.
    boost::asio::awaitable<void> drain();
    void throw_away();
    void request_stop();
    /// Asks a job to stop, the soft stage. The first reason counts.
    void interrupt(const std::shared_ptr<runtime::Execution>& execution,
                   runtime::StopReason reason);
    /// Until what failed may be tried again; ends early when the worker is to stop.
    boost::asio::awaitable<void> pause_after(const Error& error, std::string_view what);

    // ---- taking jobs: worker_claims.cpp ----

    /// With many slots a third at a time: Redis starts some jobs while others run and others are
    /// settled, and none of the three waits for the next.
    [[nodiscard]] std::size_t most_per_claim() const;
    /// Where short jobs end one after the other, a claim for each would cost more than the job.
    boost::asio::awaitable<void> gather_slots();
    boost::asio::awaitable<void> claim_loop();
    /// Learns the rules, and moves what waits in lanes of those that hold no more.
    boost::asio::awaitable<void> learn_rules();
    /// Puts jobs of queues with rules into their lanes. False when another worker is at it.
    boost::asio::awaitable<bool> sort_jobs();
    /// What a message says: something of a queue may be claimed, or the rules have changed.
    void wake(const std::string& payload);
    [[nodiscard]] ops::RunningByQueue running_by_queue() const;
    /// How long to wait for news at most.
    [[nodiscard]] std::optional<std::chrono::steady_clock::time_point> look_again() const;
    /// For monitors; a Redis that does not answer is met again by the next claim.
    boost::asio::awaitable<void> tell_suspended(bool now);
    struct Skips {
        bool dropped = false;  ///< Ids that led nowhere were taken off their queue.
        bool broken = false;   ///< A queue cannot be taken from.
    };
    Skips report_skipped(const std::vector<ops::Skipped>& list);
    /// A queue that nothing can be taken from; told once a minute.
    void report_broken(const ops::Skipped& queue);
    /// Blocks until a queue has a job, without removing it. False when the worker has been idle for
    /// as long as it may.
    boost::asio::awaitable<bool> wait_for_work();
    boost::asio::awaitable<void> watch(RedisClient& client, std::string key);
    /// What has been claimed: held from now on, and started as soon as its hash is here.
    void accept(std::vector<ops::Claimed> jobs);
    /// Whether claimed jobs may have been taken from us: the lease has run out since.
    [[nodiscard]] bool is_too_late(const std::vector<ops::Claimed>& jobs) const;
    /// What has been claimed and may not start any more. Whoever has it by now keeps it: the fence.
    void give_back(std::span<const ops::Claimed> jobs);
    /// Starts the jobs of large claims, whose hashes come behind; the next claim does not wait for
    /// it.
    boost::asio::awaitable<void> start_loop();
    /// What is to run, and why it cannot.
    using Read = std::pair<std::shared_ptr<runtime::Execution>, std::optional<ParseError>>;
    [[nodiscard]] Read read(const ops::Claimed& claimed_job) const;
    /// Ends a job whose call cannot be read.
    void refuse(const std::shared_ptr<runtime::Execution>& execution, ParseError unreadable);
    /// Starts the jobs of one call in a slot.
    void launch(std::span<const std::shared_ptr<runtime::Execution>> jobs);
    /// Starts it, or keeps it for its group or the next free slot.
    void place(ops::Claimed job);
    void start_ahead();
    void give_back_ahead();
    /// Gives back what has waited for too long: a job before it is not short.
    boost::asio::awaitable<void> ahead_loop();

    // ---- jobs that share a call: worker_groups.cpp ----

    /// How many jobs are held that take no slot of their own.
    [[nodiscard]] std::size_t beside_slots() const;
    /// How many jobs may be claimed for groups alone. Which function a job calls is known only once
    /// it is claimed: so this follows from what came before.
    [[nodiscard]] std::size_t room_in_groups() const;
    /// Whether there was a group for it.
    bool join_group(const std::shared_ptr<runtime::Execution>& execution);
    /// Whether it waits for others from now on, in a slot.
    bool begin_group(const std::shared_ptr<runtime::Execution>& execution);
    [[nodiscard]] bool goes_into_group(const runtime::Execution& execution) const;
    void start_group(std::map<std::string, Forming>::iterator group);
    void start_groups();
    void give_back_groups();
    /// Nothing is claimed any more.
    void end_groups();
    void give_back(std::span<const std::shared_ptr<runtime::Execution>> jobs);
    /// A job has been claimed for which there is neither group nor slot.
    void no_slot_for_a_job();
    /// Starts groups whose first job has waited for long enough.
    boost::asio::awaitable<void> group_loop();
    /// Takes a job out of its group. Null where there is none.
    std::shared_ptr<runtime::Execution> take_out(
        const std::function<bool(const runtime::Execution&)>& wanted);
    void end_waiting(const std::shared_ptr<runtime::Execution>& execution,
                     runtime::StopReason reason);

    // ---- ending jobs: worker_results.cpp ----

    void on_done(std::shared_ptr<runtime::Execution> execution, runtime::RunOutcome outcome);
    void on_callback(const std::shared_ptr<runtime::Execution>& execution,
                     std::chrono::seconds limit);
    /// Frees the slot and hands the outcome to `settle_loop`.
    void finish(const std::shared_ptr<runtime::Execution>& execution, ops::Settlement::Outcome as,
                runtime::RunOutcome outcome);
    /// For how long the output is kept: as the result.
    [[nodiscard]] std::int64_t output_ttl(const Job& job, ops::Settlement::Outcome outcome) const;
    /// What running jobs have written reaches Redis twice a second.
    boost::asio::awaitable<void> output_loop();
    boost::asio::awaitable<void> settle_loop();
    boost::asio::awaitable<void> store_output(const std::vector<ops::Settlement>& batch,
                                              std::vector<Ended>& ended);
    void report(const ops::Settlement& settlement, const Ended& ended, const ops::Settled& settled,
                bool in_doubt);
    void observe(const ops::Settlement& settlement, const Ended& ended,
                 const ops::Settled& settled) const;

    // ---- staying alive, limits, commands: worker_limits.cpp ----

    boost::asio::awaitable<void> heartbeat_loop();
    boost::asio::awaitable<void> register_again();
    /// What a heartbeat has found out.
    void obey(const ops::HeartbeatResult::Notice& notice);
    /// The soft stage; `deadline_loop` gives up on a handler that does not listen.
    void ask_to_stop(const std::shared_ptr<runtime::Execution>& execution,
                     runtime::StopReason reason);
    boost::asio::awaitable<void> deadline_loop();
    /// Soft at the time limit, hard `kill_after` later. When to look again.
    std::chrono::steady_clock::time_point look_at_limits(
        const std::shared_ptr<runtime::Execution>& execution,
        std::chrono::steady_clock::time_point now);
    /// How long a job may take from being asked to stop until it is ended by force.
    [[nodiscard]] std::chrono::seconds patience(runtime::StopReason reason) const;
    /// The hard stage. When to look again.
    std::chrono::steady_clock::time_point end_by_force(
        const std::shared_ptr<runtime::Execution>& execution,
        std::chrono::steady_clock::time_point now);
    /// What cannot be ended: its job ends without it, and its place is taken.
    void give_up(const std::shared_ptr<runtime::Execution>& execution);
    boost::asio::awaitable<void> command_loop();
    /// Source: rq/command.py; `stop-execution` is of RQ's main branch. What is not understood is
    /// passed over: the channel is open to anybody.
    void obey(const std::string& payload);
};

}  // namespace rqxx
