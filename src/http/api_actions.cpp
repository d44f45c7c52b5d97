#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <rqxx/actions.hpp>
#include <rqxx/operations.hpp>
#include <rqxx/value.hpp>

#include "base/utf8.hpp"
#include "http/api.hpp"
#include "http/request_values.hpp"
#include "ops/keys.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

constexpr std::size_t most_ids = 1000;

constexpr std::string_view result_schema =
    R"({"type":"object","required":["job_id","code","status","dependents"],"properties":{"job_id":{"type":"string"},"code":{"enum":["done","refused","no_such_job"]},"status":{"type":["string","null"],"description":"that the job had"},"dependents":{"type":"integer","description":"jobs concerned with it, or left waiting for it"},"listens":{"type":"boolean","description":"of stop: its worker has heard of it, or will by its next heartbeat"},"acknowledges":{"type":"boolean","description":"of stop: its worker notes when it has read the request"}}})";

constexpr std::string_view dependents_schema =
    R"({"enum":["leave","enqueue","cascade"],"description":"what becomes of jobs that wait for it; leave unless given"})";

constexpr std::string_view filter_schema =
    R"({"type":"object","additionalProperties":false,"minProperties":1,"description":"as the parameters of GET /api/v1/jobs; what is more than one status (none of stopped and rate_limited), whole queue, func and error needs the index","properties":{"queue":{"type":"string","description":"* stands for any text; every queue unless given"},"status":{"type":"string"},"func":{"type":"string","description":"* stands for any text"},"error":{"type":"string","description":"part of the last line of the error, in any case"},"group":{"type":"string","description":"of failures"},"worker":{"type":"string"},"tag":{"type":"string"},"id":{"type":"string","description":"its beginning"},"since":{"type":"string","description":"created at or after"},"until":{"type":"string","description":"created before"},"min_duration":{"type":"number"},"max_duration":{"type":"number"}}})";

constexpr std::string_view operation_schema =
    R"({"type":"object","required":["id","action","state","looked_at","matched","done","refused","total","started_at","ended_at","by","error"],"properties":{"id":{"type":"string"},"action":{"type":"string"},"state":{"type":"string","description":"running, done, canceled, failed or interrupted: its server stopped or died, and asking again does what is left"},"filter":{"type":["object","null"]},"looked_at":{"type":"integer"},"total":{"type":"integer"},"matched":{"type":"integer"},"done":{"type":"integer"},"refused":{"type":"integer"},"started_at":{"type":["string","null"],"format":"date-time"},"ended_at":{"type":["string","null"],"format":"date-time"},"by":{"type":["string","null"]},"canceled_by":{"type":["string","null"]},"error":{"type":["string","null"]}}})";

std::string_view word(ActionResult::Code code) {
    switch (code) {
        case ActionResult::Code::done:
            return "done";
        case ActionResult::Code::refused:
            return "refused";
        case ActionResult::Code::no_such_job:
            break;
    }
    return "no_such_job";
}

json::object result_json(const ActionResult& result) {
    return {{"job_id", to_json(Value(result.job_id))},
            {"code", word(result.code)},
            {"status", result.status.empty() ? json::value() : to_json(Value(result.status))},
            {"dependents", result.dependents}};
}

Dependents dependents_of(const std::optional<std::string>& text) {
    if (!text) return Dependents::leave;
    const auto dependents = parse_dependents(*text);
    if (!dependents) throw HttpError(422, "dependents: " + dependents.error().message);
    return *dependents;
}

/// Jobs that wait may be of any queue, and what becomes of them is a change.
void check_dependents(const Request& request, Dependents dependents) {
    if (dependents == Dependents::leave || sees_all_queues(request)) return;
    throw HttpError(403,
                    "dependents: must be leave, since this token is for some queues and jobs that "
                    "wait may be of others",
                    "all_queues");
}

const std::string& job_of(const Request& request) {
    const std::string& id = request.path_param("job_id");
    if (!is_valid_job_id(id)) throw HttpError(404, "Job not found");
    return id;
}

/// @param impossible  "cannot be canceled"
Response answer(const Request& request, const ActionResult& result, json::object told,
                std::string_view impossible, bool dry_run) {
    if (result.code == ActionResult::Code::no_such_job) throw HttpError(404, "Job not found");
    if (result.code == ActionResult::Code::refused)
        return problem_response(request, 409, fmt::format("The job {}", impossible), "refused",
                                {{"job_id", result.job_id},
                                 {"job_status", to_json(Value(result.status))},
                                 {"result", std::move(told)}});
    Response response =
        json_response(200, json::object{{"status", "ok"}, {"result", std::move(told)}});
    response.dry_run = dry_run;
    return response;
}

