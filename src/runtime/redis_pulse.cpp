#include "runtime/redis_pulse.hpp"

#include <algorithm>
#include <rqxx/error.hpp>
#include <vector>

#include "base/task_group.hpp"

namespace rqxx::runtime {

namespace asio = boost::asio;
using namespace std::chrono_literals;

asio::awaitable<void> RedisPulse::run() {
    Event pause(redis_->executor());
    for (;;) {
        try {
            redis_->require_connection();
            const auto asked = std::chrono::steady_clock::now();
            co_await redis_->command("PING");
            const Seconds time = std::chrono::steady_clock::now() - asked;
            times_[count_++ % times_.size()] = time;
            if (observer_) observer_(time);
        } catch (const Error&) {
            // Who needs to know asks for Redis itself.
        }
        co_await pause.wait(1s);
    }
}

std::optional<RedisPulse::RoundTrip> RedisPulse::last_minute() const {
    const std::size_t known = std::min(count_, times_.size());
    if (known == 0) return std::nullopt;
    std::vector<Seconds> sorted(times_.begin(),
                                times_.begin() + static_cast<std::ptrdiff_t>(known));
    std::sort(sorted.begin(), sorted.end());
    return RoundTrip{sorted[(known - 1) / 2], sorted[(known * 99 + 99) / 100 - 1]};
}

}  // namespace rqxx::runtime
