#pragma once

#include <string>
#include <string_view>

#include "ops/enqueue_request.hpp"

namespace rqxx::ops {

/// How a job's parts are written; what both forms have is read the same.
enum class JobForm {
    request,  ///< The body of `POST /api/v1/jobs`: `retry` and `depends_on` may be objects.
    line,  ///< Of a batch: flat (`retry_intervals`, `allow_failure`), with all that follows a job.
};

/// A job that a JSON object describes; null counts as left out, and so does an empty id. Whether
/// the parts go together, and are in range, is looked at where the job is enqueued.
/// @throws Error `Errc::usage` whose message begins with the name of a field and a colon, unless
///     there is no object.
[[nodiscard]] EnqueueRequest read_job(std::string_view text, JobForm form,
                                      const std::string& default_queue = "default");

}  // namespace rqxx::ops
