#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace rqxx::index {

/// What failures with one cause have in common.
struct ErrorGroup {
    std::string id;         ///< 16 hex digits, of the three below.
    std::string exception;  ///< `ValueError`, `psycopg2.errors.DeadlockDetected`; may be empty.
    std::string message;  ///< Numbers, ids and quoted texts are `<n>`, `<hex>`, `<uuid>`, `<str>`.
    std::string frame;    ///< `jobs.py:charge`: the last one of the application; may be empty.
};

/// A message without what differs from job to job.
[[nodiscard]] std::string normalised_message(std::string_view message);

/// Of an error as it is shown: a Python traceback, or the text of a C++ exception, an HTTP answer,
/// a program's end. Lines that matter are looked at up to a bounded length. Never throws for what
/// is in it.
[[nodiscard]] ErrorGroup group_error(std::string_view error);

/// The last line that says something, of at most `most` bytes of valid UTF-8.
[[nodiscard]] std::string last_line(std::string_view error, std::size_t most);

}  // namespace rqxx::index
