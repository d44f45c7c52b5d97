#pragma once

#include <string>
#include <string_view>

namespace rqxx::ops {

/// SHA1 in hex, as Redis' scripts compute it: what tells whether something kept has changed.
[[nodiscard]] std::string etag_of(std::string_view text);

}  // namespace rqxx::ops
