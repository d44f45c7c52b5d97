#pragma once

#include <string>
#include <vector>

#include "runtime/http_client.hpp"

namespace rqxx::runtime {

/// Adds the headers of Standard Webhooks that go with a `webhook-id` of `id`: `webhook-timestamp`
/// and `webhook-signature`, with a signature for each secret. Nothing where there is no secret. The
/// body is final.
void sign(HttpRequest& request, const std::vector<std::string>& secrets, const std::string& id);

}  // namespace rqxx::runtime
