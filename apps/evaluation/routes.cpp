#include "evaluation/routes.hpp"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <rqxx/error.hpp>
#include <set>

namespace evaluation {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace rqxx;
using http::HttpError;
using http::Method;
using http::Request;
using http::Response;
using http::RouteDoc;

constexpr std::size_t max_comments = 1000;
constexpr std::size_t max_evaluations = 10000;

/// Runs `function` on the pool and comes back with its result: SQLite and files must not hold up
/// the thread that serves everybody.
template <class Function>
asio::awaitable<std::invoke_result_t<Function>> run_blocking(asio::thread_pool& pool,
                                                             Function function) {
    using Result = std::invoke_result_t<Function>;
    // A coroutine of the pool's own: one that only awaits something there comes back before it
    // goes on.
    const auto there = [](Function work) -> asio::awaitable<Result> { co_return work(); };
    co_return co_await asio::co_spawn(pool.get_executor(), there(std::move(function)),
                                      asio::use_awaitable);
}

json::object body_object(const Request& request) {
    const json::value body = request.json();
    if (!body.is_object()) throw HttpError(422, "the body must be an object");
    return body.get_object();
}

std::string text_field(const json::object& body, std::string_view name) {
    const auto* value = body.if_contains(name);
    if (value == nullptr) throw HttpError(422, fmt::format("{} is missing", name));
    if (value->is_int64()) return std::to_string(value->get_int64());
    if (!value->is_string() || value->get_string().empty() || value->get_string().size() > 200)
        throw HttpError(422, fmt::format("{} must be a string of 1 to 200 bytes", name));
    return std::string(value->get_string());
}

json::object to_json(const Session& session) {
    json::object object{{"session_id", session.id},
                        {"candidate_id", session.candidate_id},
                        {"mr_package", session.mr_package},
                        {"created_at", session.created_at},
                        {"comment_count", session.comment_count},
                        {"last_report", nullptr}};
    if (session.score)
        object["last_report"] = json::object{{"score", *session.score}, {"grade", *session.grade}};
    return object;
}

std::vector<Remark> parse_comments(const json::value& body) {
    const bool one = body.is_object();
    if (!one && !body.is_array())
        throw HttpError(422, "the body must be a comment or a list of comments");
    std::vector<Remark> comments;
    const auto parse = [&](const json::value& item) {
        try {
            comments.push_back(parse_remark(item));
        } catch (const Error& error) {
            throw HttpError(
                422, one ? error.message()
                         : fmt::format("comment {}: {}", comments.size() + 1, error.message()));
        }
    };
    if (one) {
        parse(body);
        return comments;
    }
    const auto& list = body.get_array();
    if (list.empty()) throw HttpError(422, "the list of comments is empty");
    if (list.size() > max_comments)
        throw HttpError(422, fmt::format("more than {} comments in one request", max_comments));
    for (const auto& item : list)
        parse(item);
    return comments;
}

OptimizedOptions parse_options(const json::object& body) {
    OptimizedOptions options;
    for (const auto& [key, value] : body) {
        if (key != "priority" && key != "timeout" && key != "retry")
            throw HttpError(422,
                            fmt::format("unknown field \"{}\"; known are priority, timeout, retry",
                                        std::string_view(key).substr(0, 40)));
        if (value.is_null()) continue;
        if (key == "priority") {
            const auto priority =
                value.is_string()
                    ? parse_priority(std::string_view(value.get_string()))
                    : Parsed<Priority>(ParseError("must be one of high, normal, low"));
            if (!priority)
                throw HttpError(422, fmt::format("priority: {}", priority.error().message));
            options.priority = *priority;
        } else if (key == "timeout") {
            if (value.is_int64()) {
                options.timeout = std::chrono::seconds(value.get_int64());
            } else {
                const auto duration =
                    value.is_string()
                        ? parse_duration(std::string_view(value.get_string()))
                        : Parsed<std::chrono::seconds>(ParseError("must be a number of seconds"));
                if (!duration)
                    throw HttpError(422, fmt::format("timeout: {}", duration.error().message));
                options.timeout = *duration;
            }
        } else {
            if (!value.is_int64()) throw HttpError(422, "retry must be an integer from 0 to 100");
            options.retry = value.get_int64();
        }
    }
    (void)resolve_policy(options);  // Refuses what is out of range, naming it.
    return options;
}

std::vector<std::string> take_session_ids(json::object& body) {
    const auto* list = body.if_contains("session_ids");
    if (list == nullptr || !list->is_array() || list->get_array().empty() ||
        list->get_array().size() > max_evaluations)
        throw HttpError(422,
                        fmt::format("session_ids must be a list of 1 to {} ids", max_evaluations));
    std::vector<std::string> ids;
    std::set<std::string_view> seen;
    ids.reserve(list->get_array().size());
    for (const auto& item : list->get_array()) {
        if (item.is_int64())
            ids.push_back(std::to_string(item.get_int64()));
        else if (item.is_string() && item.get_string().size() <= 200)
            ids.emplace_back(item.get_string());
        else
            throw HttpError(422, "session_ids: each must be a string of at most 200 bytes");
        if (!seen.insert(ids.back()).second)
            throw HttpError(422, fmt::format("session_ids: {} is given twice", ids.back()));
    }
    body.erase("session_ids");
    return ids;
}

RouteDoc describe(std::string summary, int good_status, std::vector<int> problems) {
    RouteDoc doc;
    doc.summary = std::move(summary);
    doc.tag = "evaluation";
    doc.good_status = good_status;
    doc.problems = std::move(problems);
    return doc;
}

/// The routes' handlers, and what they share.
class Routes {
public:
    Routes(Store& store, const Packages& packages, OptimizedQueue& queue,
           asio::thread_pool& blocking)
        : store_(store), packages_(packages), queue_(queue), blocking_(blocking) {}

