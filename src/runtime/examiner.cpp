#include "runtime/examiner.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <mutex>
#include <utility>

#include "base/run_blocking.hpp"
#include "base/task_group.hpp"

namespace rqxx::runtime {

namespace asio = boost::asio;
using namespace std::chrono_literals;

struct Examiner::Impl {
    Impl(RedisClient& redis, Logger& logger)
        : options(redis.options()), log(logger), tasks(redis.executor()) {}

    RedisOptions options;
    Logger& log;
    mutable std::mutex mutex;
    ExaminationState state;      // guarded by the mutex
    std::function<void()> stop;  // guarded by the mutex; set while one can be stopped
    bool stopping = false;       // guarded by the mutex
    asio::thread_pool pool{1};
    TaskGroup tasks;

    /// In the thread.
    ops::DoctorReport examine() {
        asio::io_context context(1);
        RedisClient redis(context.get_executor(), options);
        ops::DoctorReport report;
        TaskGroup work(context.get_executor());
        const auto look = [](Impl& impl, RedisClient& client,
                             ops::DoctorReport& found) -> asio::awaitable<void> {
            co_await client.connect(5s);
            ops::DoctorOptions wanted;
            wanted.progress = [&impl](const ops::DoctorProgress& progress) {
                const std::lock_guard lock(impl.mutex);
                impl.state.step = progress.step;
                impl.state.done = progress.done;
                impl.state.total = progress.total;
            };
            found = co_await ops::examine(client, std::move(wanted));
        };
        {
            const std::lock_guard lock(mutex);
            if (stopping) throw Cancelled();
            stop = [&] { asio::post(context, [&work] { work.cancel(); }); };
        }
        work.spawn("examination", look(*this, redis, report));
        std::exception_ptr failure;
        asio::co_spawn(context, work.join(), [&](std::exception_ptr error) {
            failure = error;
            redis.close();
        });
        context.run();
        bool stopped = false;
        {
            const std::lock_guard lock(mutex);
            stop = nullptr;
            stopped = stopping;
        }
        if (failure) std::rethrow_exception(failure);
        if (stopped) throw Cancelled();
        return report;
    }

    asio::awaitable<void> run() {
        std::optional<ops::DoctorReport> report;
        std::string error;
        try {
            co_await run_blocking(pool, [&] { report = examine(); });
        } catch (const Error& failure) {
            error = failure.message();
            log.warning("The examination failed", "error", error);
        } catch (const Cancelled&) {
            error = "it was ended with the server";
        }
        const std::lock_guard lock(mutex);
        state.running = false;
        state.ended_at = utc_now();
        state.error = std::move(error);
        if (report) state.report = std::move(report);
    }
};

Examiner::Examiner(RedisClient& redis, Logger& log) : impl_(std::make_unique<Impl>(redis, log)) {}
Examiner::~Examiner() = default;

void Examiner::begin() {
    {
        const std::lock_guard lock(impl_->mutex);
        auto& state = impl_->state;
        if (state.running || impl_->stopping) return;
        state.running = true;
        state.started_at = utc_now();
        state.step.clear();
        state.done = state.total = 0;
        state.error.clear();
    }
    impl_->tasks.spawn("doctor", impl_->run());
}

ExaminationState Examiner::state() const {
    const std::lock_guard lock(impl_->mutex);
    return impl_->state;
}

asio::awaitable<void> Examiner::join() {
    {
        const std::lock_guard lock(impl_->mutex);
        impl_->stopping = true;
        if (impl_->stop) impl_->stop();
    }
    co_await impl_->tasks.join();
}

}  // namespace rqxx::runtime
