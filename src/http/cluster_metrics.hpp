#pragma once

#include <rqxx/rules.hpp>
#include <vector>

#include "http/metric_series.hpp"
#include "ops/census.hpp"

namespace rqxx::http {

/// What Redis knows of all queues and workers, whoever they belong to. At most 1000 queues have
/// series of their own.
[[nodiscard]] Families cluster_metrics(const ops::Census& census);
[[nodiscard]] Families limiter_metrics(const std::vector<LimiterUse>& uses);
/// The series of rq-exporter, with its names and labels.
/// Source: rq_exporter/collector.py (rq-exporter 3.0)
[[nodiscard]] Families rq_exporter_metrics(const ops::Census& census);

}  // namespace rqxx::http
