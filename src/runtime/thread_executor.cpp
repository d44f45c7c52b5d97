#include "runtime/thread_executor.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <deque>
#include <set>
#include <thread>

#include "runtime/native_runner.hpp"

namespace rqxx::runtime {
namespace {

/// How long a job waits for one of the threads that are at work before it gets a further one. Short
/// jobs are through by then, and waking more threads than there are cores would only slow them
/// down.
constexpr auto patience = std::chrono::microseconds(300);

}  // namespace

struct ThreadExecutor::Pool : std::enable_shared_from_this<Pool> {
    struct Done {
        std::shared_ptr<Execution> execution;
        RunOutcome outcome;
    };

    Pool(boost::asio::any_io_executor executor_, const HandlerRegistry& handlers,
         CallbackPolicy callbacks, Logger& log, Events events_)
        : executor(std::move(executor_)),
          runner(handlers, callbacks, log,
                 {.on_callback =
                      [this](const std::shared_ptr<Execution>& execution,
                             std::chrono::seconds limit) { tell_callback(execution, limit); },
                  .on_progress =
                      [](Execution& execution, std::string json) {
                          const std::scoped_lock lock(execution.progress_mutex);
                          execution.progress = std::move(json);
                      },
                  .on_print =
                      [](Execution& execution, std::string_view text) {
                          execution.output.add(ops::OutputChunk::Stream::out, text);
                      }}),
          events(std::move(events_)),
          impatience(std::in_place, executor) {}

    boost::asio::any_io_executor executor;
    const NativeRunner runner;
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
    std::set<const Execution*> abandoned;  ///< The first of a call stands for it.
    std::size_t idle = 0;                  ///< Threads asleep, those being woken included.
    std::size_t woken = 0;                 ///< Of them, those told to get up.
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
            std::optional<RunOutcome> outcome;
            if (execution->aggregated)
                run_together(*pool, execution);
            else
                outcome = pool->runner.run(execution);
            lock.lock();
            if (pool->closing)
                return;  // Nobody is left to be told, perhaps not even an event loop.
            const bool given_up = pool->abandoned.erase(execution.get()) > 0;
            if (outcome) {
                pool->done.push_back({std::move(execution), std::move(*outcome)});
                pool->post_delivery();
            }
            if (given_up) return;  // Its place has been taken; it is not counted any more.
        }
        --pool->threads;
    }

    static void run_together(Pool& pool, const std::shared_ptr<Execution>& first) {
        pool.runner.run_together(jobs_of_call(first),
                                 [&](const std::shared_ptr<Execution>& job, RunOutcome outcome) {
                                     const std::scoped_lock held(pool.mutex);
                                     if (pool.closing) return;
                                     pool.done.push_back({job, std::move(outcome)});
                                     pool.post_delivery();
                                 });
    }

    void tell_callback(const std::shared_ptr<Execution>& execution, std::chrono::seconds limit) {
        boost::asio::post(executor, [self = shared_from_this(), execution, limit] {
            if (self->events.on_callback) self->events.on_callback(execution, limit);
        });
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
    const Execution* of_call = execution.get();
    if (execution->shared) {
        if (std::exchange(execution->shared->given_up, true)) return;
        of_call = execution->shared->first;
    }
    const std::scoped_lock lock(pool_->mutex);
    pool_->abandoned.insert(of_call);
    --pool_->threads;
}

}  // namespace rqxx::runtime
