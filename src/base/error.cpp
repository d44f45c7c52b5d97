#include <fmt/format.h>

#include <algorithm>
#include <rqxx/error.hpp>

namespace rqxx {

std::string_view to_string(Errc code) noexcept {
    switch (code) {
        case Errc::usage:
            return "usage";
        case Errc::connection:
            return "connection";
        case Errc::timeout:
            return "timeout";
        case Errc::server:
            return "server";
        case Errc::authentication:
            return "authentication";
        case Errc::protocol:
            return "protocol";
        case Errc::unavailable:
            return "unavailable";
        case Errc::decode:
            return "decode";
        case Errc::not_found:
            return "not_found";
        case Errc::io:
            return "io";
        case Errc::internal:
            return "internal";
    }
    return "internal";
}

namespace {

Errc code_of(std::string_view answer) {
    const auto word = answer.substr(0, answer.find(' '));
    if (word == "WRONGPASS" || word == "NOAUTH") return Errc::authentication;
    for (const std::string_view passing : {"LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN"})
        if (word == passing) return Errc::unavailable;
    return Errc::server;
}

}  // namespace

ServerError::ServerError(std::string message)
    : Error(code_of(message), message), prefix_size_(std::min(message.find(' '), message.size())) {}

std::string_view ServerError::prefix() const noexcept {
    return std::string_view(message()).substr(0, prefix_size_);
}

std::string ParseError::describe() const {
    std::string text = field.empty() ? message : fmt::format("{}: {}", field, message);
    if (offset > 0) text += fmt::format(" (at byte {})", offset);
    return text;
}

DecodeError::DecodeError(std::string job_id, ParseError reason)
    : Error(Errc::decode, job_id.empty() ? reason.describe()
                                         : fmt::format("job {}: {}", job_id, reason.describe())),
      job_id_(std::move(job_id)),
      reason_(std::move(reason)) {}

void throw_exception_from_error(const ParseError& error, const boost::source_location&) {
    throw DecodeError({}, error);
}

}  // namespace rqxx
