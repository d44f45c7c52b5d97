#include <fmt/format.h>

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include <web_files.hpp>
#include "http/api.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

/// A worker waits at most 30 s for a job before it asks again.
constexpr auto poll_is_recent = 60s;

std::string_view content_type(std::string_view name) {
    if (name.ends_with(".html")) return "text/html; charset=utf-8";
    if (name.ends_with(".css")) return "text/css; charset=utf-8";
    if (name.ends_with(".js")) return "text/javascript; charset=utf-8";
    if (name.ends_with(".svg")) return "image/svg+xml";
    return "application/octet-stream";
}

}  // namespace

void add_health_routes(
    Router& router, RedisClient& redis,
    std::function<std::optional<std::chrono::steady_clock::time_point>()> last_poll) {
    RouteDoc live;
    live.summary = "Whether the process answers";
    live.tag = "system";
    live.scope = Scope::none;
    router.add(Method::get, "/healthz", live, [](Request) -> asio::awaitable<Response> {
        co_return json_response(200, json::object{{"status", "ok"}});
    });

    RouteDoc ready;
    ready.summary = "Whether Redis answers and the worker polls";
    ready.tag = "system";
    ready.scope = Scope::none;
    ready.problems = {503};
    router.add(Method::get, "/readyz", ready,
               [&redis, last_poll = std::move(last_poll)](Request) -> asio::awaitable<Response> {
                   std::string problem;
                   if (!redis.connected()) {
                       problem = "Redis is not available";
                   } else {
                       try {
                           Pipeline ping;
                           ping.add("PING");
                           co_await redis.run_one(std::move(ping), 2s);
                       } catch (const Error&) {
                           problem = "Redis does not answer";
                       }
                   }
                   json::object answer{{"status", "ok"}, {"redis", "ok"}};
                   if (const auto poll = last_poll()) {
                       const Seconds age = std::chrono::steady_clock::now() - *poll;
                       answer["last_poll_seconds"] = std::round(age.count() * 1000) / 1000;
                       if (problem.empty() && age > poll_is_recent)
                           problem = fmt::format("the worker last heard from Redis {} s ago",
                                                 format_seconds(age));
                   }
                   if (!problem.empty())
                       throw HttpError(503, problem, "not_ready", {{"Retry-After", "1"}});
                   co_return json_response(200, answer);
               });
}

void add_openapi_route(Router& router) {
    RouteDoc doc;
    doc.summary = "This document";
    doc.tag = "system";
    doc.keeps_to_queues = true;
    router.add(Method::get, "/api/v1/openapi.json", doc,
               [&router](Request) -> asio::awaitable<Response> {
                   co_return json_response(200, router.openapi("rqxx", RQXX_VERSION));
               });
}

void add_page_routes(Router& router) {
    RouteDoc hidden;
    hidden.hidden = true;
    hidden.scope = Scope::none;
    for (const auto& file : web_files()) {
        const std::string path =
            file.name == "index.html" ? "/" : fmt::format("/assets/{}", file.name);
        router.add(Method::get, path, hidden, [file](Request request) -> asio::awaitable<Response> {
            Response response;
            response.content_type = content_type(file.name);
            response.headers = {{"ETag", std::string(file.etag)}, {"Cache-Control", "no-cache"}};
            if (request.header("If-None-Match") == file.etag)
                response.status = 304;
            else
                response.static_body = file.body;
            co_return response;
        });
    }
}

}  // namespace rqxx::http
