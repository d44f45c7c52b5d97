#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <rqxx/rules.hpp>
#include <rqxx/value.hpp>

#include "http/api.hpp"
#include "http/job_json.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

constexpr std::int64_t most_seconds = 366 * 24 * 3600;

constexpr std::string_view rule_schema =
    R"({"type":"object","required":["kind"],"properties":{"kind":{"enum":["token-bucket","leaky-bucket","fixed-window","sliding-window","concurrency","fair","pause"]},"queue":{"type":"string","description":"* stands for any text; every queue unless given"},"function":{"type":"string","description":"* stands for any text; every function unless given"},"key":{"type":"string","description":"each value has a limit of its own: args[N], kwargs.NAME, meta.NAME, queue, function"},"limit":{"type":"integer","minimum":1},"per":{"type":"number","description":"seconds"},"burst":{"type":"integer","minimum":1},"points":{"description":"a number, or a path into the job"},"scope":{"enum":["cluster","worker"]}}})";

constexpr std::string_view push_back_schema =
    R"({"type":"object","required":["seconds"],"properties":{"seconds":{"type":"integer","minimum":0,"maximum":31622400,"description":"0: no longer"},"key":{"type":"string","description":"of a limit with a key, as `limiters` shows it"}}})";

constexpr std::string_view suspend_schema =
    R"({"type":"object","properties":{"seconds":{"type":["integer","null"],"minimum":1,"maximum":31622400,"description":"only for so long"}}})";

constexpr std::string_view change_schema =
    R"({"type":"object","required":["status","state","changed"],"properties":{"status":{"type":"string"},"state":{"type":"string"},"changed":{"type":"boolean","description":"false: that was so already"}}})";

/// The body's fields, all of them known. An empty body has none.
json::object body_fields(const Request& request, std::initializer_list<std::string_view> known) {
    if (request.body.empty()) return {};
    const json::value body = request.json();
    if (!body.is_object()) throw HttpError(422, "the body must be an object");
    for (const auto& field : body.get_object()) {
        if (std::ranges::find(known, std::string_view(field.key())) == known.end())
            throw HttpError(
                422, fmt::format("{}: is not known", std::string_view(field.key()).substr(0, 80)));
    }
    return body.get_object();
}

/// Nothing where it is absent or null.
std::optional<std::chrono::seconds> seconds_field(const json::object& body, std::int64_t least) {
    const auto* value = body.if_contains("seconds");
    if (value == nullptr || value->is_null()) return std::nullopt;
    const auto* seconds = value->if_int64();
    if (seconds == nullptr || *seconds < least || *seconds > most_seconds)
        throw HttpError(
            422, fmt::format("seconds: must be a whole number from {} to {}", least, most_seconds));
    return std::chrono::seconds(*seconds);
}

Rule rule_of(const Request& request) {
    auto rule = parse_rule(request.path_param("name"), request.body);
    if (!rule) throw HttpError(422, rule.error().describe());
    return std::move(*rule);
}

/// Rules of other queues, and those of many, are not told to who may see some queues only.
bool may_see_rule(const Request& request, const Rule& rule) {
    return sees_all_queues(request) ||
           (!rule.queue.empty() && rule.queue.find('*') == std::string::npos &&
            may_see_queue(request, rule.queue));
}

/// The path's queue. @throws HttpError 404 for one that is not to be seen.
const std::string& visible_queue(const Request& request) {
    const std::string& name = request.path_param("name");
    if (!may_see_queue(request, name)) throw HttpError(404, "Queue not found");
    return name;
}

HttpError changed_meanwhile() {
    return {412, "It has been changed meanwhile: read it again", "changed"};
}

/// Whether there must be nothing yet.
bool if_none(const Request& request) {
    const auto header = request.header("If-None-Match");
    if (header && *header != "*") throw HttpError(422, "If-None-Match: must be *");
    return header.has_value();
}

asio::awaitable<Rule> find_rule(Rules rules, std::string name) {
    const auto listing = co_await rules.list();
    for (const auto& rule : listing.rules)
        if (rule.name == name) co_return rule;
    throw HttpError(404, "Limit not found");
}

json::object limit_json(const Request& request, const Rule& rule,
                        const std::vector<LimiterUse>& uses) {
    json::object limit = to_json(rule, uses);
    // Keys are arguments of jobs.
    if (redaction_of(request).all)
        for (auto& limiter : limit.at("limiters").as_array())
            if (auto& key = limiter.as_object().at("key"); key != "") key = hidden_text;
    return limit;
}

