#pragma once

#include <ops/transitions.hpp>

namespace rqxx::test {

/// How a claimed job ended, as a worker tells Redis.
inline ops::Settlement settlement(const ops::Claimed& job, ops::Settlement::Outcome outcome) {
    ops::Settlement result;
    result.job_id = job.job_id;
    result.execution_id = job.execution_id;
    result.origin = job.origin;
    result.outcome = outcome;
    result.started_at = job.started_at;
    return result;
}

}  // namespace rqxx::test
