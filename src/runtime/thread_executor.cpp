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
    return {.success = false,
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

class ThreadContext final : public JobContext {
public:
    ThreadContext(Execution& execution, Logger& log) : execution_(execution), log_(log) {}
    const Job& job() const noexcept override { return execution_.job; }
    const std::string& execution_id() const noexcept override { return execution_.id; }
    std::stop_token stop_token() const noexcept override { return execution_.stop.get_token(); }
    std::optional<std::chrono::steady_clock::time_point> deadline() const noexcept override {
        return execution_.deadline;
    }
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
    Logger& log_;
};

}  // namespace

struct ThreadExecutor::Pool : std::enable_shared_from_this<Pool> {
    struct Done {
        std::shared_ptr<Execution> execution;
        RunOutcome outcome;
    };

    Pool(boost::asio::any_io_executor executor_, const HandlerRegistry& handlers_, Logger& log_,
         OnDone on_done_)
        : executor(std::move(executor_)),
          handlers(handlers_),
          log(log_),
          on_done(std::move(on_done_)),
          impatience(std::in_place, executor) {}

    boost::asio::any_io_executor executor;
    const HandlerRegistry& handlers;
    Logger& log;
    OnDone on_done;  ///< Worker's executor only; empty once the worker is gone.
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
            RunOutcome outcome = pool->run(*execution);
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

    RunOutcome run(Execution& execution) {
        ThreadContext context(execution, log);
        try {
            const auto* handler = handlers.find(execution.call.func_name);
            if (handler == nullptr)
                return failure(execution, "rqxx.UnknownFunction",
                               fmt::format("no native handler is registered for {}",
                                           execution.call.func_name));
            if (!execution.call.instance.is_none())
                return failure(execution, "rqxx.UnsupportedCall",
                               "a native handler cannot run a method of an object");
            const Value result = (*handler)(context, execution.call);
            if (execution.stop_reason.load() == StopReason::time_limit)
                return time_limit(execution);
            return {.success = true,
                    .payload = encode_return_value(result, execution.serializer),
                    .error = {}};
        } catch (const std::exception& error) {
            if (execution.stop_reason.load() == StopReason::time_limit)
                return time_limit(execution);
            return failure(execution, type_name(error), error.what());
        } catch (...) {
            return failure(execution, "unknown",
                           "the handler threw something that is not a std::exception");
        }
    }

    static RunOutcome time_limit(const Execution& execution) {
        return failure(execution, "rq.timeouts.JobTimeoutException",
                       fmt::format("Task exceeded maximum timeout value ({} seconds)",
                                   execution.job.timeout.value_or(180)));
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
            if (!self->on_done) return;
            for (auto& one : batch)
                self->on_done(std::move(one.execution), std::move(one.outcome));
        });
    }
};

ThreadExecutor::ThreadExecutor(boost::asio::any_io_executor executor,
                               const HandlerRegistry& handlers, Logger& log, OnDone on_done)
    : pool_(std::make_shared<Pool>(std::move(executor), handlers, log, std::move(on_done))) {}

ThreadExecutor::~ThreadExecutor() {
    pool_->on_done = nullptr;
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
