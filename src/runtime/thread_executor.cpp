#include "runtime/thread_executor.hpp"

#include <cxxabi.h>
#include <fmt/format.h>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <set>
#include <thread>

namespace rqxx::runtime {
namespace {

std::string type_name(const std::exception& error) {
    int status = 0;
    const std::unique_ptr<char, void (*)(void*)> name(
        abi::__cxa_demangle(typeid(error).name(), nullptr, nullptr, &status), std::free);
    return status == 0 ? name.get() : typeid(error).name();
}

RunOutcome failure(const Execution& execution, std::string_view type, std::string_view message) {
    // RQ keeps a Python traceback here; its last line is what people and tools read.
    const std::string line = fmt::format("{}: {}", type, message);
    return {.kind = RunOutcome::Kind::failure,
            .payload =
                encode_exc_string(fmt::format("Traceback (most recent call last):\n"
                                              "  Native handler of {}, rqxx " RQXX_VERSION "\n{}\n",
                                              execution.call.func_name, line)),
            .error = line};
}

/// How long a job waits for one of the threads that are at work before it gets a further one. Short
/// jobs are through by then, and waking more threads than there are cores would only slow them
/// down.
constexpr auto patience = std::chrono::microseconds(300);

/// What a stopped or killed job leaves, word for word as RQ's workers do.
RunOutcome fixed_outcome(RunOutcome::Kind kind, std::string text) {
    std::string payload = encode_exc_string(text);
    return {.kind = kind, .payload = std::move(payload), .error = std::move(text)};
}

std::string timeout_text(std::int64_t seconds) {
    return fmt::format("Task exceeded maximum timeout value ({} seconds)", seconds);
}

class ThreadContext final : public JobContext {
public:
    using Deadline = std::optional<std::chrono::steady_clock::time_point>;

    ThreadContext(Execution& execution, std::stop_token stop, Deadline deadline, Logger& log)
        : execution_(execution), stop_(std::move(stop)), deadline_(deadline), log_(log) {}
    const Job& job() const noexcept override { return execution_.job; }
    const std::string& execution_id() const noexcept override { return execution_.id; }
    std::stop_token stop_token() const noexcept override { return stop_; }
    Deadline deadline() const noexcept override { return deadline_; }
    void progress(double fraction, std::string text) override {
        boost::json::object state{
            {"fraction", std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) : 0.0}};
        if (!text.empty()) state["text"] = text;
        const std::scoped_lock lock(execution_.progress_mutex);
        execution_.progress = boost::json::serialize(state);
    }
    Logger& log() noexcept override { return log_; }

private:
    Execution& execution_;
    std::stop_token stop_;
    Deadline deadline_;  ///< A copy: the execution's own belongs to the worker's executor.
    Logger& log_;
};

}  // namespace

struct ThreadExecutor::Pool : std::enable_shared_from_this<Pool> {
    struct Done {
        std::shared_ptr<Execution> execution;
        RunOutcome outcome;
    };

    Pool(boost::asio::any_io_executor executor_, const HandlerRegistry& handlers_,
         CallbackPolicy callbacks_, Logger& log_, Events events_)
        : executor(std::move(executor_)),
          handlers(handlers_),
          callbacks(callbacks_),
          log(log_),
          events(std::move(events_)),
          impatience(std::in_place, executor) {}

    boost::asio::any_io_executor executor;
    const HandlerRegistry& handlers;
    const CallbackPolicy callbacks;
    Logger& log;
    Events events;  ///< Worker's executor only; empty once the worker is gone.
    /// Worker's executor only. Gone with the worker: threads may outlive its event loop.
    std::optional<boost::asio::steady_timer> impatience;
    bool impatient = false;  ///< The timer above runs.
    const std::size_t cores = std::max(1u, std::thread::hardware_concurrency());

    std::mutex mutex;  ///< Guards everything below.
    std::condition_variable work;
    std::deque<std::pair<std::shared_ptr<Execution>, std::chrono::steady_clock::time_point>>
        waiting;  ///< Since when.
    std::vector<Done> done;
    std::set<const Execution*> abandoned;
    std::size_t idle = 0;   ///< Threads asleep, those being woken included.
    std::size_t woken = 0;  ///< Of them, those told to get up.
    std::size_t threads = 0;
    bool delivery_posted = false;
    bool closing = false;

