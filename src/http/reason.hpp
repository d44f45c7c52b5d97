#pragma once

#include <string_view>

namespace rqxx::http {

/// The reason phrase of a status. Source: RFC 9110.
[[nodiscard]] std::string_view reason(int status) noexcept;

}  // namespace rqxx::http
