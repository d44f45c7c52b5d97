#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <rqxx/operations.hpp>
#include <rqxx/value.hpp>

#include "http/api.hpp"
#include "http/request_values.hpp"
#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

/// As far as this a queue is emptied before it is answered.
constexpr std::uint64_t most_at_once = 1000;

constexpr std::string_view queue_schema =
    R"({"type":"object","required":["name","queued","started","finished","failed","deferred","scheduled","canceled","oldest_waiting","workers","paused","waiting_under_limits"],"properties":{"name":{"type":"string"},"queued":{"type":"integer"},"started":{"type":"integer"},"finished":{"type":"integer"},"failed":{"type":"integer"},"deferred":{"type":"integer"},"scheduled":{"type":"integer"},"canceled":{"type":"integer"},"oldest_waiting":{"type":["string","null"],"format":"date-time","description":"when the first job of the list was enqueued"},"workers":{"type":"integer","description":"that listen"},"worker_names":{"type":"array","items":{"type":"string"},"description":"of one queue only, at most 100"},"paused":{"type":"boolean"},"waiting_under_limits":{"type":"integer"}}})";

constexpr std::string_view worker_schema =
    R"({"type":"object","required":["name"],"properties":{"name":{"type":"string"}}})";

std::string item_schema(std::string_view member, std::string_view schema) {
    return fmt::format(
        R"({{"type":"object","required":["status","{0}"],"properties":{{"status":{{"type":"string"}},"{0}":{1}}}}})",
        member, schema);
}

std::string list_schema(std::string_view schema) {
    return fmt::format(
        R"({{"type":"object","required":["status","items","next"],"properties":{{"status":{{"type":"string"}},"items":{{"type":"array","items":{}}},"next":{{"type":["string","null"]}}}}}})",
        schema);
}

json::object queue_json(const QueueStats& stats, const Reply& head) {
    json::object result = to_json_with_rules(stats);
    result.erase("queue_name");
    result["name"] = to_json(Value(stats.queue_name));
    const auto since = parse_utc(head.as_array().at(0).text);
    result["oldest_waiting"] = since ? json::value(format_utc(*since)) : json::value();
    result["workers"] = head.elements.at(1).as_integer();
    return result;
}

asio::awaitable<Response> list_queues(Monitor& monitor, RedisClient& redis, Request request) {
    const auto limit = static_cast<std::size_t>(request.query_integer("limit", 50, 1, 200));
    const std::string prefix = query_text(request, "prefix");
    const std::string after = query_text(request, "cursor");
    std::vector<std::string> names;
    bool more = false;
    for (auto& name : co_await monitor.queue_names()) {
        if (!name.starts_with(prefix) || !may_see_queue(request, name)) continue;
        if (!after.empty() && name <= after) continue;
        if (names.size() == limit) {
            more = true;
            break;
        }
        names.push_back(std::move(name));
    }
    json::array items;
    json::value next;
    if (!names.empty()) {
        if (more) next = to_json(Value(names.back()));
        const auto page = co_await monitor.queue_stats(names);
        const Reply heads = co_await redis.eval(lua::queue_heads, {}, std::move(names));
        for (std::size_t i = 0; i < page.size(); ++i)
            items.push_back(queue_json(page[i], heads.as_array().at(i)));
    }
    co_return json_response(
        200,
        json::object{{"status", "ok"}, {"items", std::move(items)}, {"next", std::move(next)}});
}

asio::awaitable<bool> is_known(RedisClient& redis, std::string name) {
    const Reply known = co_await redis.command("SISMEMBER", keys::queues, keys::queue(name));
    co_return known.as_integer() == 1;
}

