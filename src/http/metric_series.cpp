#include "http/metric_series.hpp"

#include "base/utf8.hpp"

namespace rqxx::http {

namespace {
constexpr std::size_t longest_label = 200;
}

std::string label_of(std::string_view name) {
    const auto begin = name.substr(0, longest_label);
    return to_valid_utf8(begin.substr(0, whole_characters(begin)));
}

std::string NameCap::operator()(std::string_view name) {
    std::string label = label_of(name);
    if (known_.contains(label)) return label;
    if (known_.size() >= most_) return std::string(other_label);
    known_.insert(label);
    return label;
}

prometheus::MetricFamily Series::family() const {
    prometheus::MetricFamily result;
    result.name = name_;
    result.help = help_;
    result.type = type_;
    for (const auto& [labels, value] : values_) {
        prometheus::ClientMetric metric;
        for (std::size_t i = 0; i < labels_.size(); ++i)
            metric.label.push_back({labels_[i], labels.at(i)});
        if (type_ == prometheus::MetricType::Counter)
            metric.counter.value = value;
        else
            metric.gauge.value = value;
        result.metric.push_back(std::move(metric));
    }
    return result;
}

prometheus::MetricFamily gauge(std::string name, std::string help, double value) {
    Series one(std::move(name), std::move(help), prometheus::MetricType::Gauge);
    one.add({}, value);
    return one.family();
}

prometheus::MetricFamily counter(std::string name, std::string help, double value) {
    Series one(std::move(name), std::move(help), prometheus::MetricType::Counter);
    one.add({}, value);
    return one.family();
}

const prometheus::Histogram::BucketBoundaries& job_buckets() {
    static const prometheus::Histogram::BucketBoundaries edges{
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
        1,      2.5,   5,      10,    30,   60,    120,  300, 600};
    return edges;
}

}  // namespace rqxx::http
