#include <fmt/format.h>
#include <openssl/crypto.h>

#include <boost/asio/ip/address.hpp>

#include "http/gate.hpp"

namespace rqxx::http {
namespace {

/// A Host or Origin authority without its port and brackets.
std::string_view host_of(std::string_view authority) {
    if (authority.starts_with('['))
        return authority.substr(1, std::min(authority.find(']'), authority.size()) - 1);
    return authority.substr(0, authority.find(':'));
}

bool is_address(std::string_view host) {
    boost::system::error_code error;
    boost::asio::ip::make_address(std::string(host), error);
    return !error;
}

/// What says nothing of any job: health, and the page, which asks for the token itself.
bool is_open(std::string_view path) {
    return path == "/healthz" || path == "/readyz" || path == "/" || path.starts_with("/assets/");
}

}  // namespace

bool is_loopback(std::string_view host) {
    boost::system::error_code error;
    const auto address = boost::asio::ip::make_address(std::string(host), error);
    return error ? host == "localhost" : address.is_loopback();
}

Gate::Gate(const ServerOptions& options) : token_(options.token), host_(options.host) {}

std::optional<HttpError> Gate::check(const Request& request) const {
    const std::string_view host = host_of(request.header("Host").value_or(""));
    // A page of another site that points its own name at 127.0.0.1 must not get at us.
    if (token_.empty() && !host.empty() && host != "localhost" && host != host_ &&
        !is_address(host))
        return HttpError(
            421, fmt::format("This server does not answer for the host \"{}\"", host.substr(0, 80)),
            "wrong_host");
    if (request.method != Method::get && request.method != Method::head &&
        request.method != Method::options && request.from_another_site())
        return cross_site_refusal();
    if (token_.empty() || is_open(request.path)) return std::nullopt;
    const std::string_view given = request.header("Authorization").value_or("");
    constexpr std::string_view scheme = "Bearer ";
    const bool matches =
        given.starts_with(scheme) && given.size() == scheme.size() + token_.size() &&
        CRYPTO_memcmp(given.data() + scheme.size(), token_.data(), token_.size()) == 0;
    if (matches) return std::nullopt;
    return HttpError(401, "A valid bearer token is needed", "unauthorized",
                     {{"WWW-Authenticate", "Bearer"}});
}

}  // namespace rqxx::http