    static void thread_main(std::shared_ptr<Pool> pool) {
        std::unique_lock lock(pool->mutex);
        for (;;) {
            if (pool->waiting.empty()) {
                ++pool->idle;
                pool->work.wait(lock, [&] { return pool->woken > 0 || pool->closing; });
                --pool->idle;
                if (pool->woken > 0) --pool->woken;
                if (pool->waiting.empty()) {
                    if (pool->closing) break;
                    continue;
                }
            }
            auto execution = std::move(pool->waiting.front().first);
            pool->waiting.pop_front();
            lock.unlock();
            RunOutcome outcome = pool->run(execution);
            lock.lock();
            if (pool->closing)
                return;  // Nobody is left to be told, perhaps not even an event loop.
            const bool given_up = pool->abandoned.erase(execution.get()) > 0;
            pool->done.push_back({std::move(execution), std::move(outcome)});
            pool->post_delivery();
            if (given_up) return;  // Its place has been taken; it is not counted any more.
        }
        --pool->threads;
    }

    RunOutcome run(const std::shared_ptr<Execution>& execution) {
        const Job& job = execution->job;
        for (const auto* name :
             {&job.success_callback_name, &job.failure_callback_name, &job.stopped_callback_name}) {
            if (callbacks == CallbackPolicy::require && !name->empty() &&
                handlers.find_callback(*name) == nullptr)
                return failure(*execution, "rqxx.UnknownCallback",
                               fmt::format("no native callback is registered for {}", *name));
        }
        Value result;
        RunOutcome outcome = call(*execution, result);
        switch (execution->stop_reason.load()) {
            case StopReason::stopped:
                call_back(execution, job.stopped_callback_name, job.stopped_callback_timeout,
                          {CallbackEvent::Kind::stopped, {}, {}});
                return fixed_outcome(RunOutcome::Kind::stopped,
                                     "Job stopped by user, work-horse terminated.");
            case StopReason::killed:
                return fixed_outcome(
                    RunOutcome::Kind::failure,
                    "Work-horse terminated unexpectedly; waitpid returned 9 (signal 9); ");
            case StopReason::canceled:
            case StopReason::lease_lost:
            case StopReason::shutdown:
                return outcome;
            case StopReason::none:
            case StopReason::time_limit:
                break;
        }
        if (outcome.kind == RunOutcome::Kind::success) {
            if (auto failed =
                    call_back(execution, job.success_callback_name, job.success_callback_timeout,
                              {CallbackEvent::Kind::success, std::move(result), {}}))
                outcome = std::move(*failed);
        }
        if (outcome.kind == RunOutcome::Kind::failure) {
            if (auto failed =
                    call_back(execution, job.failure_callback_name, job.failure_callback_timeout,
                              {CallbackEvent::Kind::failure, {}, outcome.error}))
                outcome = std::move(*failed);
        }
        return outcome;
    }

    RunOutcome call(Execution& execution, Value& result) {
        ThreadContext context(execution, execution.stop.get_token(), execution.function_deadline,
                              log);
        const auto timed_out = [&] { return execution.stop_reason == StopReason::time_limit; };
        try {
            const auto* handler = handlers.find(execution.call.func_name);
            if (handler == nullptr)
                return failure(execution, "rqxx.UnknownFunction",
                               fmt::format("no native handler is registered for {}",
                                           execution.call.func_name));
            if (!execution.call.instance.is_none())
                return failure(execution, "rqxx.UnsupportedCall",
                               "a native handler cannot run a method of an object");
            result = (*handler)(context, execution.call);
            if (timed_out()) return time_limit(execution);
            return {.kind = RunOutcome::Kind::success,
                    .payload = encode_return_value(result, execution.serializer),
                    .error = {}};
        } catch (const RetryRequest& request) {
            if (timed_out()) return time_limit(execution);
            return retry(execution, request.retry());
        } catch (const std::exception& error) {
            if (timed_out()) return time_limit(execution);
            return failure(execution, type_name(error), error.what());
        } catch (...) {
            return failure(execution, "unknown",
                           "the handler threw something that is not a std::exception");
        }
    }

