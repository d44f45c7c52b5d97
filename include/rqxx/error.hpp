#pragma once

#include <boost/system/result.hpp>
#include <cstddef>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

namespace rqxx {

/// What went wrong, for programs. Stable: names HTTP problem types, log fields and exit codes.
enum class Errc {
    usage,           ///< The caller's argument is wrong; nothing was sent or changed.
    connection,      ///< Redis could not be reached, or the connection broke.
    timeout,         ///< No answer within the deadline.
    server,          ///< Redis answered with an error (see ServerError).
    authentication,  ///< Redis refused the user or the password.
    protocol,        ///< The peer sent something that is not RESP or not HTTP.
    unavailable,     ///< Redis answers that it cannot serve yet (LOADING, BUSY, …).
    decode,          ///< Stored data cannot be read (see DecodeError).
    not_found,       ///< The named thing does not exist.
    io,              ///< A file or a process: message says which.
    internal,        ///< A broken assumption of our own.
};

/// `usage`, `connection`, …: the enumerator as text.
[[nodiscard]] std::string_view to_string(Errc code) noexcept;

/// The one exception type of the library. Subclasses exist only to carry data.
class Error : public std::exception {
public:
    enum class Doubt { no, yes };

    Error(Errc code, std::string message, Doubt doubt = Doubt::no)
        : code_(code), in_doubt_(doubt == Doubt::yes), message_(std::move(message)) {}

    [[nodiscard]] const char* what() const noexcept override { return message_.c_str(); }
    [[nodiscard]] const std::string& message() const noexcept { return message_; }
    [[nodiscard]] Errc code() const noexcept { return code_; }
    /// May succeed later with nothing changed by the caller.
    [[nodiscard]] bool retryable() const noexcept {
        return code_ == Errc::connection || code_ == Errc::timeout || code_ == Errc::unavailable;
    }
    /// The connection it happened on cannot be used any more.
    [[nodiscard]] bool poisons_connection() const noexcept {
        return code_ == Errc::connection || code_ == Errc::timeout || code_ == Errc::protocol;
    }
    /// The command was sent and no reply came: it may or may not have been carried out.
    [[nodiscard]] bool in_doubt() const noexcept { return in_doubt_; }

private:
    Errc code_;
    bool in_doubt_;
    std::string message_;
};

/// Redis answered with an error; `prefix()` is its first word (`WRONGTYPE`, `OOM`, `NOSCRIPT`).
class ServerError : public Error {
public:
    explicit ServerError(std::string message);
    [[nodiscard]] std::string_view prefix() const noexcept;

private:
    std::size_t prefix_size_;
};

/// A shutdown, not a failure: not an Error, so that a retry loop cannot swallow it.
class Cancelled : public std::exception {
public:
    [[nodiscard]] const char* what() const noexcept override { return "cancelled"; }
};

/// Why untrusted bytes could not be parsed: which field, where in it, and what was expected.
struct ParseError {
    ParseError() = default;
    explicit ParseError(std::string message_, std::string field_ = {}, std::size_t offset_ = 0)
        : message(std::move(message_)), field(std::move(field_)), offset(offset_) {}

    std::string message;
    std::string field;       ///< The job-hash field, URL part or flag; empty if there is just one.
    std::size_t offset = 0;  ///< In bytes from the start of the field.

    /// `field: message (at byte offset)`.
    [[nodiscard]] std::string describe() const;
};

/// What a parser of untrusted bytes returns. Such parsers never throw.
template <class T>
using Parsed = boost::system::result<T, ParseError>;

/// Stored data that cannot be read, as an exception: the one edge where a ParseError is thrown.
class DecodeError : public Error {
public:
    DecodeError(std::string job_id, ParseError reason);
    [[nodiscard]] const std::string& job_id() const noexcept { return job_id_; }
    [[nodiscard]] const ParseError& reason() const noexcept { return reason_; }

private:
    std::string job_id_;
    ParseError reason_;
};

[[noreturn]] void throw_exception_from_error(const ParseError& error,
                                             const boost::source_location& where);

}  // namespace rqxx
