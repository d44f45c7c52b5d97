#include <rqxx/monitor.hpp>

#include "base/task_group.hpp"
#include "ops/history.hpp"
#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"
#include "ops/queue_counts.hpp"

namespace rqxx {

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

/// Of queues beyond only how many jobs wait and run is looked at.
constexpr std::size_t most_queues = 500;
/// Into the second: whoever samples then is in the same one.
constexpr auto behind_the_second = 20ms;

}  // namespace

Sampler::Sampler(RedisClient& redis, Logger& log)
    : redis_(&redis),
      log_(&log),
      token_(new_execution_id()),
      history_(std::make_unique<ops::HistoryRecorder>(redis)) {}
Sampler::~Sampler() = default;

asio::awaitable<std::size_t> Sampler::sample() {
    const auto queues = ops::queue_names(co_await redis_->command("SMEMBERS", keys::queues));
    std::vector<std::string> args{token_};
    args.insert(args.end(), queues.begin(),
                queues.begin() + static_cast<std::ptrdiff_t>(std::min(queues.size(), most_queues)));
    const Reply counted =
        co_await redis_->eval(lua::sample, {std::string(keys::sampler)}, std::move(args));
    redis_time_.reset();
    if (counted.as_integer() < 0)
        history_->forget();
    else
        redis_time_ = co_await history_->record(queues, token_);
    co_return static_cast<std::size_t>(std::max<std::int64_t>(counted.as_integer(), 0));
}

asio::awaitable<void> Sampler::run(std::chrono::milliseconds interval) {
    Event pause(redis_->executor());
    for (;;) {
        redis_time_.reset();
        const auto begun = std::chrono::steady_clock::now();
        try {
            co_await sample();
        } catch (const Error& error) {
            log_->debug("Sampling failed", "error", error.message());
        }
        std::chrono::steady_clock::duration wait = interval;
        if (redis_time_ && interval == 1s) {
            // A point for each second: the next pass begins when the next second has begun.
            const auto next = std::chrono::floor<std::chrono::seconds>(*redis_time_) + 1s;
            wait = next - *redis_time_ + behind_the_second -
                   (std::chrono::steady_clock::now() - begun);
            if (wait < 50ms) wait = 50ms;
        }
        co_await pause.wait(wait);
    }
}

}  // namespace rqxx
