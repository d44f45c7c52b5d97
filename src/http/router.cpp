#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/url/decode_view.hpp>
#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>
#include <cassert>
#include <chrono>
#include <rqxx/error.hpp>
#include <rqxx/http/router.hpp>
#include <set>

#include "base/wildcard.hpp"
#include "http/reason.hpp"
#include "http/shared_answers.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

struct Route {
    Method method;
    std::string pattern;
    std::vector<std::string> segments;  ///< `{name}` for a parameter.
    RouteDoc doc;
    Handler handler;
    std::optional<std::uint64_t> streams;  ///< Most bytes of a body that is streamed.

    [[nodiscard]] static bool is_param(std::string_view segment) {
        return segment.starts_with('{');
    }
    [[nodiscard]] Scope scope() const {
        return doc.scope.value_or(method == Method::get ? Scope::read : Scope::operate);
    }
    /// Logging in and out changes nothing that anybody else sees.
    [[nodiscard]] bool changes() const {
        return scope() != Scope::none && (method != Method::get || scope() == Scope::operate);
    }
};

std::vector<std::string> split(std::string_view pattern) {
    std::vector<std::string> segments;
    pattern.remove_prefix(1);
    for (;;) {
        const auto slash = pattern.find('/');
        segments.emplace_back(pattern.substr(0, slash));
        if (slash == std::string_view::npos) return segments;
        pattern.remove_prefix(slash + 1);
    }
}

/// Decoded segments of a path as sent; an encoded slash stays within its segment.
std::optional<std::vector<std::string>> path_segments(std::string_view target) {
    const auto url = boost::urls::parse_origin_form(target);
    if (!url) return std::nullopt;
    std::vector<std::string> segments;
    for (const auto& segment : url->segments())
        segments.emplace_back(segment);
    if (segments.empty()) segments.emplace_back();
    return segments;
}

/// How well a route fits: literal segments count from the left. Nothing for no match.
std::optional<std::string> rank(const Route& route, const std::vector<std::string>& segments) {
    if (route.segments.size() != segments.size()) return std::nullopt;
    std::string rank;
    for (std::size_t i = 0; i < segments.size(); ++i) {
        const bool param = Route::is_param(route.segments[i]);
        if (param ? segments[i].empty() : route.segments[i] != segments[i]) return std::nullopt;
        rank += param ? '0' : '1';
    }
    return rank;
}

json::value schema(const std::string& text) {
    return text.empty() ? json::value(json::object{{"type", "object"}}) : json::parse(text);
}

json::object parameter(const RouteDoc::Param& param) {
    json::object type{{"type", param.type}};
    if (param.minimum) type["minimum"] = *param.minimum;
    if (param.maximum) type["maximum"] = *param.maximum;
    if (param.fallback) type["default"] = *param.fallback;
    json::object object{{"name", param.name},
                        {"in", param.in},
                        {"required", param.required || param.in == "path"},
                        {"schema", std::move(type)}};
    if (!param.description.empty()) object["description"] = param.description;
    return object;
}

/// What it takes to be told which methods a path has, or that it has none.
Scope scope_of(const std::vector<const Route*>& found) {
    const bool open = std::any_of(found.begin(), found.end(),
                                  [](const Route* route) { return route->scope() == Scope::none; });
    return open ? Scope::none : Scope::read;
}

constexpr std::size_t longest_details = 2000;

ActionRecord record_of(const Request& request, const RouteDoc& doc) {
    ActionRecord record;
    record.by = actor_of(request);
    record.action = doc.action;
    for (const auto& [name, value] : request.path_params)
        record.target += (record.target.empty() ? "" : "/") + value;
    if (const auto query = request.target.find('?'); query != std::string::npos)
        record.details = request.target.substr(query, longest_details);
    if (!request.body.empty())
        record.details +=
            (record.details.empty() ? "" : " ") + request.body.substr(0, longest_details);
    return record;
}

/// Nothing where the audit log is not concerned: nothing was there to act on.
std::string_view outcome_of(int status) {
    if (status == 202) return "accepted";
    if (status < 400) return "done";
    if (status == 403 || status == 409 || status == 412) return "refused";
    return status >= 500 ? "failed" : "";
}

/// A body that is there already.
class WholeBody : public BodyReader {
public:
    explicit WholeBody(std::string body) : body_(std::move(body)) {}
    asio::awaitable<std::string> read() override { co_return std::exchange(body_, {}); }

private:
    std::string body_;
};

