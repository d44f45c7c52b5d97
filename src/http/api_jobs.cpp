#include <fmt/format.h>

#include <boost/json/object.hpp>

#include "base/utf8.hpp"
#include "http/api.hpp"
#include "http/job_request.hpp"
#include "ops/job_description.hpp"
#include "runtime/job_lines.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

json::value text_or_null(const std::string& text) {
    return text.empty() ? json::value() : json::value(text);
}

void check_allowed(const std::string& function, const std::vector<std::string>& allowed) {
    if (!runtime::is_allowed(allowed, function))
        throw HttpError(403,
                        fmt::format("func: \"{}\" may not be enqueued over HTTP here",
                                    to_valid_utf8(function.substr(0, 80))),
                        "function_not_allowed");
}

/// Who may see some queues only neither fills others nor overwrites their jobs.
void check_queue(const Request& request, ops::EnqueueRequest& asked) {
    if (sees_all_queues(request)) return;
    if (asked.priority || !may_see_queue(request, asked.queue))
        throw HttpError(403,
                        asked.priority ? "priority: its queues are for those who may see all"
                                       : "queue: is none of those that you may see",
                        "queue_not_allowed");
    const auto& dedup = asked.options.dedup;
    if (dedup && (dedup->mode == DedupMode::replace || dedup->mode == DedupMode::debounce))
        throw HttpError(403,
                        "dedup: replace and debounce may take the place of another queue's job; "
                        "that is for those who may see all",
                        "queue_not_allowed");
    if (!asked.options.job_id.empty()) asked.options.unique = true;
}

asio::awaitable<Response> enqueue_job(RedisClient& redis, Logger& log, Request request,
                                      const std::vector<std::string>& functions) {
    ops::EnqueueRequest asked = ops::read_job(request.body, ops::JobForm::request);
    check_allowed(asked.call.func_name, functions);
    check_queue(request, asked);
    asked.options.idempotency = parse_idempotency(request);
    redis.require_connection();
    const Enqueued enqueued = co_await ops::enqueue(redis, log, asked);
    Response response =
        enqueued.duplicate
            ? problem_response(request, 409, ops::refusal(enqueued, asked), "duplicate",
                               {{"job_id", enqueued.job_id},
                                {"job_status", text_or_null(enqueued.status)},
                                {"duplicate", true}})
            : json_response(201, json::object{{"job_id", enqueued.job_id},
                                              {"status", enqueued.status},
                                              {"duplicate", false},
                                              {"replaced", enqueued.replaced}});
    response.headers = {{"Location", fmt::format("/api/v1/jobs/{}", enqueued.job_id)}};
    if (enqueued.repeated) response.headers.emplace_back("Idempotent-Replayed", "true");
    co_return response;
}

}  // namespace

void add_job_routes(Router& router, RedisClient& redis, EnqueueRights rights, Logger& log) {
    if (!rights.any) return;
    RouteDoc doc;
    doc.summary = "Enqueue a job";
    doc.tag = "jobs";
    doc.good_status = 201;
    doc.keeps_to_queues = true;
    doc.problems = {403, 409, 413, 422, 503};
    doc.request_schema = job_request_schema();
    doc.response_schema =
        R"({"type":"object","required":["job_id","status","duplicate","replaced"],"properties":{"job_id":{"type":"string"},"status":{"enum":["queued","scheduled","deferred"]},"duplicate":{"type":"boolean","description":"always false here; true in the problem of 409, which names the job that is in the way"},"replaced":{"type":"boolean","description":"it took the place of a job that waited"}}})";
    RouteDoc::Param key;
    key.name = "Idempotency-Key";
    key.in = "header";
    key.description =
        "makes the request safe to repeat: within 24 hours the same key with the same body is "
        "answered the same, without a second job";
    doc.params = {key};
    router.add(Method::post, "/api/v1/jobs", std::move(doc),
               [&redis, &log, functions = std::move(rights.functions)](Request request) {
                   return enqueue_job(redis, log, std::move(request), functions);
               });
}

}  // namespace rqxx::http