    /// Runs a callback, if the job has one. What it throws, or its overrun, as a failure.
    std::optional<RunOutcome> call_back(const std::shared_ptr<Execution>& execution,
                                        const std::string& name,
                                        std::optional<std::int64_t> timeout,
                                        const CallbackEvent& event) {
        if (name.empty()) return std::nullopt;
        const auto* callback = handlers.find_callback(name);
        if (callback == nullptr) {
            log.warning("Callback skipped", "id", execution->job.id, "callback", name, "reason",
                        "it is not registered here");
            return std::nullopt;
        }
        const std::chrono::seconds limit(timeout.value_or(60));
        boost::asio::post(executor, [self = shared_from_this(), execution, limit] {
            if (self->events.on_callback) self->events.on_callback(execution, limit);
        });
        // A callback before this one may have used up the first one's time.
        ThreadContext context(*execution, execution->callback_stop.get_token(),
                              std::chrono::steady_clock::now() + limit, log);
        std::optional<RunOutcome> failed;
        try {
            (*callback)(context, event);
        } catch (const std::exception& error) {
            failed = failure(*execution, type_name(error), error.what());
        } catch (...) {
            failed = failure(*execution, "unknown",
                             "the callback threw something that is not a std::exception");
        }
        if (execution->callback_overran)
            failed =
                failure(*execution, "rq.timeouts.JobTimeoutException", timeout_text(limit.count()));
        if (failed && event.kind == CallbackEvent::Kind::stopped)
            log.error("Callback failed", "id", execution->job.id, "callback", name, "error",
                      failed->error);
        return failed;
    }

    static RunOutcome time_limit(const Execution& execution) {
        return failure(execution, "rq.timeouts.JobTimeoutException",
                       timeout_text(execution.job.timeout.value_or(180)));
    }

    static RunOutcome retry(const Execution& execution, const Retry& asked) {
        const auto used = static_cast<std::size_t>(
            std::max<std::int64_t>(execution.job.number_of_retries.value_or(0), 0));
        const auto& intervals = asked.intervals;
        // Source: rq/job.py Retry.get_interval (RQ 2.10).
        const auto wait = intervals.empty() ? std::chrono::seconds(0)
                                            : intervals[std::min(used, intervals.size() - 1)];
        std::vector<std::int64_t> seconds;
        seconds.reserve(intervals.size());
        for (const auto interval : intervals)
            seconds.push_back(interval.count());
        return {.kind = RunOutcome::Kind::retry,
                .payload = fmt::format(
                    "{} {} {}", asked.max, wait.count(),
                    encode_retry(asked.max, seconds, asked.enqueue_at_front, execution.serializer)),
                .error = "the function asked for a retry"};
    }

    /// One more thread at work. With the mutex held.
    void add_hand() {
        if (idle > woken) {
            ++woken;
            work.notify_one();
        } else {
            ++threads;
            // Not joined: a handler that never returns must not keep the worker from ending.
            std::thread(thread_main, shared_from_this()).detach();
        }
    }

    /// Looks after `patience` whether jobs are still waiting. On the worker's executor.
    void watch_waiting() {
        if (impatient) return;
        impatient = true;
        impatience->expires_after(patience);
        impatience->async_wait([self = shared_from_this()](boost::system::error_code error) {
            self->impatient = false;
            if (error) return;
            const std::scoped_lock lock(self->mutex);
            const auto latest = std::chrono::steady_clock::now() - patience;
            for (const auto& [execution, since] : self->waiting) {
                if (since <= latest) self->add_hand();
            }
            if (!self->waiting.empty()) self->watch_waiting();
        });
    }

    /// With the mutex held.
    void post_delivery() {
        if (delivery_posted) return;
        delivery_posted = true;
        boost::asio::post(executor, [self = shared_from_this()] {
            std::vector<Done> batch;
            {
                const std::scoped_lock lock(self->mutex);
                batch.swap(self->done);
                self->delivery_posted = false;
            }
            if (!self->events.on_done) return;
            for (auto& one : batch)
                self->events.on_done(std::move(one.execution), std::move(one.outcome));
        });
    }
};

ThreadExecutor::ThreadExecutor(boost::asio::any_io_executor executor,
                               const HandlerRegistry& handlers, CallbackPolicy callbacks,
                               Logger& log, Events events)
    : pool_(std::make_shared<Pool>(std::move(executor), handlers, callbacks, log,
                                   std::move(events))) {}

ThreadExecutor::~ThreadExecutor() {
    pool_->events = {};
    pool_->impatience.reset();
    const std::scoped_lock lock(pool_->mutex);
    pool_->closing = true;
    pool_->waiting.clear();
    pool_->work.notify_all();
}

void ThreadExecutor::start(std::shared_ptr<Execution> execution) {
    const std::scoped_lock lock(pool_->mutex);
    pool_->waiting.emplace_back(std::move(execution), std::chrono::steady_clock::now());
    const std::size_t at_work = pool_->threads - (pool_->idle - pool_->woken);
    if (at_work < pool_->cores)
        pool_->add_hand();
    else
        pool_->watch_waiting();
}

void ThreadExecutor::abandon(const std::shared_ptr<Execution>& execution) {
    const std::scoped_lock lock(pool_->mutex);
    pool_->abandoned.insert(execution.get());
    --pool_->threads;
}

}  // namespace rqxx::runtime
