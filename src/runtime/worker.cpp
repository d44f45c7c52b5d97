#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <boost/asio/ip/host_name.hpp>
#include <cerrno>
#include <charconv>
#include <rqxx/rules.hpp>

#include "ops/keys.hpp"
#include "runtime/worker_impl.hpp"

namespace rqxx {

using namespace std::chrono_literals;
using ops::Settlement;
using runtime::Execution;
using runtime::RunOutcome;
using runtime::StopReason;
namespace asio = boost::asio;

namespace {

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

/// What holds for single queues.
void check_shares(const WorkerOptions& options) {
    const auto must_be_served = [&](std::string_view option, const std::string& queue) {
        if (std::ranges::find(options.queues, queue) == options.queues.end())
            throw Error(Errc::usage,
                        fmt::format("{}: {} is none of the worker's queues", option, queue));
    };
    for (const auto& [queue, weight] : options.weights) {
        must_be_served("weights", queue);
        if (weight < 1 || weight > 10000)
            throw Error(Errc::usage, "weights: must be from 1 to 10000");
    }
    for (const auto& [queue, slots] : options.queue_slots) {
        must_be_served("queue-slots", queue);
        if (slots < 1) throw Error(Errc::usage, "queue-slots: must be at least 1");
    }
    if (options.ageing.count() < 0) throw Error(Errc::usage, "ageing: must not be negative");
    if (!options.weights.empty() && options.strategy != Strategy::weighted)
        throw Error(Errc::usage, "weights: need the strategy weighted");
}

/// Whatever happens: processes must not outlive the worker, nor keep its event loop running.
struct Close {
    void operator()(runtime::Executors* all) const { all->close(); }
};
using Closing = std::unique_ptr<runtime::Executors, Close>;

}  // namespace

Worker::Impl::Impl(RedisClient& redis_, const HandlerRegistry& handlers, WorkerOptions options_,
                   Logger& log_)
    : redis(redis_),
      options(std::move(options_)),
      log(log_),
      executor(redis_.executor()),
      name(options.name.empty() ? default_name() : options.name),
      redis_ops(redis, name, options),
      janitor(redis, options.queues, options.recover, log),
      slot_freed(executor),
      hashes_wanted(executor),
      ahead_changed(executor),
      forming_changed(executor),
      work_arrived(executor),
      queues_empty(executor),
      settle_wanted(executor),
      deadline_changed(executor),
      stop_wanted(executor),
      drained(executor),
      heartbeat_wanted(executor),
      executors(redis, handlers, options, name, log,
                {[this](std::shared_ptr<Execution> execution, RunOutcome outcome) {
                     on_done(std::move(execution), std::move(outcome));
                 },
                 [this](const std::shared_ptr<Execution>& execution, std::chrono::seconds limit) {
                     on_callback(execution, limit);
                 }}),
      watchers(executor),
      tasks(executor) {}

asio::awaitable<void> Worker::Impl::check() {
    const Closing closing(&executors);
    co_await executors.prepare();
}

asio::awaitable<WorkerSummary> Worker::Impl::run() {
    const Closing closing(&executors);
    co_await executors.prepare();
    prepared = true;
    co_await be_born();
    lease_renewed = std::chrono::steady_clock::now();
    for (const auto& [queue, key] : options.fair_by) {
        if (co_await Rules(redis).share_queue(queue, key))
            log.info("Queue is shared", "queue", queue, "by", key);
    }
    log.info("Worker started", "name", name, "queues",
             fmt::format("{}", fmt::join(options.queues, ",")), "concurrency", options.concurrency);
    commands = std::make_unique<RedisSubscriber>(
        executor, redis.options(),
        std::vector{redis_ops.command_channel(), std::string(keys::wake_channel)}, log);
    tasks.spawn("heartbeat", heartbeat_loop());
    tasks.spawn("janitor", janitor.run());
    tasks.spawn("deadlines", deadline_loop());
    tasks.spawn("commands", command_loop());
    for (std::size_t i = 0; i < settles_in_flight; ++i)
        tasks.spawn("settling", settle_loop());
    tasks.spawn("starting", start_loop());
    tasks.spawn("output", output_loop());
    tasks.spawn("ahead", ahead_loop());
    tasks.spawn("groups", group_loop());
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
    log.info("Worker stopped", "name", name, "finished", summary.finished, "failed", summary.failed,
             "retried", summary.retried, "returned", summary.returned);
    co_return summary;
}

asio::awaitable<void> Worker::Impl::stop_watching() {
    watchers.cancel();
    for (auto& client : blocking)
        client->close();
    co_await watchers.join();
    blocking.clear();
}

asio::awaitable<void> Worker::Impl::be_born() {
    for (int attempt = 0;; ++attempt) {
        const auto birth = co_await redis_ops.register_birth();
        if (birth.registered) co_return;
        if (!is_dead_here(birth))
            throw Error(Errc::usage,
                        fmt::format("name: a worker named {} lives already (host {}, pid {})", name,
                                    birth.other_host, birth.other_pid));
        // Killed on this host: its lease need not run out first.
        if (attempt == 0) {
            log.warning("Taking over from a killed worker", "name", name, "pid", birth.other_pid);
            co_await redis_ops.expire_lease();
        }
        if (attempt > 40)
            throw Error(Errc::internal, fmt::format("name: {} could not be taken over", name));
        co_await janitor.recover();
        Event pause(executor);
        co_await pause.wait(500ms);
    }
}

asio::awaitable<void> Worker::Impl::drain() {
    give_back_ahead();
    const auto until = std::chrono::steady_clock::now() + options.grace;
    if (stopping() && busy()) {
        try {
            co_await redis_ops.note_shutdown();
        } catch (const Error&) {
            // Only monitors miss something.
        }
    }
    while (busy() && stop_requests < 2) {
        end_groups();
        const auto now = std::chrono::steady_clock::now();
        if (stopping() && now >= until) break;
        co_await drained.wait(
            stopping() ? std::min<std::chrono::steady_clock::duration>(until - now, 500ms) : 500ms);
    }
    closed = true;
    give_back_groups();
    for (const auto& execution : std::list(running)) {
        interrupt(execution, StopReason::shutdown);
        executors.abandon(execution);
        // What is to be stopped must not come back.
        if (execution->stop_reason == StopReason::stopped)
            on_done(execution, runtime::ended_by_force(*execution));
        else
            finish(execution, Settlement::Outcome::returned, {});
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

void Worker::Impl::throw_away() {
    for (auto& execution : running)
        interrupt(execution, StopReason::shutdown);
}

void Worker::Impl::interrupt(const std::shared_ptr<Execution>& execution, StopReason reason) {
    // A job that is over its limit may yet be stopped or taken from us.
    const bool news = !execution->stop.stop_requested() || reason != StopReason::time_limit;
    execution->request_stop(reason);
    if (news) executors.interrupt(execution, reason);
}

void Worker::Impl::request_stop() {
    ++stop_requests;
    if (!prepared) executors.close();
    for (Event* event : {&slot_freed, &work_arrived, &queues_empty, &stop_wanted, &drained})
        event->notify();
}

asio::awaitable<void> Worker::Impl::pause_after(const Error& error, std::string_view what) {
    if (!error.retryable()) log.error(what, "error", error.message());
    co_await stop_wanted.wait(error.retryable() ? 100ms : 1000ms);
}

Worker::Worker(RedisClient& redis, const HandlerRegistry& handlers, WorkerOptions options,
               Logger& log) {
    if (options.queues.empty()) throw Error(Errc::usage, "queues: at least one is needed");
    check_shares(options);
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
asio::awaitable<void> Worker::check() {
    return impl_->check();
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
std::size_t Worker::slots() const noexcept {
    return impl_->options.concurrency;
}
std::chrono::steady_clock::time_point Worker::lease_renewed() const noexcept {
    return impl_->lease_renewed;
}
void Worker::on_run(std::function<void(const RunRecord&)> observer) {
    impl_->on_run = std::move(observer);
}

}  // namespace rqxx
