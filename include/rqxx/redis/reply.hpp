#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace rqxx {

/// One RESP2 reply.
struct Reply {
    enum class Type : std::uint8_t { nil, status, error, integer, string, array };

    Type type = Type::nil;
    std::int64_t integer = 0;
    std::string text;             ///< Of a status, error or string.
    std::vector<Reply> elements;  ///< Of an array.

    [[nodiscard]] bool is_nil() const noexcept { return type == Type::nil; }
    [[nodiscard]] bool is_error() const noexcept { return type == Type::error; }
    [[nodiscard]] bool is_array() const noexcept { return type == Type::array; }
    [[nodiscard]] bool is_string() const noexcept { return type == Type::string; }

    /// The integer, also from a string of digits. @throws Error `Errc::protocol` otherwise.
    [[nodiscard]] std::int64_t as_integer() const;
    /// The text of a string or status; an integer as text; empty for nil.
    /// @throws Error `Errc::protocol` for an array.
    [[nodiscard]] std::string as_text() const;
    /// The elements. A nil counts as empty. @throws Error `Errc::protocol` for anything else.
    [[nodiscard]] const std::vector<Reply>& as_array() const;
    /// An even array as pairs of views into this reply (HGETALL, stream fields).
    /// Non-string members show as empty text.
    [[nodiscard]] std::vector<std::pair<std::string_view, std::string_view>> as_pairs() const;
    /// @throws ServerError if this is an error reply.
    void throw_if_error() const;
};

}  // namespace rqxx
