#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/execution.hpp"
#include "runtime/http_client.hpp"

/// What a job looks like as a request, and what becomes of it by the answer. No I/O.
namespace rqxx::runtime {

/// Larger results are no results.
inline constexpr std::size_t max_http_result = 16u << 20;

[[nodiscard]] HttpRequest http_job_request(const Execution& execution, const HttpUrl& url,
                                           const std::vector<std::string>& secrets);
[[nodiscard]] RunOutcome http_job_outcome(const HttpResponse& response, const HttpUrl& url,
                                          Serializer serializer);
/// A failure with `rqxx.HttpError: POST https://host/path` and then `what`, all in one line.
[[nodiscard]] RunOutcome http_job_failure(const HttpUrl& url, std::string_view what);

}  // namespace rqxx::runtime