asio::awaitable<Response> show_queue(Monitor& monitor, RedisClient& redis, Request request) {
    const std::string& name = request.path_param("name");
    if (!may_see_queue(request, name)) throw HttpError(404, "Queue not found");
    Pipeline first;
    first.add("SISMEMBER", keys::queues, keys::queue(name));
    first.add("SRANDMEMBER", keys::queue_workers(name), 100);
    const auto replies = co_await redis.run(std::move(first));
    if (replies.at(0).as_integer() != 1) throw HttpError(404, "Queue not found");
    const QueueStats stats = co_await monitor.queue_stats(name);
    const Reply heads = co_await redis.eval(lua::queue_heads, {}, std::vector<std::string>{name});
    json::object queue = queue_json(stats, heads.as_array().at(0));
    const Reply& workers = replies.at(1);
    json::array names;
    for (const auto& worker : workers.as_array())
        if (worker.text.starts_with(keys::worker_prefix))
            names.push_back(to_json(Value(worker.text.substr(keys::worker_prefix.size()))));
    queue["worker_names"] = std::move(names);
    co_return json_response(200, json::object{{"status", "ok"}, {"queue", std::move(queue)}});
}

/// One action on the jobs of a queue that are in one status: few at once, many in an operation.
asio::awaitable<Response> act_on_queue(RedisClient& redis, Operations& operations, Request request,
                                       BulkAction action, std::string_view status) {
    const std::string& name = request.path_param("name");
    const bool dry_run = query_flag(request, "dry_run");
    if (!may_see_queue(request, name) || !co_await is_known(redis, name))
        throw HttpError(404, "Queue not found");
    BulkOrder order;
    order.action = action;
    order.search.queue = name;
    order.search.status = status;
    order.search.within = visible_queues(request);
    order.search.whole_place = true;
    order.by = actor_of(request);
    const auto preview = co_await operations.preview(order);
    ActionProgress progress;
    progress.matched = preview.matched;
    if (!dry_run && preview.matched > most_at_once)
        co_return co_await start_operation(operations, std::move(order));
    if (!dry_run) {
        JobActions actions(redis, order.by);
        JobFilter filter;
        filter.queue = name;
        filter.status = status;
        progress = co_await actions.for_each(filter, false, bulk_action(actions, order, false));
    }
    Response response = json_response(200, json::object{{"status", "ok"},
                                                        {"queue", to_json(Value(name))},
                                                        {"dry_run", dry_run},
                                                        {"matched", progress.matched},
                                                        {"done", progress.done},
                                                        {"refused", progress.refused}});
    response.dry_run = dry_run;
    co_return response;
}

asio::awaitable<Response> delete_queue(RedisClient& redis, Request request) {
    static constexpr std::array statuses{status::queued,  status::started,  status::finished,
                                         status::failed,  status::deferred, status::scheduled,
                                         status::canceled};
    const std::string& name = request.path_param("name");
    const bool dry_run = query_flag(request, "dry_run");
    const bool force = query_flag(request, "force");
    std::vector<std::string> places{std::string(keys::queues), keys::queue(name)};
    for (std::size_t i = 1; i < statuses.size(); ++i)
        places.push_back(keys::registry(statuses.at(i), name));
    places.push_back(keys::lanes(name));
    const auto take_away = [&](bool dry, bool forget) {
        return redis.eval(lua::delete_queue, places,
                          std::vector<std::string>{dry ? "1" : "0", forget ? "1" : "0"});
    };
    Reply reply = co_await take_away(dry_run || force, false);
    json::object jobs;
    std::uint64_t count = 0;
    for (std::size_t i = 0; i < statuses.size(); ++i) {
        const auto here = reply.as_array().at(i + 1).as_integer();
        jobs[statuses.at(i)] = here;
        count += static_cast<std::uint64_t>(here);
    }
    const auto code = reply.elements.at(0).as_integer();
    if (code == 0) throw HttpError(404, "Queue not found");
    if (code == 2 && !force)
        co_return problem_response(request, 409, "There are jobs of this queue", "not_empty",
                                   {{"jobs", jobs}});
    if (count > most_at_once)
        co_return problem_response(
            request, 409,
            fmt::format("There are more than {} jobs of this queue: delete them first",
                        most_at_once),
            "not_empty", {{"jobs", jobs}});
    if (force && !dry_run) {
        JobActions actions(redis, actor_of(request));
        BulkOrder order;
        order.action = BulkAction::remove;
        order.search.within = visible_queues(request);
        for (const auto word : statuses) {
            JobFilter filter;
            filter.queue = name;
            filter.status = word;
            co_await actions.for_each(filter, false, bulk_action(actions, order, false));
        }
        co_await actions.compact(name, false);
        const Reply left = co_await take_away(false, true);
        if (left.as_array().at(0).as_integer() == 2)
            throw HttpError(409, "Jobs of this queue have come meanwhile", "not_empty");
    }
    Response response = json_response(200, json::object{{"status", "ok"},
                                                        {"queue", to_json(Value(name))},
                                                        {"dry_run", dry_run},
                                                        {"jobs", std::move(jobs)}});
    response.dry_run = dry_run;
    co_return response;
}

