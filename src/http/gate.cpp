#include <fmt/format.h>

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

}  // namespace

bool is_loopback(std::string_view host) {
    boost::system::error_code error;
    const auto address = boost::asio::ip::make_address(std::string(host), error);
    return error ? host == "localhost" : address.is_loopback();
}

Gate::Gate(const ServerOptions& options)
    : authenticated_(options.authenticated), host_(options.host) {}

std::optional<HttpError> Gate::check(const Request& request) const {
    const std::string_view host = host_of(request.header("Host").value_or(""));
    // A page of another site that points its own name at 127.0.0.1 must not get at us.
    if (!authenticated_ && !host.empty() && host != "localhost" && host != host_ &&
        !is_address(host))
        return HttpError(
            421, fmt::format("This server does not answer for the host \"{}\"", host.substr(0, 80)),
            "wrong_host");
    if (request.method != Method::get && request.method != Method::head &&
        request.method != Method::options && request.from_another_site())
        return cross_site_refusal();
    return std::nullopt;
}

}  // namespace rqxx::http