    asio::awaitable<Response> create(Request request) {
        const auto body = body_object(request);
        std::string candidate = text_field(body, "candidate_id");
        std::string package = text_field(body, "mr_package");
        const std::string id = co_await run_blocking(blocking_, [&] {
            if (!packages_.has(package))
                throw HttpError(422,
                                fmt::format("mr_package: there is no package \"{}\"", package));
            return store_.add_session(candidate, package);
        });
        Response response = http::json_response(201, json::object{{"session_id", id}});
        response.headers = {{"Location", fmt::format("/api/sessions/{}", id)}};
        co_return response;
    }

    asio::awaitable<Response> list(Request request) {
        const auto limit = request.query_integer("limit", 50, 1, 500);
        const auto sessions =
            co_await run_blocking(blocking_, [&] { return store_.sessions(limit); });
        json::array items;
        for (const auto& session : sessions)
            items.push_back(to_json(session));
        const std::size_t count = items.size();
        co_return http::json_response(
            200, json::object{{"sessions", std::move(items)}, {"count", count}});
    }

    asio::awaitable<Response> show(Request request) {
        const std::string& id = request.path_param("session_id");
        const Session session = co_await find(id);
        const auto comments = co_await run_blocking(blocking_, [&] { return store_.comments(id); });
        json::array items;
        for (const auto& comment : comments) {
            json::object item = evaluation::to_json(static_cast<const Remark&>(comment));
            item["id"] = comment.id;
            item["created_at"] = comment.created_at;
            items.push_back(std::move(item));
        }
        json::object answer = to_json(session);
        answer["comments"] = std::move(items);
        co_return http::json_response(200, answer);
    }

    asio::awaitable<Response> comment(Request request) {
        const std::string& id = request.path_param("session_id");
        co_await find(id);
        const auto comments = parse_comments(request.json());
        const auto ids =
            co_await run_blocking(blocking_, [&] { return store_.add_comments(id, comments); });
        json::array list(ids.begin(), ids.end());
        co_return http::json_response(
            201, json::object{{"count", ids.size()}, {"comment_ids", std::move(list)}});
    }

    asio::awaitable<Response> report(Request request) {
        const std::string& id = request.path_param("session_id");
        co_await find(id);
        const auto report = co_await run_blocking(blocking_, [&] { return store_.report(id); });
        if (!report) throw HttpError(404, "No report yet");
        Response response;
        response.body = *report;
        co_return response;
    }

    asio::awaitable<Response> evaluate(Request request) {
        const std::string& id = request.path_param("session_id");
        co_await find(id);
        const OptimizedOptions options =
            request.body.empty() ? OptimizedOptions() : parse_options(body_object(request));
        queue_.require_connection();
        const Enqueued job = co_await queue_.enqueue_evaluation(id, options);
        Response response = http::json_response(202, json::object{{"job_id", job.job_id}});
        response.headers = {{"Location", fmt::format("/api/rq/jobs/{}", job.job_id)}};
        co_return response;
    }

    asio::awaitable<Response> evaluate_many(Request request) {
        json::object body = body_object(request);
        const auto ids = take_session_ids(body);
        const OptimizedOptions options = parse_options(body);
        co_await run_blocking(blocking_, [&] {
            for (const auto& id : ids)
                if (!store_.session(id))
                    throw HttpError(404, fmt::format("Session {} not found", id));
            return true;
        });
        queue_.require_connection();
        const EnqueuedBatch batch = co_await queue_.enqueue_evaluations(ids, options);
        json::array job_ids(batch.job_ids.begin(), batch.job_ids.end());
        Response response = http::json_response(
            202, json::object{{"batch_id", batch.batch_id}, {"job_ids", std::move(job_ids)}});
        response.headers = {{"Location", fmt::format("/api/rq/batches/{}", batch.batch_id)}};
        co_return response;
    }