// ---- workers -----------------------------------------------------------------------------------

asio::awaitable<Response> list_workers(Monitor& monitor, Request request) {
    const auto limit = static_cast<std::size_t>(request.query_integer("limit", 50, 1, 200));
    const std::string after = query_text(request, "cursor");
    std::vector<std::string> names;
    json::value next;
    for (auto& name : co_await monitor.worker_names()) {
        if (!after.empty() && name <= after) continue;
        if (names.size() == limit) {
            next = to_json(Value(names.back()));
            break;
        }
        names.push_back(std::move(name));
    }
    json::array items;
    for (const auto& worker : co_await monitor.workers(std::move(names)))
        items.push_back(to_json(worker));
    co_return json_response(
        200,
        json::object{{"status", "ok"}, {"items", std::move(items)}, {"next", std::move(next)}});
}

asio::awaitable<Response> show_worker(Monitor& monitor, RedisClient& redis, Request request) {
    const std::string& name = request.path_param("name");
    const Reply known = co_await redis.command("SISMEMBER", keys::workers, keys::worker(name));
    const auto found = known.as_integer() == 1
                           ? co_await monitor.workers(std::vector<std::string>{name})
                           : std::vector<WorkerInfo>();
    if (found.empty()) throw HttpError(404, "Worker not found");
    co_return json_response(200,
                            json::object{{"status", "ok"}, {"worker", to_json(found.front())}});
}

/// Source: rq/command.py send_shutdown_command (RQ 2.10).
asio::awaitable<Response> shut_down(RedisClient& redis, Request request) {
    const std::string& name = request.path_param("name");
    const bool dry_run = query_flag(request, "dry_run");
    const Reply known = co_await redis.command("SISMEMBER", keys::workers, keys::worker(name));
    if (known.as_integer() != 1) throw HttpError(404, "Worker not found");
    const std::string channel = keys::command_channel(name);
    std::int64_t listeners = 0;
    if (dry_run) {
        const Reply counts = co_await redis.command("PUBSUB", "NUMSUB", channel);
        listeners = counts.as_array().at(1).as_integer();
    } else {
        const Reply heard = co_await redis.command(
            "PUBLISH", channel, json::serialize(json::object{{"command", "shutdown"}}));
        listeners = heard.as_integer();
    }
    if (listeners == 0)
        throw HttpError(409, "The worker does not listen: it may be dead, or too busy",
                        "not_listening");
    Response response = json_response(200, json::object{{"status", "ok"},
                                                        {"worker", to_json(Value(name))},
                                                        {"listens", true},
                                                        {"dry_run", dry_run}});
    response.dry_run = dry_run;
    co_return response;
}

}  // namespace

