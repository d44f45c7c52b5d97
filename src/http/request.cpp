#include <fmt/format.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>
#include <charconv>
#include <rqxx/error.hpp>
#include <rqxx/http/router.hpp>
#include <rqxx/json.hpp>

#include "base/utf8.hpp"
#include "http/reason.hpp"

namespace rqxx::http {
namespace {

namespace json = boost::json;

bool equal_ignoring_case(std::string_view a, std::string_view b) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                              [&](char x, char y) { return lower(x) == lower(y); });
}

}  // namespace

std::string_view to_string(Method method) noexcept {
    switch (method) {
        case Method::get:
            return "GET";
        case Method::head:
            return "HEAD";
        case Method::post:
            return "POST";
        case Method::put:
            return "PUT";
        case Method::patch:
            return "PATCH";
        case Method::delete_:
            return "DELETE";
        case Method::options:
            return "OPTIONS";
        case Method::other:
            break;
    }
    return "OTHER";
}

std::string_view reason(int status) noexcept {
    switch (status) {
        case 200:
            return "OK";
        case 201:
            return "Created";
        case 202:
            return "Accepted";
        case 204:
            return "No Content";
        case 304:
            return "Not Modified";
        case 308:
            return "Permanent Redirect";
        case 400:
            return "Bad Request";
        case 401:
            return "Unauthorized";
        case 403:
            return "Forbidden";
        case 404:
            return "Not Found";
        case 405:
            return "Method Not Allowed";
        case 408:
            return "Request Timeout";
        case 409:
            return "Conflict";
        case 412:
            return "Precondition Failed";
        case 413:
            return "Content Too Large";
        case 415:
            return "Unsupported Media Type";
        case 421:
            return "Misdirected Request";
        case 422:
            return "Unprocessable Content";
        case 429:
            return "Too Many Requests";
        case 431:
            return "Request Header Fields Too Large";
        case 500:
            return "Internal Server Error";
        case 501:
            return "Not Implemented";
        case 503:
            return "Service Unavailable";
        case 505:
            return "HTTP Version Not Supported";
        default:
            return "Unknown";
    }
}

bool parse_target(Request& request) {
    if (!request.target.starts_with('/')) {
        // As sent to a proxy: its authority takes the place of Host. Source: RFC 9112, 3.2.2.
        const auto absolute = boost::urls::parse_absolute_uri(request.target);
        if (!absolute || (absolute->scheme_id() != boost::urls::scheme::http &&
                          absolute->scheme_id() != boost::urls::scheme::https))
            return false;
        std::string host(absolute->encoded_host_and_port());
        if (host.empty()) return false;
        std::string target(absolute->encoded_resource());
        if (!target.starts_with('/')) target.insert(0, "/");
        std::erase_if(request.headers,
                      [](const auto& header) { return equal_ignoring_case(header.first, "Host"); });
        request.headers.emplace_back("Host", std::move(host));
        request.target = std::move(target);
    }
    const auto url = boost::urls::parse_origin_form(request.target);
    if (!url) return false;
    request.path = url->path();
    request.query.clear();
    for (const auto& param : url->params())
        request.query.emplace_back(param.key, param.value);
    return true;
}

std::optional<std::string_view> Request::query_value(std::string_view name) const noexcept {
    for (const auto& [key, value] : query) {
        if (key == name) return value;
    }
    return std::nullopt;
}

std::int64_t Request::query_integer(std::string_view name, std::int64_t fallback, std::int64_t min,
                                    std::int64_t max) const {
    std::optional<std::string_view> text;
    for (const auto& [key, value] : query) {
        if (key != name) continue;
        if (text) throw HttpError(422, fmt::format("{} is given more than once", name));
        text = value;
    }
    if (!text) return fallback;
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
    if (text->empty() || error != std::errc{} || end != text->data() + text->size() ||
        number < min || number > max)
        throw HttpError(422, fmt::format("{} must be an integer from {} to {}, not \"{}\"", name,
                                         min, max, text->substr(0, 40)));
    return number;
}

const std::string& Request::path_param(std::string_view name) const {
    for (const auto& [key, value] : path_params) {
        if (key == name) return value;
    }
    throw Error(Errc::internal, fmt::format("the route has no parameter {}", name));
}

std::optional<std::string_view> Request::header(std::string_view name) const noexcept {
    for (const auto& [key, value] : headers) {
        if (equal_ignoring_case(key, name)) return value;
    }
    return std::nullopt;
}

std::size_t Request::header_count(std::string_view name) const noexcept {
    return static_cast<std::size_t>(std::ranges::count_if(
        headers, [&](const auto& header) { return equal_ignoring_case(header.first, name); }));
}

bool Request::from_another_site() const noexcept {
    const auto site = header("Sec-Fetch-Site");
    if (site && *site != "same-origin" && *site != "none") return true;
    const auto origin = header("Origin");
    if (!origin) return false;
    const auto url = boost::urls::parse_uri(*origin);
    return !url || std::string_view(url->encoded_host_and_port()) != header("Host").value_or("");
}

json::value Request::json() const {
    boost::system::error_code error;
    auto value = json::parse(body, error);
    if (error) throw HttpError(422, fmt::format("the body is not valid JSON: {}", error.message()));
    return value;
}

Response json_response(int status, const json::value& body) {
    Response response;
    response.status = status;
    response.body = to_text(body);
    return response;
}

HttpError cross_site_refusal() {
    return HttpError(403, "Changes are accepted from this server's own pages only", "cross_site");
}

HttpError::HttpError(int status, std::string detail, std::string code, Headers headers)
    : status_(status),
      detail_(std::move(detail)),
      code_(std::move(code)),
      headers_(std::move(headers)) {}

std::string actor_of(const Request& request) {
    const bool known = request.principal != nullptr && request.principal->auth != "none";
    return known ? request.principal->name : request.remote;
}

Response problem_response(const Request& request, int status, std::string_view detail,
                          std::string_view code) {
    return problem_response(request, status, detail, code, {});
}

Response problem_response(const Request& request, int status, std::string_view detail,
                          std::string_view code, const json::object& members) {
    json::object problem{
        {"type", code.empty() ? "about:blank" : fmt::format("urn:rqxx:problem:{}", code)},
        {"title", reason(status)},
        {"status", status},
        {"detail", to_valid_utf8(detail)}};
    if (!request.path.empty()) problem["instance"] = to_valid_utf8(request.path);
    if (!request.request_id.empty()) problem["request_id"] = request.request_id;
    if (!code.empty()) problem["code"] = code;
    for (const auto& [name, value] : members)
        problem[name] = value;
    Response response = json_response(status, problem);
    response.content_type = "application/problem+json";
    return response;
}

}  // namespace rqxx::http