asio::awaitable<Response> show_limit(Rules rules, Request request) {
    const Rule rule = co_await find_rule(rules, request.path_param("name"));
    const auto uses = co_await rules.usage(1000, rule.name);
    Response response = json_response(
        200, json::object{{"status", "ok"}, {"limit", limit_json(request, rule, uses)}});
    response.headers = {{"ETag", fmt::format("\"{}\"", etag_of(rule))}};
    co_return response;
}

asio::awaitable<Response> list_limits(Rules rules, Request request) {
    const auto listing = co_await rules.list();
    const auto uses = co_await rules.usage();
    json::array limits, faults;
    for (const auto& rule : listing.rules) {
        if (!may_see_rule(request, rule)) continue;
        limits.push_back(limit_json(request, rule, uses));
    }
    for (const auto& fault : listing.faults) {
        if (!sees_all_queues(request)) break;
        faults.push_back(
            {{"name", to_json(Value(fault.field))}, {"detail", to_json(Value(fault.message))}});
    }
    co_return json_response(
        200, json::object{
                 {"status", "ok"}, {"limits", std::move(limits)}, {"faults", std::move(faults)}});
}

asio::awaitable<Response> push_back(Rules rules, Request request) {
    const auto body = body_fields(request, {"seconds", "key"});
    const auto delay = seconds_field(body, 0);
    if (!delay) throw HttpError(422, "seconds: is missing");
    std::string key;
    if (const auto* value = body.if_contains("key"); value != nullptr && !value->is_null()) {
        if (!value->is_string()) throw HttpError(422, "key: must be text");
        key = value->get_string();
    }
    const std::string& name = request.path_param("name");
    co_await rules.push_back(name, key, *delay);
    co_return json_response(
        200,
        json::object{{"status", "ok"}, {"name", name}, {"key", key}, {"seconds", delay->count()}});
}

Response changed(std::string_view what, const std::string& name, std::string_view state,
                 bool changed) {
    json::object answer{{"status", "ok"}};
    if (!what.empty()) answer[what] = to_json(Value(name));
    answer["state"] = state;
    answer["changed"] = changed;
    return json_response(200, answer);
}

}  // namespace

