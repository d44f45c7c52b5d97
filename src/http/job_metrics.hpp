#pragma once

#include <prometheus/registry.h>

#include <chrono>
#include <memory>
#include <rqxx/worker.hpp>

#include "http/metric_series.hpp"

namespace rqxx::http {

/// What this process' worker runs, counted as it happens, at no cost in Redis.
///
/// At most 200 queues, and where `functions` is set 200 functions, have series of their own. Use
/// from the worker's executor only.
class JobMetrics {
public:
    JobMetrics(Worker& worker, bool functions);
    ~JobMetrics();
    JobMetrics(const JobMetrics&) = delete;
    JobMetrics& operator=(const JobMetrics&) = delete;
    [[nodiscard]] Families collect() const;

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // also the worker's observer has it
};

}  // namespace rqxx::http
