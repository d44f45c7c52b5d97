#pragma once

#include <rqxx/http/server.hpp>
#include <string>
#include <string_view>

namespace rqxx::http {

/// What may and may not enter, whoever asks: Host and origin of a request. Pure, so that it is
/// tested alone.
class Gate {
public:
    explicit Gate(const ServerOptions& options);
    /// The refusal, or nothing.
    [[nodiscard]] std::optional<HttpError> check(const Request& request) const;

private:
    bool authenticated_;  ///< Who comes by a name of another site has no token of ours.
    std::string host_;
};

/// Whether a host name or address is this machine only: 127.0.0.0/8, ::1, localhost.
[[nodiscard]] bool is_loopback(std::string_view host);

/// One request from raw bytes, as the server reads it: the request, or the status that refuses it
/// (0: more bytes are needed). For tests and the fuzzer.
struct ParsedRequest {
    std::optional<Request> request;
    int status = 0;
};
[[nodiscard]] ParsedRequest parse_request(std::string_view bytes, const ServerOptions& options);

}  // namespace rqxx::http