void add_rule_routes(Router& router, RedisClient& redis) {
    const auto add = [&](Method method, std::string pattern, std::string summary, RouteDoc doc,
                         std::function<asio::awaitable<Response>(Rules, Request)> handler) {
        doc.summary = std::move(summary);
        doc.tag = "rules";
        doc.problems.push_back(503);
        router.add(
            method, std::move(pattern), std::move(doc),
            [&redis, handler = std::move(handler)](Request request) -> asio::awaitable<Response> {
                redis.require_connection();
                co_return co_await handler(Rules(redis), std::move(request));
            });
    };

    RouteDoc listed;
    listed.keeps_to_queues = true;
    listed.response_schema =
        R"({"type":"object","required":["status","limits","faults"],"properties":{"status":{"type":"string"},"limits":{"type":"array","items":{"type":"object","required":["name","kind","limiters","etag"],"properties":{"etag":{"type":"string","description":"for If-Match, in quotes"}}}},"faults":{"type":"array","items":{"type":"object"},"description":"entries that nobody can read; they hold for none"}}})";
    add(Method::get, "/api/v1/limits", "Limits, pauses and shared queues, and how they stand",
        listed,
        [](Rules rules, Request request) { return list_limits(rules, std::move(request)); });

    RouteDoc shown;
    shown.problems = {404};
    add(Method::get, "/api/v1/limits/{name}", "One limit; its ETag is for If-Match", shown,
        show_limit);

    RouteDoc set;
    set.request_schema = rule_schema;
    set.problems = {412, 422};
    RouteDoc::Param match;
    match.name = "If-Match";
    match.in = "header";
    match.description = "only where this ETag is that of what is there; else 412";
    RouteDoc::Param none_match;
    none_match.name = "If-None-Match";
    none_match.in = "header";
    none_match.description = "*: only where there is no limit of this name; else 412";
    set.params = {match, none_match};
    set.action = "limit.set";
    add(Method::put, "/api/v1/limits/{name}", "Add or change a limit; it holds at once", set,
        [](Rules rules, Request request) -> asio::awaitable<Response> {
            const Rule rule = rule_of(request);
            json::object limit = to_json(rule);
            limit["name"] = rule.name;
            const auto etag = if_match(request);
            const bool is_new = if_none(request);
            if (etag && is_new) throw HttpError(422, "If-None-Match: does not go with If-Match");
            if (etag) {
                if (!co_await rules.replace(rule, *etag)) throw changed_meanwhile();
            } else if (is_new) {
                if (!co_await rules.add(rule))
                    throw HttpError(412, "There is a limit of this name", "exists");
            } else {
                co_await rules.set(rule);
            }
            Response response =
                json_response(200, json::object{{"status", "ok"}, {"limit", std::move(limit)}});
            response.headers = {{"ETag", fmt::format("\"{}\"", etag_of(rule))}};
            co_return response;
        });

    RouteDoc removed;
    removed.problems = {404, 412, 422};
    removed.params = {match};
    removed.action = "limit.remove";
    add(Method::delete_, "/api/v1/limits/{name}", "Take a limit away", removed,
        [](Rules rules, Request request) -> asio::awaitable<Response> {
            const std::string& name = request.path_param("name");
            if (const auto etag = if_match(request)) {
                const auto there = co_await find_rule(rules, name);
                if (!co_await rules.remove(name, *etag)) throw changed_meanwhile();
            } else if (!co_await rules.remove(name)) {
                throw HttpError(404, "Limit not found");
            }
            co_return json_response(200,
                                    json::object{{"status", "ok"}, {"name", to_json(Value(name))}});
        });

    RouteDoc pushed;
    pushed.request_schema = push_back_schema;
    pushed.problems = {404, 422};
    pushed.action = "limit.push-back";
    add(Method::post, "/api/v1/limits/{name}/push-back",
        "Let nothing pass a limit for a while, as after a 429", pushed, push_back);

    RouteDoc change;
    change.response_schema = change_schema;
    change.problems = {422};
    const auto acted = [&change](std::string action) {
        RouteDoc doc = change;
        doc.action = std::move(action);
        return doc;
    };
    const auto acted_on_queue = [&acted](std::string action) {
        RouteDoc doc = acted(std::move(action));
        doc.keeps_to_queues = true;
        doc.problems = {404, 422};
        return doc;
    };
    add(Method::post, "/api/v1/queues/{name}/pause",
        "Start no more jobs of a queue; stock RQ workers know nothing of it",
        acted_on_queue("queue.pause"),
        [](Rules rules, Request request) -> asio::awaitable<Response> {
            const std::string& name = visible_queue(request);
            co_return changed("queue", name, "paused", co_await rules.pause_queue(name));
        });
    add(Method::post, "/api/v1/queues/{name}/resume", "Go on with a queue that was paused",
        acted_on_queue("queue.resume"),
        [](Rules rules, Request request) -> asio::awaitable<Response> {
            const std::string& name = visible_queue(request);
            co_return changed("queue", name, "running", co_await rules.resume_queue(name));
        });
    add(Method::post, "/api/v1/functions/{name}/pause",
        "Start no more jobs of a function; stock RQ workers know nothing of it",
        acted("function.pause"), [](Rules rules, Request request) -> asio::awaitable<Response> {
            const std::string& name = request.path_param("name");
            co_return changed("function", name, "paused", co_await rules.pause_function(name));
        });
    add(Method::post, "/api/v1/functions/{name}/resume", "Go on with a function that was paused",
        acted("function.resume"), [](Rules rules, Request request) -> asio::awaitable<Response> {
            const std::string& name = request.path_param("name");
            co_return changed("function", name, "running", co_await rules.resume_function(name));
        });

    RouteDoc suspended = acted("workers.suspend");
    suspended.request_schema = suspend_schema;
    add(Method::post, "/api/v1/suspend", "Let no worker start a job, RQ's workers included",
        suspended, [](Rules rules, Request request) -> asio::awaitable<Response> {
            const auto seconds = seconds_field(body_fields(request, {"seconds"}), 1);
            co_return changed("", "", "suspended", co_await rules.suspend(seconds));
        });
    add(Method::post, "/api/v1/resume", "Let suspended workers go on", acted("workers.resume"),
        [](Rules rules, Request) -> asio::awaitable<Response> {
            co_return changed("", "", "running", co_await rules.resume());
        });
}

}  // namespace rqxx::http
