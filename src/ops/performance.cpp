#include "ops/performance.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

namespace rqxx::ops {
namespace {

using namespace std::chrono_literals;

/// As in metrics.lua: bucket i begins at 100 us * 1.05^i.
double lower_edge_us(int bucket) {
    return 100.0 * std::pow(1.05, bucket);
}

double to_seconds(double us) {
    return us / 1e6;
}

/// How long the small buckets live, less some margin. See metrics.lua.
constexpr auto minutes_live = 47h;
constexpr auto hours_live = 89 * 24h;

}  // namespace

std::vector<std::string> buckets(const Span& span, Timestamp now) {
    std::vector<std::string> keys;
    auto at = span.from;
    while (at < span.to) {
        const auto hour = std::chrono::floor<std::chrono::hours>(at);
        const auto day = std::chrono::floor<std::chrono::days>(at);
        const auto age = now - at;
        const auto add = [&](char name, auto start, std::chrono::minutes width) {
            keys.push_back(fmt::format(
                "rqxx:metrics:{}:{}", name,
                std::chrono::duration_cast<std::chrono::seconds>(start.time_since_epoch())
                    .count()));
            at = std::chrono::time_point_cast<std::chrono::minutes>(start) + width;
        };
        if ((at == day && day + std::chrono::days(1) <= span.to) || age > hours_live)
            add('d', day, 24h);
        else if ((at == hour && hour + 1h <= span.to) || age > minutes_live)
            add('h', hour, 1h);
        else
            add('m', at, 1min);
    }
    return keys;
}

std::optional<std::chrono::sys_time<std::chrono::minutes>> minute_of(BucketFields fields) noexcept {
    for (const auto& [field, text] : fields) {
        if (field != "minute") continue;
        std::int64_t seconds = 0;
        if (std::from_chars(text.data(), text.data() + text.size(), seconds).ec != std::errc{})
            return std::nullopt;
        return std::chrono::floor<std::chrono::minutes>(
            std::chrono::sys_seconds(std::chrono::seconds(seconds)));
    }
    return std::nullopt;
}

void Figures::add(BucketFields fields) noexcept {
    for (const auto& [field, text] : fields) {
        double value = 0;
        if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc{} ||
            !std::isfinite(value) || value < 0)
            continue;
        const auto count = static_cast<std::int64_t>(std::min(value, 9e15));
        if (field == "finished")
            finished_ += count;
        else if (field == "failed")
            failed_ += count;
        else if (field == "run_sum")
            run_sum_ += value;
        else if (field == "wait_sum")
            wait_sum_ += value;
        else if (field == "run_min")
            run_min_ = run_min_ < 0 ? value : std::min(run_min_, value);
        else if (field == "run_max")
            run_max_ = std::max(run_max_, value);
        else if (field == "wait_max")
            wait_max_ = std::max(wait_max_, value);
        else if (field.size() > 1 && (field[0] == 'r' || field[0] == 'w')) {
            int bucket = 0;
            const auto digits = field.substr(1);
            if (std::from_chars(digits.data(), digits.data() + digits.size(), bucket).ec ==
                    std::errc{} &&
                bucket < 10000)
                (field[0] == 'r' ? run_ : wait_)[bucket] += count;
        }
    }
}

Performance::Distribution Figures::describe(const Histogram& histogram, double sum_us,
                                            double min_us, double max_us) {
    Performance::Distribution result;
    // Not of every job that ended is it known how long it took.
    std::int64_t total = 0;
    for (const auto& [bucket, n] : histogram)
        total += n;
    result.count = total;
    if (total == 0) return result;
    const auto quantile = [&](double q) {
        // The value of rank ceil(q * n), placed evenly within its bucket.
        const double rank = std::max(1.0, std::ceil(q * static_cast<double>(total)));
        double before = 0;
        for (const auto& [bucket, n] : histogram) {
            const auto here = static_cast<double>(n);
            if (before + here >= rank) {
                const double low = bucket == 0 ? 0 : lower_edge_us(bucket);
                const double high = lower_edge_us(bucket + 1);
                return to_seconds(
                    std::clamp(low + (high - low) * (rank - before - 0.5) / here, min_us, max_us));
            }
            before += here;
        }
        return to_seconds(max_us);
    };
    result.avg = to_seconds(sum_us / static_cast<double>(total));
    result.median = quantile(0.5);
    result.p95 = quantile(0.95);
    result.p99 = quantile(0.99);
    result.min = to_seconds(min_us);
    result.max = to_seconds(max_us);
    return result;
}

Performance Figures::summary() const {
    Performance performance;
    performance.successful = finished_;
    performance.failed = failed_;
    performance.duration = describe(run_, run_sum_, std::max(run_min_, 0.0), run_max_);
    performance.queue_time = describe(wait_, wait_sum_, 0, wait_max_);
    return performance;
}

}  // namespace rqxx::ops
