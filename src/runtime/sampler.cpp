#include <rqxx/monitor.hpp>

#include "base/task_group.hpp"
#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"

namespace rqxx {

namespace asio = boost::asio;

Sampler::Sampler(RedisClient& redis, Logger& log)
    : redis_(&redis), log_(&log), token_(new_execution_id()) {}

asio::awaitable<std::size_t> Sampler::sample() {
    const Reply members = co_await redis_->command("SMEMBERS", keys::queues);
    std::vector<std::string> args{token_};
    for (const auto& member : members.as_array()) {
        if (member.text.starts_with(keys::queue_prefix))
            args.push_back(member.text.substr(keys::queue_prefix.size()));
        if (args.size() > 500) break;
    }
    const Reply counted =
        co_await redis_->eval(lua::sample, {std::string(keys::sampler)}, std::move(args));
    co_return static_cast<std::size_t>(std::max<std::int64_t>(counted.as_integer(), 0));
}

asio::awaitable<void> Sampler::run(std::chrono::milliseconds interval) {
    Event pause(redis_->executor());
    for (;;) {
        try {
            co_await sample();
        } catch (const Error& error) {
            log_->debug("Sampling failed", "error", error.message());
        }
        co_await pause.wait(interval);
    }
}

}  // namespace rqxx