/// A stream that ends with the right to read it.
class GuardedSource : public BodySource {
public:
    /// @param endless  its end means nothing; else it would mean that all has been said, and a
    /// source that is cut short throws instead.
    GuardedSource(std::shared_ptr<BodySource> source, Guard guard, Request request, Scope scope,
                  bool endless)
        : source_(std::move(source)),
          guard_(std::move(guard)),
          request_(std::move(request)),
          scope_(scope),
          endless_(endless),
          checked_(std::chrono::steady_clock::now()) {}

    asio::awaitable<std::string> next() override {
        std::string piece = co_await source_->next();
        const auto now = std::chrono::steady_clock::now();
        if (now - checked_ < std::chrono::milliseconds(900)) co_return piece;
        checked_ = now;
        try {
            co_await guard_(request_, scope_, false);
        } catch (const HttpError&) {
            if (!endless_) throw;
            piece.clear();
        } catch (const Error& error) {
            // Without Redis there is nothing to tell but that.
            if (error.retryable()) co_return piece;
            if (!endless_) throw;
            piece.clear();
        }
        co_return piece;
    }

private:
    std::shared_ptr<BodySource> source_;
    Guard guard_;
    Request request_;
    Scope scope_;
    bool endless_;
    std::chrono::steady_clock::time_point checked_;
};

}  // namespace

std::string_view to_string(Scope scope) noexcept {
    switch (scope) {
        case Scope::read:
            return "read";
        case Scope::operate:
            return "operate";
        case Scope::admin:
            return "admin";
        case Scope::none:
            break;
    }
    return "none";
}

std::optional<Scope> parse_scope(std::string_view word) noexcept {
    for (const Scope scope : {Scope::read, Scope::operate, Scope::admin})
        if (word == to_string(scope)) return scope;
    return std::nullopt;
}

bool Principal::may_see_queue(std::string_view queue) const noexcept {
    return std::any_of(queues.begin(), queues.end(), [&](const std::string& pattern) {
        return matches_wildcard(pattern, queue);
    });
}

bool Principal::sees_all_queues() const noexcept {
    return std::find(queues.begin(), queues.end(), "*") != queues.end();
}

bool may_see_queue(const Request& request, std::string_view queue) noexcept {
    return !request.principal || request.principal->may_see_queue(queue);
}

bool sees_all_queues(const Request& request) noexcept {
    return !request.principal || request.principal->sees_all_queues();
}

std::vector<std::string> visible_queues(const Request& request) {
    if (sees_all_queues(request)) return {};
    // Nobody's queue has no name.
    if (request.principal->queues.empty()) return {std::string()};
    return request.principal->queues;
}

const Redaction& redaction_of(const Request& request) noexcept {
    static const Redaction nothing;
    return request.principal ? request.principal->redaction : nothing;
}

struct Router::Impl {
    explicit Impl(Logger& log_) : log(log_) {}

    Logger& log;
    std::vector<Route> routes;
    std::function<asio::awaitable<void>(ActionRecord)> action_observer;
    SharedAnswers shared;

    /// The routes of the pattern that fits best, one per method.
    [[nodiscard]] std::vector<const Route*> match(const std::vector<std::string>& segments) const {
        std::string best;
        std::vector<const Route*> found;
        for (const auto& route : routes) {
            const auto fit = rank(route, segments);
            if (!fit || *fit < best) continue;
            if (*fit > best) found.clear();
            best = *fit;
            found.push_back(&route);
        }
        return found;
    }

    static std::string allowed(const std::vector<const Route*>& found) {
        std::set<std::string_view> methods{"OPTIONS"};
        for (const auto* route : found) {
            methods.insert(to_string(route->method));
            if (route->method == Method::get) methods.insert("HEAD");
        }
        return fmt::format("{}", fmt::join(methods, ", "));
    }

    /// No route, or none for this method.
    static Response nothing_here(const Request& request, const std::vector<const Route*>& found) {
        if (found.empty()) return problem_response(request, 404, "There is nothing at this path");
        const std::string allow = allowed(found);
        if (request.method != Method::options)
            return refuse(request, HttpError(405, fmt::format("Allowed here: {}", allow), {},
                                             {{"Allow", allow}}));
        Response response;
        response.status = 204;
        response.headers = {{"Allow", allow}};
        return response;
    }

