#pragma once

#include <rqxx/queue.hpp>
#include <string>
#include <string_view>

namespace rqxx::ops {

/// @throws Error `Errc::usage` for keys or periods out of range, naming the option.
void check_deduplication(const EnqueueOptions& options);
/// SHA-256 as 64 hex digits.
[[nodiscard]] std::string sha256_hex(std::string_view bytes);

}  // namespace rqxx::ops
