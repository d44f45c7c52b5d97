#pragma once

#include <optional>
#include <rqxx/http/router.hpp>
#include <string>
#include <string_view>

#include "ops/enqueue_request.hpp"

namespace rqxx::http {

/// The body of `POST /api/v1/jobs`. Pure, so that it is tested alone.
/// @throws HttpError 422 that names the field.
[[nodiscard]] ops::EnqueueRequest parse_job_request(std::string_view body);
/// JSON schema of that body, for the OpenAPI document.
[[nodiscard]] std::string job_request_schema();

/// What the header `Idempotency-Key` says, quoted or bare; the body, too, makes up what is asked.
/// @throws HttpError 422 for a key that is empty, too long, given twice or not printable ASCII.
/// Source: draft-ietf-httpapi-idempotency-key-header-07.
[[nodiscard]] std::optional<Idempotency> parse_idempotency(const Request& request);

}  // namespace rqxx::http
