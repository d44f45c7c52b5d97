#pragma once

#include <string_view>

namespace rqxx {

/// Whether all of `text` is as `pattern` says, where `*` stands for any text.
[[nodiscard]] bool matches_wildcard(std::string_view pattern, std::string_view text) noexcept;

}  // namespace rqxx