std::string cannot(std::string_view done, const ActionResult& result) {
    return fmt::format("cannot be {}: it is {}", done, result.status);
}

asio::awaitable<Response> cancel_job(RedisClient& redis, Request request) {
    const std::string& id = job_of(request);
    co_await check_job_queue(redis, request);
    const bool dry_run = query_flag(request, "dry_run");
    const auto body = body_members(request, {"dependents"});
    const auto dependents = dependents_of(text_member(body, "dependents"));
    check_dependents(request, dependents);
    JobActions actions(redis, actor_of(request));
    const auto results = co_await actions.cancel({id}, {dependents, false, dry_run});
    co_return answer(request, results.at(0), result_json(results.at(0)),
                     cannot("canceled", results.at(0)), dry_run);
}

asio::awaitable<Response> requeue_job(RedisClient& redis, Request request) {
    const std::string& id = job_of(request);
    co_await check_job_queue(redis, request);
    const bool dry_run = query_flag(request, "dry_run");
    const bool at_front = flag_member(body_members(request, {"at_front"}), "at_front");
    JobActions actions(redis, actor_of(request));
    const auto results = co_await actions.requeue({id}, {at_front, dry_run});
    co_return answer(request, results.at(0), result_json(results.at(0)),
                     cannot("requeued", results.at(0)), dry_run);
}

asio::awaitable<Response> delete_job(RedisClient& redis, Request request) {
    const std::string& id = job_of(request);
    co_await check_job_queue(redis, request);
    const bool dry_run = query_flag(request, "dry_run");
    std::optional<std::string> word;
    if (request.query_value("dependents")) word = query_text(request, "dependents");
    const auto dependents = dependents_of(word);
    check_dependents(request, dependents);
    JobActions actions(redis, actor_of(request));
    const auto results = co_await actions.remove({id}, {dependents, dry_run});
    co_return answer(request, results.at(0), result_json(results.at(0)),
                     cannot("deleted", results.at(0)), dry_run);
}

asio::awaitable<Response> stop_job(RedisClient& redis, Request request) {
    const std::string& id = job_of(request);
    co_await check_job_queue(redis, request);
    const bool dry_run = query_flag(request, "dry_run");
    const auto nothing = body_members(request, {});
    JobActions actions(redis, actor_of(request));
    const auto result = co_await actions.stop(id, dry_run);
    json::object told = result_json(result);
    told["listens"] = result.listens;
    told["acknowledges"] = result.acknowledges;
    co_return answer(
        request, result, std::move(told),
        result.listens ? cannot("stopped", result) : "is started, but its worker does not listen",
        dry_run);
}

// ---- many jobs ---------------------------------------------------------------------------------

std::optional<Timestamp> time_member(const json::object& filter, std::string_view name) {
    const auto text = text_member(filter, name, "filter.");
    if (!text) return std::nullopt;
    const auto time = parse_time(*text);
    if (!time) throw HttpError(422, fmt::format("filter.{}: {}", name, time.error().message));
    return *time;
}

std::optional<double> seconds_member(const json::object& filter, std::string_view name) {
    const auto* value = filter.if_contains(name);
    if (value == nullptr || value->is_null()) return std::nullopt;
    const double seconds = value->is_number() ? value->to_number<double>() : -1;
    if (seconds < 0 || seconds > 1e10)
        throw HttpError(422, fmt::format("filter.{}: must be a number of seconds", name));
    return seconds;
}

JobSearch search_of(const json::value& value) {
    if (!value.is_object()) throw HttpError(422, "filter: must be an object");
    const json::object& filter = value.get_object();
    check_members(filter, "filter.",
                  {"queue", "status", "func", "error", "group", "worker", "tag", "id", "since",
                   "until", "min_duration", "max_duration"});
    JobSearch search;
    const std::pair<std::string_view, std::string*> texts[] = {
        {"queue", &search.queue}, {"status", &search.status}, {"func", &search.func},
        {"error", &search.error}, {"group", &search.group},   {"worker", &search.worker},
        {"tag", &search.tag},     {"id", &search.id}};
    for (const auto& [name, member] : texts) {
        auto text = text_member(filter, name, "filter.");
        if (!text) continue;
        // An empty one would mean all.
        if (text->empty()) throw HttpError(422, fmt::format("filter.{}: must not be empty", name));
        *member = std::move(*text);
    }
    search.since = time_member(filter, "since");
    search.until = time_member(filter, "until");
    search.min_duration = seconds_member(filter, "min_duration");
    search.max_duration = seconds_member(filter, "max_duration");
    return search;
}

