#pragma once

#include <prometheus/client_metric.h>
#include <prometheus/histogram.h>
#include <prometheus/metric_family.h>

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Parts of an answer to a scrape.
namespace rqxx::http {

/// What stands for all names beyond those that have a series of their own.
inline constexpr std::string_view other_label = "other";

/// A label's value from a name that anybody may have chosen: valid UTF-8, at most 200 bytes.
[[nodiscard]] std::string label_of(std::string_view name);

/// Lets the first `most` names through and makes `other` of all further ones.
class NameCap {
public:
    explicit NameCap(std::size_t most) : most_(most) {}
    [[nodiscard]] std::string operator()(std::string_view name);

private:
    std::size_t most_;
    std::set<std::string, std::less<>> known_;
};

/// Gauges or counters of one name. Values under equal labels add up: a series may stand in an
/// answer once only.
class Series {
public:
    Series(std::string name, std::string help, prometheus::MetricType type,
           std::vector<std::string> labels = {})
        : name_(std::move(name)), help_(std::move(help)), type_(type), labels_(std::move(labels)) {}

    void add(std::vector<std::string> labels, double value) { values_[std::move(labels)] += value; }
    void raise(std::vector<std::string> labels, double value) {
        double& known = values_[std::move(labels)];
        known = std::max(known, value);
    }
    [[nodiscard]] prometheus::MetricFamily family() const;

private:
    std::string name_, help_;
    prometheus::MetricType type_;
    std::vector<std::string> labels_;
    std::map<std::vector<std::string>, double> values_;
};

using Families = std::vector<prometheus::MetricFamily>;

/// One without labels.
[[nodiscard]] prometheus::MetricFamily gauge(std::string name, std::string help, double value);
[[nodiscard]] prometheus::MetricFamily counter(std::string name, std::string help, double value);

/// Of waits and runs, in seconds: half a millisecond to ten minutes.
[[nodiscard]] const prometheus::Histogram::BucketBoundaries& job_buckets();

}  // namespace rqxx::http
