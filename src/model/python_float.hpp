#pragma once

#include <string>
#include <string_view>

namespace rqxx {

/// Python's repr() of a float; `nan` and `infinity` as the caller's format spells them.
[[nodiscard]] std::string python_float(double value, std::string_view nan,
                                       std::string_view infinity);

}  // namespace rqxx
