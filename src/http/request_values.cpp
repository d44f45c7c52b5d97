#include "http/request_values.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/value.hpp>

namespace rqxx::http {

namespace json = boost::json;

bool query_flag(const Request& request, std::string_view name) {
    const auto value = request.query_value(name);
    if (!value || *value == "0" || *value == "false") return false;
    if (*value == "1" || *value == "true" || value->empty()) return true;
    throw HttpError(422, fmt::format("{} must be true or false", name));
}

std::string query_text(const Request& request, std::string_view name) {
    return std::string(request.query_value(name).value_or(""));
}

void check_members(const json::object& object, std::string_view where,
                   std::initializer_list<std::string_view> known) {
    for (const auto& member : object)
        if (std::ranges::find(known, std::string_view(member.key())) == known.end())
            throw HttpError(422, fmt::format("{}{}: is not known", where,
                                             std::string_view(member.key()).substr(0, 80)));
}

json::object body_members(const Request& request, std::initializer_list<std::string_view> known) {
    if (request.body.empty()) return {};
    json::value body = request.json();
    if (!body.is_object()) throw HttpError(422, "the body must be an object");
    check_members(body.get_object(), "", known);
    return std::move(body.get_object());
}

std::optional<std::string> text_member(const json::object& object, std::string_view name,
                                       std::string_view where) {
    const auto* value = object.if_contains(name);
    if (value == nullptr || value->is_null()) return std::nullopt;
    if (!value->is_string()) throw HttpError(422, fmt::format("{}{}: must be text", where, name));
    return std::string(value->get_string());
}

bool flag_member(const json::object& object, std::string_view name) {
    const auto* value = object.if_contains(name);
    if (value == nullptr || value->is_null()) return false;
    if (!value->is_bool()) throw HttpError(422, fmt::format("{}: must be true or false", name));
    return value->get_bool();
}

std::optional<std::int64_t> integer_member(const json::object& object, std::string_view name,
                                           std::int64_t min, std::int64_t max) {
    const auto* value = object.if_contains(name);
    if (value == nullptr || value->is_null()) return std::nullopt;
    const auto* integer = value->if_int64();
    if (integer == nullptr || *integer < min || *integer > max)
        throw HttpError(422,
                        fmt::format("{}: must be a whole number from {} to {}", name, min, max));
    return *integer;
}

RouteDoc::Param text_param(std::string name, std::string description) {
    RouteDoc::Param param;
    param.name = std::move(name);
    param.description = std::move(description);
    return param;
}

RouteDoc::Param flag_param(std::string name, std::string description) {
    auto param = text_param(std::move(name), std::move(description));
    param.type = "boolean";
    return param;
}

RouteDoc::Param integer_param(std::string name, std::string description, std::int64_t fallback,
                              std::int64_t min, std::int64_t max) {
    auto param = text_param(std::move(name), std::move(description));
    param.type = "integer";
    param.fallback = fallback;
    param.minimum = min;
    param.maximum = max;
    return param;
}

RouteDoc::Param dry_run_param() {
    return flag_param("dry_run", "say what would be done, and change nothing");
}

}  // namespace rqxx::http
