#pragma once

#include <boost/json/object.hpp>
#include <initializer_list>
#include <optional>
#include <rqxx/http/router.hpp>
#include <string>
#include <string_view>

/// What routes read from queries and bodies. All throw HttpError 422 that names the field.
namespace rqxx::http {

/// `true`, `1` or nothing behind the name; `false`, `0` or absent.
[[nodiscard]] bool query_flag(const Request& request, std::string_view name);
[[nodiscard]] std::string query_text(const Request& request, std::string_view name);
/// The members of the body, all of them known. An empty body has none.
[[nodiscard]] boost::json::object body_members(const Request& request,
                                               std::initializer_list<std::string_view> known);
/// All members are known; `where` ("filter.") stands in front of their names.
void check_members(const boost::json::object& object, std::string_view where,
                   std::initializer_list<std::string_view> known);
/// Absent or null: nothing. `where` as above.
[[nodiscard]] std::optional<std::string> text_member(const boost::json::object& object,
                                                     std::string_view name,
                                                     std::string_view where = {});
[[nodiscard]] bool flag_member(const boost::json::object& object, std::string_view name);
[[nodiscard]] std::optional<std::int64_t> integer_member(const boost::json::object& object,
                                                         std::string_view name, std::int64_t min,
                                                         std::int64_t max);

/// For the description of a route.
[[nodiscard]] RouteDoc::Param text_param(std::string name, std::string description);
[[nodiscard]] RouteDoc::Param flag_param(std::string name, std::string description);
[[nodiscard]] RouteDoc::Param integer_param(std::string name, std::string description,
                                            std::int64_t fallback, std::int64_t min,
                                            std::int64_t max);
[[nodiscard]] RouteDoc::Param dry_run_param();

}  // namespace rqxx::http
