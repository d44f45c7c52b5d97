#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <cmath>

#include "base/utf8.hpp"
#include "http/api.hpp"
#include "ops/history.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

constexpr std::int64_t most_points = 1000;
constexpr std::size_t most_queues = 50;
constexpr std::size_t sparkline_points = 60;

constexpr std::array<std::pair<std::string_view, std::chrono::seconds>, 7> spans{{
    {"5m", 5min},
    {"15m", 15min},
    {"30m", 30min},
    {"1h", 1h},
    {"6h", 6h},
    {"24h", 24h},
    {"72h", 72h},
}};

constexpr std::string_view span_text =
    "5m, 15m (a point for each second), 30m, 1h, 6h, 24h or 72h (for each minute)";

constexpr std::string_view numbers_schema =
    R"({"type":"array","items":{"type":["number","null"]}})";

/// Of the fields with these names, an array of numbers and gaps each.
std::string fields_schema(std::size_t count) {
    std::string properties;
    for (std::size_t i = 0; i < count; ++i)
        properties +=
            fmt::format(R"({}"{}":{})", i == 0 ? "" : ",", ops::history_fields[i], numbers_schema);
    return fmt::format(R"({{"type":"object","properties":{{{}}}}})", properties);
}

std::string answer_schema(std::string_view member, std::string_view schema) {
    return fmt::format(
        R"({{"type":"object","required":["status","step","from","times","{0}"],"properties":{{"status":{{"type":"string"}},"step":{{"type":"integer","description":"seconds between points"}},"from":{{"type":"string","format":"date-time"}},"times":{{"type":"array","items":{{"type":"integer","description":"seconds since 1970, where the point begins"}}}},"{0}":{1}}}}})",
        member, schema);
}

RouteDoc::Param param(std::string name, std::string description) {
    RouteDoc::Param result;
    result.name = std::move(name);
    result.description = std::move(description);
    return result;
}

std::chrono::seconds span_of(const Request& request, std::string_view fallback) {
    const auto text = request.query_value("span").value_or(fallback);
    for (const auto& [name, span] : spans) {
        if (name == text) return span;
    }
    throw HttpError(422, fmt::format("span must be one of {}", span_text));
}

json::value number(std::optional<double> value) {
    if (!value) return nullptr;
    // What is kept has seven digits.
    const double rounded = std::round(*value * 1e6) / 1e6;
    if (rounded == std::floor(rounded) && std::abs(rounded) < 9e15)
        return static_cast<std::int64_t>(rounded);
    return rounded;
}

json::object fields_json(const ops::HistorySeries& series, std::size_t count) {
    json::object all;
    for (std::size_t field = 0; field < count; ++field) {
        json::array values;
        for (const auto& value : series.fields[field])
            values.push_back(number(value));
        all[ops::history_fields[field]] = std::move(values);
    }
    return all;
}

json::object frame(const ops::HistorySeries& series) {
    json::array times;
    for (const auto time : series.times)
        times.push_back(time);
    const Timestamp from{std::chrono::seconds(series.times.empty() ? 0 : series.times.front())};
    return {{"status", "ok"},
            {"step", series.step},
            {"from", format_utc(from)},
            {"times", std::move(times)}};
}

asio::awaitable<Response> history(RedisClient& redis, Request request) {
    ops::HistorySpan span;
    span.span = span_of(request, "15m");
    span.points =
        static_cast<std::size_t>(request.query_integer("points", most_points, 1, most_points));
    std::vector<std::string> queues{std::string(request.query_value("queue").value_or(""))};
    if (!sees_all_queues(request)) {
        if (queues.front().empty())
            throw HttpError(403, "All queues together are for those who may see all", "all_queues");
        if (!may_see_queue(request, queues.front())) throw HttpError(404, "Queue not found");
    }
    const auto all = co_await ops::read_history(redis, span, std::move(queues));
    json::object answer = frame(all.front());
    answer["series"] = fields_json(all.front(), ops::history_fields.size());
    co_return json_response(200, answer);
}

std::vector<std::string> queues_of(const Request& request) {
    std::vector<std::string> queues;
    for (const auto& [name, value] : request.query) {
        if (name != "queues") continue;
        std::string_view rest = value;
        while (!rest.empty()) {
            const auto comma = std::min(rest.find(','), rest.size());
            if (const auto queue = rest.substr(0, comma);
                !queue.empty() && std::ranges::find(queues, queue) == queues.end())
                queues.emplace_back(queue);
            rest.remove_prefix(std::min(comma + 1, rest.size()));
        }
    }
    if (queues.empty() || queues.size() > most_queues)
        throw HttpError(
            422, fmt::format("queues: name 1 to {} queues, separated by commas", most_queues));
    return queues;
}

asio::awaitable<Response> sparklines(RedisClient& redis, Request request) {
    ops::HistorySpan span;
    span.span = span_of(request, "30m");
    span.points = sparkline_points;
    auto queues = queues_of(request);
    std::erase_if(queues, [&](const auto& queue) { return !may_see_queue(request, queue); });
    if (queues.empty()) throw HttpError(404, "Queue not found");
    const auto all = co_await ops::read_history(redis, span, queues);
    json::object answer = frame(all.front()), by_queue;
    for (std::size_t i = 0; i < queues.size(); ++i)
        by_queue[to_valid_utf8(queues[i])] = fields_json(all[i], ops::history_queue_fields);
    answer["queues"] = std::move(by_queue);
    co_return json_response(200, answer);
}

}  // namespace

void add_history_routes(Router& router, RedisClient& redis) {
    RouteDoc one;
    one.summary =
        "What was going on: a column of numbers for each figure, null where it is not known";
    one.tag = "monitor";
    one.params = {param("span", fmt::format("how far back: {}; 15m unless given", span_text)),
                  param("queue",
                        "of this queue alone (counts, rates and the oldest age are kept of "
                        "the 50 busiest); all queues unless given")};
    RouteDoc::Param points;
    points.name = "points";
    points.type = "integer";
    points.description = "at most so many; more are joined to their mean, or greatest age";
    points.minimum = 1;
    points.maximum = most_points;
    points.fallback = most_points;
    one.params.push_back(points);
    one.response_schema = answer_schema("series", fields_schema(ops::history_fields.size()));
    one.keeps_to_queues = true;
    one.problems = {404, 422, 503};
    router.add(Method::get, "/api/v1/history", one,
               [&redis](Request request) { return history(redis, std::move(request)); });

    RouteDoc many;
    many.summary = "The same of many queues at once, in at most 60 points";
    many.tag = "monitor";
    many.params = {param("span", fmt::format("how far back: {}; 30m unless given", span_text)),
                   param("queues", "names separated by commas, at most 50; may be repeated")};
    many.params.back().required = true;
    many.response_schema =
        answer_schema("queues", fmt::format(R"({{"type":"object","additionalProperties":{}}})",
                                            fields_schema(ops::history_queue_fields)));
    many.keeps_to_queues = true;
    many.problems = {404, 422, 503};
    router.add(Method::get, "/api/v1/history/queues", many,
               [&redis](Request request) { return sparklines(redis, std::move(request)); });
}

}  // namespace rqxx::http