    static Response refuse(const Request& request, const HttpError& error) {
        Response response = problem_response(request, error.status(), error.detail(), error.code());
        for (const auto& header : error.headers())
            response.headers.push_back(header);
        return response;
    }

    Response failed(const Request& request, const Error& error) const {
        if (error.retryable() || error.code() == Errc::authentication)
            return refuse(request, HttpError(503, "Redis is not available", "redis_unavailable",
                                             {{"Retry-After", "1"}}));
        if (error.code() == Errc::usage) return problem_response(request, 422, error.message());
        if (error.code() == Errc::not_found) return problem_response(request, 404, error.message());
        log.error("Request failed", "id", request.request_id, "path", request.path, "error",
                  error.message());
        return problem_response(request, 500, "The server could not do this; its log says why",
                                to_string(error.code()));
    }
};

Router::Router(Logger& log) : impl_(std::make_unique<Impl>(log)) {}
Router::~Router() = default;

void Router::add(Method method, std::string pattern, RouteDoc doc, Handler handler) {
    assert(pattern.starts_with('/'));
    assert(std::none_of(impl_->routes.begin(), impl_->routes.end(), [&](const Route& route) {
        return route.method == method && route.pattern == pattern;
    }));
    auto segments = split(pattern);
    impl_->routes.push_back(
        {method, std::move(pattern), std::move(segments), std::move(doc), std::move(handler), {}});
}

void Router::add_streaming(Method method, std::string pattern, std::uint64_t max_bytes,
                           RouteDoc doc, Handler handler) {
    add(method, std::move(pattern), std::move(doc), std::move(handler));
    impl_->routes.back().streams = max_bytes;
}

std::optional<std::uint64_t> Router::streams(Method method, std::string_view target) const {
    const auto segments = path_segments(target);
    if (!segments) return std::nullopt;
    for (const auto* route : impl_->match(*segments))
        if (route->method == method) return route->streams;
    return std::nullopt;
}

asio::awaitable<Response> Router::dispatch(Request request, Guard guard) const {
    if (request.target.empty()) request.target = request.path;
    const auto segments = path_segments(request.target);
    if (!segments || !parse_target(request))
        co_return problem_response(request, 400, "The request target is malformed");
    const auto found = impl_->match(*segments);
    const Method wanted = request.method == Method::head ? Method::get : request.method;
    const Route* route = nullptr;
    for (const auto* candidate : found) {
        if (candidate->method == wanted) route = candidate;
    }
    // What an error answer says of the request; the handler gets the rest.
    Request outline;
    outline.path = request.path;
    outline.request_id = request.request_id;
    std::optional<ActionRecord> record;
    Response response;
    try {
        if (guard) {
            co_await guard(request, route != nullptr ? route->scope() : scope_of(found),
                           route != nullptr && route->changes());
            if (route != nullptr && route->scope() != Scope::none && !route->doc.keeps_to_queues &&
                !sees_all_queues(request))
                throw HttpError(403, "This is for those who may see all queues", "all_queues");
        }
        if (route == nullptr) co_return Impl::nothing_here(request, found);
        for (std::size_t i = 0; i < segments->size(); ++i) {
            const std::string& name = route->segments[i];
            if (Route::is_param(name))
                request.path_params.emplace_back(name.substr(1, name.size() - 2), (*segments)[i]);
        }
        if (!route->doc.action.empty() && impl_->action_observer)
            record = record_of(request, route->doc);
        if (route->streams && !request.stream)
            request.stream = std::make_shared<WholeBody>(std::move(request.body));
        std::optional<Request> again;
        if (guard) {
            again = outline;
            again->headers = request.headers;
            again->remote = request.remote;
        }
        const bool shares = route->scope() != Scope::none && !route->changes() &&
                            !route->doc.personal && SharedAnswers::takes_shared(request);
        response = shares ? co_await impl_->shared.get(std::move(request), route->handler)
                          : co_await route->handler(std::move(request));
        if (again && response.source)
            response.source = std::make_shared<GuardedSource>(
                std::move(response.source), std::move(guard), std::move(*again), route->scope(),
                route->doc.response_type == "text/event-stream");
    } catch (const HttpError& error) {
        response = Impl::refuse(outline, error);
    } catch (const Error& error) {
        response = impl_->failed(outline, error);
    } catch (const Cancelled&) {
        response = problem_response(outline, 503, "The server is stopping");
    } catch (const std::exception& error) {
        response = impl_->failed(outline, Error(Errc::internal, error.what()));
    }
    // Who changes something sees it at once.
    if (route != nullptr && route->changes()) impl_->shared.forget();
    if (record) {
        record->outcome = response.dry_run ? "" : outcome_of(response.status);
        if (!record->outcome.empty()) co_await impl_->action_observer(std::move(*record));
    }
    co_return response;
}