    asio::awaitable<Response> evaluate_legacy(Request request) {
        if (request.from_another_site()) throw http::cross_site_refusal();
        const std::string& id = request.path_param("session_id");
        co_await find(id);
        Response response = http::json_response(200, json::object{});
        // A HEAD asks what a GET would say; it must not start anything.
        if (request.method == Method::get) {
            queue_.require_connection();
            const Enqueued job = co_await queue_.enqueue_evaluation(id, {});
            response = http::json_response(200, json::object{{"job_id", job.job_id}});
        }
        response.headers = {
            {"Deprecation", "true"},
            {"Link",
             fmt::format("</api/reviewer/sessions/{}/evaluate>; rel=\"successor-version\"", id)}};
        co_return response;
    }

private:
    asio::awaitable<Session> find(std::string id) {
        auto session = co_await run_blocking(blocking_, [&] { return store_.session(id); });
        if (!session) throw HttpError(404, "Session not found");
        co_return std::move(*session);
    }

    Store& store_;
    const Packages& packages_;
    OptimizedQueue& queue_;
    asio::thread_pool& blocking_;
};

}  // namespace

void add_routes(http::Router& router, Store& store, const Packages& packages, OptimizedQueue& queue,
                asio::thread_pool& blocking, bool legacy_evaluate) {
    const auto routes = std::make_shared<Routes>(store, packages, queue, blocking);
    const auto add = [&](Method method, std::string pattern, RouteDoc doc,
                         asio::awaitable<Response> (Routes::*handler)(Request)) {
        router.add(method, std::move(pattern), std::move(doc), [routes, handler](Request request) {
            return ((*routes).*handler)(std::move(request));
        });
    };
    RouteDoc create = describe("Begin a review session", 201, {422});
    create.request_schema =
        R"({"type":"object","required":["candidate_id","mr_package"],"properties":{"candidate_id":{"type":"string"},"mr_package":{"type":"string"}}})";
    create.response_schema =
        R"({"type":"object","required":["session_id"],"properties":{"session_id":{"type":"string"}}})";
    add(Method::post, "/api/reviewer/sessions", create, &Routes::create);

    RouteDoc list = describe("The newest sessions", 200, {422});
    RouteDoc::Param limit;
    limit.name = "limit";
    limit.type = "integer";
    limit.minimum = 1;
    limit.maximum = 500;
    limit.fallback = 50;
    list.params = {limit};
    add(Method::get, "/api/reviewer/sessions", list, &Routes::list);
    add(Method::get, "/api/sessions/{session_id}",
        describe("A session and its comments", 200, {404}), &Routes::show);

    RouteDoc comment =
        describe("Add comments, one or a list; all of a list or none", 201, {404, 422});
    constexpr std::string_view remark =
        R"({"type":"object","required":["file","line_range","type","text"],"properties":{"file":{"type":"string"},"line_range":{"type":"array","items":{"type":"integer","minimum":1},"minItems":2,"maxItems":2},"type":{"type":"string"},"text":{"type":"string"}}})";
    comment.request_schema =
        fmt::format(R"({{"oneOf":[{0},{{"type":"array","items":{0}}}]}})", remark);
    add(Method::post, "/api/sessions/{session_id}/comments", comment, &Routes::comment);
    add(Method::get, "/api/sessions/{session_id}/report", describe("The last report", 200, {404}),
        &Routes::report);

    RouteDoc evaluate = describe("Evaluate a session in the background", 202, {404, 422, 503});
    evaluate.request_schema =
        R"({"type":"object","properties":{"priority":{"enum":["high","normal","low",null]},"timeout":{"type":["integer","string","null"]},"retry":{"type":["integer","null"],"minimum":0,"maximum":100}},"additionalProperties":false})";
    evaluate.response_schema =
        R"({"type":"object","required":["job_id"],"properties":{"job_id":{"type":"string"}}})";
    add(Method::post, "/api/reviewer/sessions/{session_id}/evaluate", evaluate, &Routes::evaluate);
    RouteDoc many =
        describe("Evaluate sessions in the background, as one batch", 202, {404, 422, 503});
    many.request_schema =
        R"({"type":"object","required":["session_ids"],"properties":{"session_ids":{"type":"array","items":{"type":["string","integer"]},"minItems":1,"maxItems":10000},"priority":{"enum":["high","normal","low",null]},"timeout":{"type":["integer","string","null"]},"retry":{"type":["integer","null"],"minimum":0,"maximum":100}},"additionalProperties":false})";
    many.response_schema =
        R"({"type":"object","required":["batch_id","job_ids"],"properties":{"batch_id":{"type":"string"},"job_ids":{"type":"array","items":{"type":"string"}}}})";
    add(Method::post, "/api/reviewer/sessions/evaluate", many, &Routes::evaluate_many);
    if (!legacy_evaluate) return;
    RouteDoc legacy =
        describe("Evaluate a session in the background (old form)", 200, {403, 404, 503});
    legacy.deprecated = true;
    legacy.scope = http::Scope::operate;  // It changes something, whatever its method says.
    legacy.response_schema = evaluate.response_schema;
    add(Method::get, "/api/sessions/{session_id}/evaluate", legacy, &Routes::evaluate_legacy);
}

}  // namespace evaluation
