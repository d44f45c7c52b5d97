#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace rqxx {

/// One character of UTF-8 text. Surrogates are let through: Python's strings may hold them.
struct Utf8 {
    static constexpr std::uint32_t invalid = 0xffffffff;
    std::uint32_t code;
    std::size_t length;  ///< Bytes used; 1 for an invalid one.
};

[[nodiscard]] Utf8 next_utf8(std::string_view text, std::size_t at) noexcept;
/// Whether it is UTF-8 throughout, without lone surrogates.
[[nodiscard]] bool is_valid_utf8(std::string_view text) noexcept;
/// With U+FFFD for what is not UTF-8, and for lone surrogates.
[[nodiscard]] std::string to_valid_utf8(std::string_view text);
/// The length of `text` without a character at its end that further bytes may complete.
[[nodiscard]] std::size_t whole_characters(std::string_view text) noexcept;
/// With a to z for A to Z; other letters stay as they are.
[[nodiscard]] std::string lower_ascii(std::string_view text);

}  // namespace rqxx