void Router::on_action(std::function<asio::awaitable<void>(ActionRecord)> observer) {
    impl_->action_observer = std::move(observer);
}

void Router::forget_shared() const {
    impl_->shared.forget();
}

std::string_view Router::pattern_of(Method, std::string_view target) const {
    const auto segments = path_segments(target);
    if (!segments) return {};
    const auto found = impl_->match(*segments);
    return found.empty() ? std::string_view() : std::string_view(found.front()->pattern);
}

json::object Router::openapi(std::string_view title, std::string_view version) const {
    const auto problem = [](int status) {
        return json::object{{"description", reason(status)},
                            {"content",
                             {{"application/problem+json",
                               {{"schema", {{"$ref", "#/components/schemas/Problem"}}}}}}}};
    };
    json::object paths;
    std::vector<const Route*> sorted;
    for (const auto& route : impl_->routes) {
        if (!route.doc.hidden) sorted.push_back(&route);
    }
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const Route* a, const Route* b) { return a->pattern < b->pattern; });
    for (const auto* route : sorted) {
        const RouteDoc& doc = route->doc;
        json::array parameters;
        for (const auto& segment : route->segments) {
            if (!Route::is_param(segment)) continue;
            RouteDoc::Param param;
            param.name = segment.substr(1, segment.size() - 2);
            param.in = "path";
            parameters.push_back(parameter(param));
        }
        for (const auto& param : doc.params)
            parameters.push_back(parameter(param));
        json::object good{{"description", reason(doc.good_status)}};
        if (doc.good_status != 204)
            good["content"] = {{doc.response_type, {{"schema", schema(doc.response_schema)}}}};
        json::object responses{{std::to_string(doc.good_status), std::move(good)}};
        if (!doc.accepted_schema.empty())
            responses["202"] = json::object{
                {"description", reason(202)},
                {"content", {{"application/json", {{"schema", schema(doc.accepted_schema)}}}}}};
        for (const int status : doc.problems)
            responses[std::to_string(status)] = problem(status);
        if (route->scope() != Scope::none) {
            responses["401"] = problem(401);
            responses["403"] = problem(403);
            responses["429"] = problem(429);
            responses["503"] = problem(503);
        }
        responses["default"] = problem(500);
        json::object operation{{"summary", doc.summary}, {"responses", std::move(responses)}};
        if (!doc.tag.empty()) operation["tags"] = json::array{doc.tag};
        if (!parameters.empty()) operation["parameters"] = std::move(parameters);
        if (doc.deprecated) operation["deprecated"] = true;
        if (route->scope() == Scope::none) {
            operation["security"] = json::array{};
        } else {
            const json::array scopes{to_string(route->scope())};
            operation["security"] =
                json::array{json::object{{"token", scopes}}, json::object{{"session", scopes}}};
        }
        if (!doc.request_schema.empty())
            operation["requestBody"] = json::object{
                {"content", {{doc.request_type, {{"schema", schema(doc.request_schema)}}}}}};
        std::string method(to_string(route->method));
        for (char& c : method)
            c = static_cast<char>(c + 32);
        auto& path = paths[route->pattern];
        if (!path.is_object()) path = json::object();
        path.as_object()[method] = std::move(operation);
    }
    return {{"openapi", "3.1.0"},
            {"info", {{"title", title}, {"version", version}}},
            {"paths", std::move(paths)},
            {"components",
             {{"securitySchemes",
               {{"token", {{"type", "http"}, {"scheme", "bearer"}}},
                {"session", {{"type", "apiKey"}, {"in", "cookie"}, {"name", "rqxx_session"}}}}},
              {"schemas",
               {{"Problem",
                 {{"type", "object"},
                  {"required", json::array{"title", "status", "detail"}},
                  {"properties",
                   {{"type", {{"type", "string"}}},
                    {"title", {{"type", "string"}}},
                    {"status", {{"type", "integer"}}},
                    {"detail", {{"type", "string"}}},
                    {"instance", {{"type", "string"}}},
                    {"request_id", {{"type", "string"}}},
                    {"code", {{"type", "string"}}}}}}}}}}}};
}

}  // namespace rqxx::http