std::vector<std::string> ids_of(const json::value& value) {
    if (!value.is_array()) throw HttpError(422, "ids: must be a list");
    const auto& list = value.get_array();
    if (list.size() > most_ids)
        throw HttpError(422, fmt::format("ids: at most {}; more by a filter", most_ids));
    if (list.empty()) throw HttpError(422, "ids: must not be empty");
    std::vector<std::string> ids;
    for (const auto& id : list) {
        if (!id.is_string()) throw HttpError(422, "ids: must be a list of texts");
        ids.emplace_back(id.get_string());
        if (!is_valid_job_id(ids.back()))
            throw HttpError(422,
                            fmt::format("ids: \"{}\" is no id of a job", ids.back().substr(0, 80)));
    }
    return ids;
}

/// Jobs of queues that who asks may not see are as if they were not there.
void add_unknown(std::vector<ActionResult>& results, const std::vector<std::string>& asked) {
    std::vector<ActionResult> all;
    std::size_t at = 0;
    for (const auto& id : asked) {
        if (at < results.size() && results[at].job_id == id) {
            all.push_back(std::move(results[at++]));
            continue;
        }
        all.emplace_back();
        all.back().job_id = id;
    }
    results = std::move(all);
}

/// Leaves only what is of queues that who asks may see. @throws HttpError 403 for another queue.
void keep_to_queues(JobSearch& search, const Request& request) {
    if (sees_all_queues(request)) return;
    search.within = visible_queues(request);
    if (search.queue.find('*') != std::string::npos)
        throw HttpError(422,
                        "filter.queue: must be a whole name, since this token is for some queues");
    if (!search.queue.empty() && !may_see_queue(request, search.queue))
        throw HttpError(403,
                        fmt::format("filter.queue: \"{}\" is not among the queues of this token",
                                    to_valid_utf8(search.queue.substr(0, 80))),
                        "queue_not_allowed");
}

asio::awaitable<Response> act_on_ids(RedisClient& redis, BulkOrder order,
                                     std::vector<std::string> ids, bool dry_run) {
    JobActions actions(redis, order.by);
    const auto asked = ids;
    const auto act = bulk_action(actions, order, dry_run);
    auto results = co_await act(std::move(ids));
    if (results.size() < asked.size()) add_unknown(results, asked);
    json::array list;
    std::uint64_t done = 0;
    for (const auto& result : results) {
        if (result.code == ActionResult::Code::done) ++done;
        list.push_back(result_json(result));
    }
    Response response = json_response(200, json::object{{"status", "ok"},
                                                        {"action", to_string(order.action)},
                                                        {"dry_run", dry_run},
                                                        {"done", done},
                                                        {"refused", results.size() - done},
                                                        {"results", std::move(list)}});
    response.dry_run = dry_run;
    co_return response;
}