void add_queue_routes(Router& router, Monitor& monitor, RedisClient& redis,
                      Operations& operations) {
    const auto add = [&](Method method, std::string pattern, RouteDoc doc, Handler handler) {
        doc.problems.push_back(503);
        router.add(
            method, std::move(pattern), std::move(doc),
            [&redis, handler = std::move(handler)](Request request) -> asio::awaitable<Response> {
                redis.require_connection();
                co_return co_await handler(std::move(request));
            });
    };
    const auto describe = [](std::string summary, std::string tag, std::vector<int> problems) {
        RouteDoc doc;
        doc.summary = std::move(summary);
        doc.tag = std::move(tag);
        doc.problems = std::move(problems);
        return doc;
    };
    auto queues = describe("Queues by name, and how many jobs are where", "queues", {422});
    queues.params = {integer_param("limit", "how many", 50, 1, 200),
                     text_param("cursor", "`next` of the answer before"),
                     text_param("prefix", "only those whose names begin like this")};
    queues.keeps_to_queues = true;
    queues.response_schema = list_schema(queue_schema);
    add(Method::get, "/api/v1/queues", queues, [&monitor, &redis](Request request) {
        return list_queues(monitor, redis, std::move(request));
    });
    auto queue = describe("One queue", "queues", {404});
    queue.keeps_to_queues = true;
    queue.response_schema = item_schema("queue", queue_schema);
    add(Method::get, "/api/v1/queues/{name}", queue, [&monitor, &redis](Request request) {
        return show_queue(monitor, redis, std::move(request));
    });
    auto emptied =
        describe("Delete the jobs that wait on a queue; of many, an operation does it (202)",
                 "queues", {404, 422});
    emptied.keeps_to_queues = true;
    emptied.action = "queue.empty";
    emptied.params = {dry_run_param()};
    emptied.accepted_schema = std::string(accepted_schema);
    emptied.response_schema =
        R"({"type":"object","required":["status","queue","dry_run","matched","done","refused"],"properties":{"status":{"type":"string"},"queue":{"type":"string"},"dry_run":{"type":"boolean"},"matched":{"type":"integer"},"done":{"type":"integer"},"refused":{"type":"integer"}}})";
    auto requeued = emptied;
    add(Method::post, "/api/v1/queues/{name}/empty", emptied,
        [&redis, &operations](Request request) {
            return act_on_queue(redis, operations, std::move(request), BulkAction::remove,
                                status::queued);
        });
    requeued.summary = "Put a queue's failed jobs back on it; of many, an operation does it (202)";
    requeued.action = "queue.requeue-failed";
    add(Method::post, "/api/v1/queues/{name}/requeue-failed", requeued,
        [&redis, &operations](Request request) {
            return act_on_queue(redis, operations, std::move(request), BulkAction::requeue,
                                status::failed);
        });
    auto deleted = describe("Take a queue away; refused while there are jobs of it", "queues",
                            {404, 409, 422});
    deleted.action = "queue.delete";
    deleted.scope = Scope::admin;
    deleted.params = {dry_run_param(),
                      flag_param("force", "delete its jobs, at most 1000, as well")};
    add(Method::delete_, "/api/v1/queues/{name}", deleted,
        [&redis](Request request) { return delete_queue(redis, std::move(request)); });

    auto workers = describe("Workers by name", "workers", {422});
    workers.params = {integer_param("limit", "how many", 50, 1, 200),
                      text_param("cursor", "`next` of the answer before")};
    workers.response_schema = list_schema(worker_schema);
    add(Method::get, "/api/v1/workers", workers,
        [&monitor](Request request) { return list_workers(monitor, std::move(request)); });
    auto worker = describe("One worker", "workers", {404});
    worker.response_schema = item_schema("worker", worker_schema);
    add(Method::get, "/api/v1/workers/{name}", worker, [&monitor, &redis](Request request) {
        return show_worker(monitor, redis, std::move(request));
    });
    auto shutdown = describe("Let a worker end when its job has", "workers", {404, 409, 422});
    shutdown.action = "worker.shutdown";
    shutdown.params = {dry_run_param()};
    add(Method::post, "/api/v1/workers/{name}/shutdown", shutdown,
        [&redis](Request request) { return shut_down(redis, std::move(request)); });
}

}  // namespace rqxx::http
