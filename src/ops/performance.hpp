#pragma once

#include <map>
#include <optional>
#include <rqxx/monitor.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// Reading the time buckets that lua/includes/metrics.lua writes.
namespace rqxx::ops {

/// [from, to), both on whole minutes.
struct Span {
    std::chrono::sys_time<std::chrono::minutes> from, to;
};

/// The keys of the buckets that make up a span: as few as possible, days where they fit, minutes at
/// the edges. Where the small buckets have expired by `now`, an edge widens to the next larger one.
[[nodiscard]] std::vector<std::string> buckets(const Span& span, Timestamp now);

using BucketFields = std::span<const std::pair<std::string_view, std::string_view>>;

/// The minute whose figures `rqxx:metrics:now` holds: those of its fields are in no bucket yet.
[[nodiscard]] std::optional<std::chrono::sys_time<std::chrono::minutes>> minute_of(
    BucketFields fields) noexcept;

/// The sum of any number of buckets.
class Figures {
public:
    /// Unknown fields and values that are no numbers are ignored.
    void add(BucketFields fields) noexcept;
    [[nodiscard]] Performance summary() const;

private:
    using Histogram = std::map<int, std::int64_t>;
    static Performance::Distribution describe(const Histogram& histogram, double sum_us,
                                              double min_us, double max_us);

    std::int64_t finished_ = 0, failed_ = 0;
    double run_sum_ = 0, wait_sum_ = 0;
    double run_min_ = -1, run_max_ = 0, wait_max_ = 0;
    Histogram run_, wait_;
};

}  // namespace rqxx::ops