asio::awaitable<Response> act_on_many(RedisClient& redis, Operations& operations, Request request) {
    const auto body = body_members(
        request, {"action", "ids", "filter", "dry_run", "max", "dependents", "at_front"});
    const auto action = text_member(body, "action");
    if (!action) throw HttpError(422, "action: is missing");
    const auto parsed = parse_bulk_action(*action);
    if (!parsed) throw HttpError(422, parsed.error().describe());
    BulkOrder order;
    order.action = *parsed;
    order.by = actor_of(request);
    order.dependents = dependents_of(text_member(body, "dependents"));
    check_dependents(request, order.dependents);
    order.at_front = flag_member(body, "at_front");
    order.most =
        static_cast<std::uint64_t>(integer_member(body, "max", 1, 1'000'000'000).value_or(0));
    const bool dry_run = flag_member(body, "dry_run");
    const auto* ids = body.if_contains("ids");
    const auto* filter = body.if_contains("filter");
    if ((ids == nullptr) == (filter == nullptr))
        throw HttpError(422, "give either ids or a filter");
    if (ids != nullptr) {
        keep_to_queues(order.search, request);
        if (order.most > 0) throw HttpError(422, "max: goes with a filter");
        co_return co_await act_on_ids(redis, std::move(order), ids_of(*ids), dry_run);
    }
    order.search = search_of(*filter);
    keep_to_queues(order.search, request);
    operations.check(order.search);
    if (dry_run) {
        const auto preview = co_await operations.preview(std::move(order));
        json::array sample;
        for (const auto& id : preview.sample)
            sample.push_back(to_json(Value(id)));
        Response response = json_response(200, json::object{{"status", "ok"},
                                                            {"action", to_string(*parsed)},
                                                            {"dry_run", true},
                                                            {"matched", preview.matched},
                                                            {"looked_at", preview.looked_at},
                                                            {"exact", preview.exact},
                                                            {"sample", std::move(sample)}});
        response.dry_run = true;
        co_return response;
    }
    co_return co_await start_operation(operations, std::move(order));
}

/// Who may see some queues sees what was begun for the same ones.
bool may_see(const Request& request, const Operation& operation) {
    return sees_all_queues(request) || operation.within == visible_queues(request);
}

asio::awaitable<Operation> operation_of(Operations& operations, const Request& request) {
    const std::string& id = request.path_param("operation_id");
    std::optional<Operation> operation;
    if (is_valid_job_id(id)) operation = co_await operations.find(id);
    if (!operation || !may_see(request, *operation)) throw HttpError(404, "Operation not found");
    co_return std::move(*operation);
}

asio::awaitable<Response> show_operation(Operations& operations, Request request) {
    const auto operation = co_await operation_of(operations, request);
    co_return json_response(200, json::object{{"status", "ok"}, {"operation", to_json(operation)}});
}

asio::awaitable<Response> cancel_operation(Operations& operations, Request request) {
    const std::string id = (co_await operation_of(operations, request)).id;
    const auto state = co_await operations.cancel(id, actor_of(request));
    if (!state) throw HttpError(404, "Operation not found");
    if (*state != "running")
        throw HttpError(409, fmt::format("The operation cannot be canceled: it is {}", *state),
                        "refused");
    co_return co_await show_operation(operations, std::move(request));
}

}  // namespace

asio::awaitable<Response> start_operation(Operations& operations, BulkOrder order) {
    const auto id = co_await operations.start(std::move(order));
    if (!id)
        throw HttpError(
            503, fmt::format("{} operations run on this server already", Operations::most_at_once),
            "busy", {{"Retry-After", "5"}});
    Response response =
        json_response(202, json::object{{"status", "accepted"}, {"operation_id", *id}});
    response.headers = {{"Location", fmt::format("/api/v1/operations/{}", *id)}};
    co_return response;
}

asio::awaitable<void> check_job_queue(RedisClient& redis, const Request& request) {
    if (sees_all_queues(request)) co_return;
    const std::string& id = request.path_param("job_id");
    Reply origin;
    if (is_valid_job_id(id)) {
        Pipeline pipeline;
        pipeline.add("HGET", keys::job(id), "origin");
        origin = (co_await redis.run(std::move(pipeline))).at(0);
    }
    if (!may_see_queue(request, origin.text)) throw HttpError(404, "Job not found");
}

void add_action_routes(Router& router, RedisClient& redis, Operations& operations) {
    const auto add = [&](Method method, std::string pattern, RouteDoc doc,
                         std::function<asio::awaitable<Response>(Request)> handler) {
        doc.problems.push_back(503);
        router.add(
            method, std::move(pattern), std::move(doc),
            [&redis, handler = std::move(handler)](Request request) -> asio::awaitable<Response> {
                redis.require_connection();
                co_return co_await handler(std::move(request));
            });
    };
    const auto describe = [&](std::string summary, std::string action, std::string request) {
        RouteDoc doc;
        doc.summary = std::move(summary);
        doc.tag = "jobs";
        doc.action = std::move(action);
        doc.keeps_to_queues = true;
        doc.params = {dry_run_param()};
        doc.request_schema = std::move(request);
        doc.response_schema = fmt::format(
            R"({{"type":"object","required":["status","result"],"properties":{{"status":{{"type":"string"}},"result":{}}}}})",
            result_schema);
        doc.problems = {404, 409, 422};
        return doc;
    };
    add(Method::post, "/api/v1/jobs/{job_id}/cancel",
        describe(
            "Cancel a job; a running one is stopped", "job.cancel",
            fmt::format(
                R"({{"type":"object","additionalProperties":false,"properties":{{"dependents":{}}}}})",
                dependents_schema)),
        [&redis](Request request) { return cancel_job(redis, std::move(request)); });
    add(Method::post, "/api/v1/jobs/{job_id}/requeue",
        describe(
            "Put a failed, stopped or canceled job back on its queue", "job.requeue",
            R"({"type":"object","additionalProperties":false,"properties":{"at_front":{"type":"boolean"}}})"),
        [&redis](Request request) { return requeue_job(redis, std::move(request)); });
    add(Method::post, "/api/v1/jobs/{job_id}/stop",
        describe("Stop a running job: its worker is asked to", "job.stop",
                 R"({"type":"object","additionalProperties":false})"),
        [&redis](Request request) { return stop_job(redis, std::move(request)); });
    RouteDoc removed = describe("Delete a job and all that is kept of it", "job.delete", "");
    removed.params.push_back(
        text_param("dependents", "what becomes of jobs that wait for it: leave, enqueue, cascade"));
    add(Method::delete_, "/api/v1/jobs/{job_id}", removed,
        [&redis](Request request) { return delete_job(redis, std::move(request)); });

    RouteDoc bulk;
    bulk.summary =
        "Cancel, requeue, delete or stop many jobs: those of a list of ids at once, those of a "
        "filter in an operation that goes on by itself (202)";
    bulk.tag = "jobs";
    bulk.action = "job.bulk";
    bulk.keeps_to_queues = true;
    bulk.request_schema = fmt::format(
        R"({{"type":"object","additionalProperties":false,"required":["action"],"properties":{{"action":{{"enum":["cancel","requeue","delete","stop"]}},"ids":{{"type":"array","items":{{"type":"string"}},"minItems":1,"maxItems":1000}},"filter":{},"dry_run":{{"type":"boolean"}},"max":{{"type":"integer","minimum":1,"maximum":1000000000}},"dependents":{},"at_front":{{"type":"boolean"}}}}}})",
        filter_schema, dependents_schema);
    bulk.response_schema = fmt::format(
        R"({{"type":"object","required":["status","action","dry_run"],"properties":{{"status":{{"type":"string"}},"action":{{"type":"string"}},"dry_run":{{"type":"boolean"}},"done":{{"type":"integer"}},"refused":{{"type":"integer"}},"results":{{"type":"array","items":{}}},"matched":{{"type":"integer"}},"looked_at":{{"type":"integer"}},"exact":{{"type":"boolean","description":"false: only a part was looked at"}},"sample":{{"type":"array","items":{{"type":"string"}}}}}}}})",
        result_schema);
    bulk.accepted_schema = std::string(accepted_schema);
    bulk.problems = {422};
    add(Method::post, "/api/v1/jobs/bulk", bulk, [&redis, &operations](Request request) {
        return act_on_many(redis, operations, std::move(request));
    });

    RouteDoc list;
    list.summary = "The newest operations on many jobs, of the last day";
    list.tag = "operations";
    list.keeps_to_queues = true;
    list.params = {integer_param("limit", "how many", 50, 1, 200)};
    list.response_schema = fmt::format(
        R"({{"type":"object","required":["status","items"],"properties":{{"status":{{"type":"string"}},"items":{{"type":"array","items":{}}}}}}})",
        operation_schema);
    list.problems = {422};
    add(Method::get, "/api/v1/operations", list,
        [&operations](Request request) -> asio::awaitable<Response> {
            const auto limit = request.query_integer("limit", 50, 1, 200);
            const auto found = co_await operations.list(static_cast<std::size_t>(limit));
            json::array items;
            for (const auto& operation : found)
                if (may_see(request, operation)) items.push_back(to_json(operation));
            co_return json_response(200,
                                    json::object{{"status", "ok"}, {"items", std::move(items)}});
        });
    RouteDoc one;
    one.summary = "How far an operation has got";
    one.tag = "operations";
    one.keeps_to_queues = true;
    one.response_schema = fmt::format(
        R"({{"type":"object","required":["status","operation"],"properties":{{"status":{{"type":"string"}},"operation":{}}}}})",
        operation_schema);
    one.problems = {404};
    add(Method::get, "/api/v1/operations/{operation_id}", one,
        [&operations](Request request) { return show_operation(operations, std::move(request)); });
    RouteDoc canceled = one;
    canceled.summary = "End an operation; jobs that it has not reached stay as they are";
    canceled.action = "operation.cancel";
    canceled.problems = {404, 409};
    add(Method::post, "/api/v1/operations/{operation_id}/cancel", canceled,
        [&operations](Request request) {
            return cancel_operation(operations, std::move(request));
        });
}

}  // namespace rqxx::http
