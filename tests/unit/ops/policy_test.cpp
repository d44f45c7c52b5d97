#include <gtest/gtest.h>

#include <boost/json/object.hpp>
#include <ops/performance.hpp>
#include <rqxx/queue.hpp>

using namespace rqxx;
using namespace std::chrono_literals;

namespace {

ResolvedPolicy resolve(Priority priority, std::optional<std::chrono::seconds> timeout) {
    OptimizedOptions options;
    options.priority = priority;
    options.timeout = timeout;
    return resolve_policy(options);
}

using Pairs = std::vector<std::pair<std::string_view, std::string_view>>;

}  // namespace

TEST(policy, limits_time_by_priority) {
    EXPECT_EQ(resolve(Priority::high, 900s).timeout, 600s);
    EXPECT_EQ(resolve(Priority::high, std::nullopt).timeout, 600s);
    EXPECT_EQ(resolve(Priority::low, 60s).timeout, 180s);
    EXPECT_EQ(resolve(Priority::normal, std::nullopt).timeout, 300s);
    EXPECT_EQ(resolve(Priority::normal, 1000s).timeout, 1000s);
    EXPECT_EQ(resolve(Priority::normal, std::nullopt).retry, 2);
}

TEST(policy, refuses_settings_out_of_range) {
    EXPECT_THROW((void)resolve(Priority::high, 0s), Error);
    OptimizedOptions options;
    options.retry = 101;
    EXPECT_THROW((void)resolve_policy(options), Error);
}

TEST(time_buckets, cover_a_span_with_few_keys) {
    using std::chrono::minutes;
    const std::chrono::sys_time<minutes> day{minutes(24 * 60 * 20000)};
    const ops::Span span{day - minutes(1) - minutes(60), day + minutes(24 * 60) + minutes(2)};
    const auto keys = ops::buckets(span, Timestamp(span.to));
    // One minute and one hour before midnight, the day, two minutes after it.
    EXPECT_EQ(keys.size(), 1u + 1u + 1u + 2u);
    EXPECT_EQ(keys[2], "rqxx:metrics:d:1728000000");
}

TEST(time_buckets, stay_few_for_a_year) {
    const auto now = std::chrono::floor<std::chrono::minutes>(Timestamp{1795456544965519us});
    EXPECT_LT(ops::buckets({now - std::chrono::hours(8760), now}, Timestamp(now)).size(), 600u);
}

TEST(figures, of_one_job_are_exact) {
    ops::Figures figures;
    figures.add(Pairs{{"finished", "1"},
                      {"run_sum", "2252"},
                      {"run_min", "2252"},
                      {"run_max", "2252"},
                      {"r63", "1"}});
    const Performance performance = figures.summary();
    for (const double value : {performance.duration.avg, performance.duration.median,
                               performance.duration.min, performance.duration.p99})
        EXPECT_DOUBLE_EQ(value, 0.002252);
}

TEST(figures, average_over_the_jobs_whose_duration_is_known) {
    ops::Figures figures;
    figures.add(Pairs{{"finished", "10"},
                      {"run_sum", "4000"},
                      {"run_min", "2000"},
                      {"run_max", "2000"},
                      {"r61", "2"}});
    const Performance performance = figures.summary();
    EXPECT_EQ(performance.successful, 10);
    EXPECT_EQ(performance.duration.count, 2);
    EXPECT_DOUBLE_EQ(performance.duration.avg, 0.002);
}

TEST(figures, are_zero_without_jobs_and_ignore_junk) {
    ops::Figures figures;
    figures.add(Pairs{{"finished", "x"},
                      {"run_sum", "nan"},
                      {"rx", "1"},
                      {"r99999999999", "1"},
                      {"failed", "-5"}});
    const Performance performance = figures.summary();
    EXPECT_EQ(performance.total(), 0);
    EXPECT_EQ(performance.success_rate(), 0);
    EXPECT_EQ(performance.duration.p95, 0);
}

TEST(changes, are_those_of_the_unrounded_figures) {
    Performance now, before;
    now.hours = before.hours = 1000;
    now.successful = 2, now.failed = 1;
    before.successful = 1, before.failed = 2;
    const auto changes = comparison_json(now, before, {}).at("changes");
    EXPECT_DOUBLE_EQ(changes.at("success_rate_change").as_double(), 33.33);
    EXPECT_DOUBLE_EQ(changes.at("throughput_change_percent").as_double(), 0);
    before.failed = 0;
    const auto grown = comparison_json(now, before, {});
    EXPECT_DOUBLE_EQ(grown.at("changes").at("throughput_change_percent").as_double(), 200);
    EXPECT_DOUBLE_EQ(grown.at("current_period").at("throughput_per_hour").as_double(), 0);
    EXPECT_DOUBLE_EQ(grown.at("current_period").at("success_rate").as_double(), 66.67);
    EXPECT_FALSE(grown.at("changes").at("is_improving").as_bool());
}
