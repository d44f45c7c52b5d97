#pragma once

#include <string>

#include "runtime/execution.hpp"

namespace rqxx::runtime {

/// A job as programs in other languages get it, a JSON object: `job_id`, `execution_id`,
/// `function`, `args`, `kwargs`, `meta`, `queue`, `attempt` (from 1), `timeout` (seconds or null),
/// `enqueued_at`.
[[nodiscard]] std::string job_document(const Execution& execution);

/// The name of the first callback of a job; empty where it has none.
[[nodiscard]] std::string callback_of(const Job& job);

}  // namespace rqxx::runtime
