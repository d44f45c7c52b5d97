#pragma once

#include <optional>
#include <rqxx/http/router.hpp>
#include <rqxx/queue.hpp>
#include <string>

namespace rqxx::http {

/// JSON schema of the body of `POST /api/v1/jobs` (`ops::JobForm::request`), for the OpenAPI
/// document.
[[nodiscard]] std::string job_request_schema();

/// What the header `Idempotency-Key` says, quoted or bare; the body, too, makes up what is asked.
/// @throws Error `Errc::usage` for a key that is empty, too long, given twice or not printable
/// ASCII. Source: draft-ietf-httpapi-idempotency-key-header-07.
[[nodiscard]] std::optional<Idempotency> parse_idempotency(const Request& request);

}  // namespace rqxx::http
