#include "runtime/process_watch.hpp"

#include <fmt/format.h>
#include <utility>
#include <vector>

#include "runtime/process.hpp"

namespace rqxx::runtime {

using namespace std::chrono_literals;

namespace {

double megabytes(std::uint64_t bytes) {
    return static_cast<double>(bytes) / (1 << 20);
}

}  // namespace

void ProcessWatch::watch(pid_t process, const ResourceLimits& limits, OnExcess on_excess) {
    if (!limits.max_rss && !limits.max_cpu) return;
    const double cpu_before = limits.max_cpu ? consumption_of(process).cpu_seconds : 0;
    watched_[process] = {limits, std::move(on_excess), cpu_before};
    look_later();
}

void ProcessWatch::forget(pid_t process) {
    watched_.erase(process);
}

void ProcessWatch::close() {
    watched_.clear();
    timer_.cancel();
}

void ProcessWatch::look_later() {
    if (waiting_ || watched_.empty()) return;
    waiting_ = true;
    timer_.expires_after(50ms);
    timer_.async_wait([self = shared_from_this()](boost::system::error_code error) {
        self->waiting_ = false;
        if (!error) self->look();
        self->look_later();
    });
}

void ProcessWatch::look() {
    std::vector<std::function<void()>> excesses;  // They change what is watched.
    for (const auto& [process, one] : watched_) {
        const Consumption now = consumption_of(process);
        const double cpu = now.cpu_seconds - one.cpu_before;
        std::string cause, text;
        if (one.limits.max_rss && now.rss_bytes > *one.limits.max_rss) {
            cause = "memory limit";
            text = fmt::format(
                "rqxx.MemoryLimitExceeded: {:.1f} MB resident, the limit is {:.1f} MB\n",
                megabytes(now.rss_bytes), megabytes(*one.limits.max_rss));
        } else if (one.limits.max_cpu && cpu > static_cast<double>(one.limits.max_cpu->count())) {
            cause = "CPU limit";
            text = fmt::format("rqxx.CpuLimitExceeded: {:.1f} s of CPU, the limit is {} s\n", cpu,
                               one.limits.max_cpu->count());
        } else {
            continue;
        }
        const ops::Usage usage{static_cast<std::int64_t>(now.rss_bytes >> 10), cpu};
        excesses.emplace_back(
            [on_excess = one.on_excess, cause, text, usage] { on_excess(cause, text, usage); });
    }
    for (const auto& excess : excesses)
        excess();
}

std::uint64_t most_data(std::uint64_t now, std::uint64_t max_rss) {
    // Much that is asked for is never touched: stacks, pools.
    return now + 2 * max_rss + (std::uint64_t{64} << 20);
}

}  // namespace rqxx::runtime
