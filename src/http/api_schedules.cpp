#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <rqxx/actions.hpp>
#include <rqxx/cron_entries.hpp>
#include <rqxx/job.hpp>
#include <rqxx/scheduled_jobs.hpp>
#include <rqxx/value.hpp>

#include "http/api.hpp"
#include "http/job_json.hpp"
#include "http/request_values.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

constexpr std::size_t longest_entry = 64 * 1024;

constexpr std::string_view entry_members =
    R"("func":{"type":"string"},"cron":{"type":["string","null"],"description":"five fields, or six with seconds first"},"every":{"type":["integer","string","null"],"description":"seconds, or as 90s, 5m, 1h; instead of cron"},"queue":{"type":"string"},"args":{"type":"array"},"kwargs":{"type":"object"},"timezone":{"type":"string"},"catch_up":{"enum":["skip","one","all"]},"overlap":{"enum":["allow","skip"]},"jitter":{"type":["integer","string"]},"timeout":{"type":["integer","string"]},"result_ttl":{"type":["integer","string"]},"failure_ttl":{"type":["integer","string"]},"ttl":{"type":["integer","string"]},"meta":{"type":"object"},"retry":{"type":"integer"},"description":{"type":"string"},"serializer":{"enum":["pickle","json"]})";

constexpr std::string_view schedule_schema =
    R"({"type":"object","required":["id","name","stored","expression","interval","words","timezone","func_name","queue","next","last","runs","lag","paused","can_pause","leader","etag"],"properties":{"id":{"type":"string"},"name":{"type":"string"},"stored":{"type":"boolean","description":"kept in Redis, so that it can be changed here; else of a file"},"expression":{"type":["string","null"]},"interval":{"type":["integer","null"],"description":"seconds"},"words":{"type":["string","null"]},"timezone":{"type":["string","null"]},"func_name":{"type":["string","null"]},"queue":{"type":["string","null"]},"args":{},"kwargs":{},"next":{"type":"array","items":{"type":"string","format":"date-time"}},"last":{"type":["object","null"]},"runs":{"type":"array","items":{"type":"object","required":["at","job_id","status"]}},"lag":{"type":["number","null"],"description":"seconds by which the last slot was late"},"paused":{"type":"boolean"},"can_pause":{"type":"boolean","description":"false where a process of RQ's own fires it, which knows no pauses"},"processes":{"type":"array","items":{"type":"string"}},"leader":{"type":["string","null"],"description":"of stored ones: who fires them"},"entry":{"type":["object","null"],"description":"of stored ones: as given"},"etag":{"type":["string","null"],"description":"for If-Match"},"problem":{"type":["string","null"]}}})";

std::string answer_schema() {
    return fmt::format(
        R"({{"type":"object","required":["status","cron"],"properties":{{"status":{{"type":"string"}},"cron":{}}}}})",
        schedule_schema);
}

HttpError not_found() {
    return {404, "Cron job not found"};
}

/// Of the path. What cannot be a name is none.
const std::string& name_of(const Request& request) {
    const std::string& name = request.path_param("name");
    if (name.size() > 512) throw not_found();
    return name;
}

asio::awaitable<CronListing> find(CronEntries entries, std::string name) {
    auto found = co_await entries.find(std::move(name));
    if (!found) throw not_found();
    co_return std::move(*found);
}

json::object cron_json(const CronListing& listing, const Redaction& redaction) {
    json::object shown = to_json(listing);
    redact_job(shown, redaction);
    if (auto* entry = shown.if_contains("entry"); entry != nullptr && entry->is_object())
        redact_job(entry->get_object(), redaction);
    return shown;
}

Response cron_answer(int status, const CronListing& listing, const Request& request) {
    Response response = json_response(
        status,
        json::object{{"status", "ok"}, {"cron", cron_json(listing, redaction_of(request))}});
    if (!listing.etag.empty()) response.headers = {{"ETag", fmt::format("\"{}\"", listing.etag)}};
    return response;
}

asio::awaitable<Response> list_cron(RedisClient& redis, Request request) {
    const auto limit = static_cast<std::size_t>(request.query_integer("limit", 25, 1, 200));
    CronEntries entries(redis);
    const auto page = co_await entries.list(query_text(request, "cursor"), limit);
    json::array items;
    for (const auto& schedule : page.schedules)
        items.push_back(cron_json(schedule, redaction_of(request)));
    co_return json_response(
        200, json::object{
                 {"status", "ok"},
                 {"items", std::move(items)},
                 {"next", page.more ? to_json(Value(page.schedules.back().name)) : json::value()}});
}

/// As it is kept: the schedule can be read, and is not too large.
std::string checked(const std::string& name, const json::object& entry) {
    const CronSchedule schedule = read_cron_entry(name, entry);
    std::string text = json::serialize(entry);
    if (text.size() > longest_entry)
        throw HttpError(422, fmt::format("the schedule is larger than {} bytes", longest_entry));
    return text;
}

HttpError changed_meanwhile() {
    return {412, "It has been changed meanwhile: read it again", "changed"};
}

asio::awaitable<Response> add_cron(RedisClient& redis, Request request) {
    const json::value body = request.json();
    if (!body.is_object()) throw HttpError(422, "the body must be an object");
    json::object entry = body.get_object();
    const auto name = text_member(entry, "name");
    if (!name) throw HttpError(422, "name: is missing");
    entry.erase("name");
    const std::string text = checked(*name, entry);
    CronEntries entries(redis);
    if (co_await entries.find(*name))
        throw HttpError(409, "There is a cron job of this name", "exists");
    const auto edit = co_await entries.add(*name, text);
    if (edit == CronEntries::Edit::none)
        throw HttpError(409, "There is a cron job of this name", "exists");
    if (edit == CronEntries::Edit::too_many)
        throw HttpError(409, fmt::format("There are {} cron jobs already", CronEntries::most),
                        "too_many");
    Response response = cron_answer(201, co_await find(entries, *name), request);
    response.headers.emplace_back("Location", fmt::format("/api/v1/cron/{}", *name));
    co_return response;
}

/// RFC 7396: members take the place of those there, null takes them away.
asio::awaitable<Response> change_cron(RedisClient& redis, Request request) {
    const std::string& name = name_of(request);
    const json::value body = request.json();
    if (!body.is_object()) throw HttpError(422, "the body must be an object");
    const auto wanted = if_match(request);
    CronEntries entries(redis);
    const CronListing there = co_await find(entries, name);
    if (!there.stored)
        throw HttpError(409, "It comes from a file, and is changed there", "from_a_file");
    if (wanted && *wanted != there.etag) throw changed_meanwhile();
    boost::system::error_code malformed;
    const json::value old = json::parse(there.json, malformed);
    json::object entry = !malformed && old.is_object() ? old.get_object() : json::object();
    for (const auto& member : body.get_object()) {
        if (member.value().is_null())
            entry.erase(member.key());
        else
            entry[member.key()] = member.value();
    }
    const std::string text = checked(name, entry);
    // What was read is what the change is made to, asked for or not.
    const auto edit = co_await entries.replace(name, text, there.etag);
    if (edit == CronEntries::Edit::none) throw not_found();
    if (edit == CronEntries::Edit::changed) throw changed_meanwhile();
    co_return cron_answer(200, co_await find(entries, name), request);
}

asio::awaitable<Response> remove_cron(RedisClient& redis, Request request) {
    const std::string& name = name_of(request);
    const auto wanted = if_match(request);
    CronEntries entries(redis);
    const auto edit = co_await entries.remove(name, wanted.value_or(""));
    if (edit == CronEntries::Edit::changed) throw changed_meanwhile();
    if (edit == CronEntries::Edit::none) {
        const CronListing there = co_await find(entries, name);
        throw HttpError(409, "It comes from a file, and is taken away there", "from_a_file");
    }
    co_return json_response(200, json::object{{"status", "ok"}, {"name", to_json(Value(name))}});
}

asio::awaitable<Response> pause_cron(RedisClient& redis, Request request, bool paused) {
    const std::string& name = name_of(request);
    CronEntries entries(redis);
    const CronListing there = co_await find(entries, name);
    if (paused && !there.heeds_pause)
        throw HttpError(409, "A process of RQ's own fires it, which knows no pauses", "not_ours");
    const bool changed = co_await entries.pause(name, paused);
    co_return json_response(200, json::object{{"status", "ok"},
                                              {"name", to_json(Value(name))},
                                              {"state", paused ? "paused" : "running"},
                                              {"changed", changed}});
}

asio::awaitable<Response> run_cron(RedisClient& redis, Request request) {
    const std::string& name = name_of(request);
    CronEntries entries(redis);
    const CronListing there = co_await find(entries, name);
    if (!there.problem.empty())
        throw HttpError(409, "The cron job cannot be read: " + there.problem, "unreadable");
    CronSchedule schedule;
    std::optional<std::string> impossible;
    try {
        schedule = schedule_of(there);
    } catch (const Error& error) {
        impossible = error.message();
    }
    if (impossible)
        throw HttpError(409, "The cron job cannot be run from here: " + *impossible, "unreadable");
    const std::string id = co_await entries.run_now(std::move(schedule));
    Response response = json_response(
        201, json::object{{"status", "ok"}, {"name", to_json(Value(name))}, {"job_id", id}});
    response.headers = {{"Location", fmt::format("/api/v1/jobs/{}", id)}};
    co_return response;
}

// ---- jobs enqueued for later -------------------------------------------------------------------

asio::awaitable<Response> list_scheduled(RedisClient& redis, Request request) {
    ScheduledQuery query;
    query.limit = static_cast<std::size_t>(request.query_integer("limit", 50, 1, 200));
    query.queue = query_text(request, "queue");
    query.cursor = query_text(request, "cursor");
    if (!query.cursor.empty() && !is_scheduled_place(query.cursor))
        throw HttpError(422, "cursor: must be the `next` of an earlier answer");
    const auto page = co_await scheduled_jobs(redis, std::move(query));
    json::array items;
    for (const auto& job : page.jobs) {
        json::object shown = to_json(job);
        // It has the arguments as text.
        if (!redaction_of(request).empty() && !shown.at("description").is_null())
            shown["description"] = hidden_text;
        items.push_back(std::move(shown));
    }
    co_return json_response(
        200, json::object{{"status", "ok"},
                          {"items", std::move(items)},
                          {"next", page.next.empty() ? json::value() : json::value(page.next)}});
}

asio::awaitable<Response> run_job_now(RedisClient& redis, Request request) {
    const std::string& id = request.path_param("job_id");
    if (!is_valid_job_id(id)) throw HttpError(404, "Job not found");
    co_await check_job_queue(redis, request);
    const bool dry_run = query_flag(request, "dry_run");
    JobActions actions(redis, actor_of(request));
    const auto results = co_await actions.run_now({id}, dry_run);
    const auto& result = results.at(0);
    if (result.code == ActionResult::Code::no_such_job) throw HttpError(404, "Job not found");
    if (result.code == ActionResult::Code::refused)
        co_return problem_response(
            request, 409,
            result.status == status::scheduled
                ? "The job cannot be put on its queue: that is not a list, or RQ's scheduler is "
                  "just doing it"
                : fmt::format("The job is not scheduled: it is {}", result.status),
            "refused", {{"job_id", id}, {"job_status", to_json(Value(result.status))}});
    Response response = json_response(200, json::object{{"status", "ok"},
                                                        {"result",
                                                         {{"job_id", id},
                                                          {"code", "done"},
                                                          {"status", to_json(Value(result.status))},
                                                          {"dependents", 0}}}});
    response.dry_run = dry_run;
    co_return response;
}

}  // namespace

std::optional<std::string> if_match(const Request& request) {
    const auto header = request.header("If-Match");
    if (!header || *header == "*") return std::nullopt;
    std::string_view tag = *header;
    if (tag.size() < 2 || tag.front() != '"' || tag.back() != '"')
        throw HttpError(422, "If-Match: must be one ETag in quotes, or *");
    tag.remove_prefix(1);
    tag.remove_suffix(1);
    // Nothing is there that could be meant by another one.
    constexpr std::size_t size = 40;
    const bool known = tag.size() == size && std::ranges::all_of(tag, [](char c) {
                           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
                       });
    return known ? std::string(tag) : std::string("-");
}

void add_schedule_routes(Router& router, RedisClient& redis) {
    using Call = asio::awaitable<Response> (*)(RedisClient&, Request);
    const auto add = [&](Method method, std::string pattern, RouteDoc doc, Call handler) {
        doc.tag = "schedules";
        doc.problems.push_back(503);
        router.add(method, std::move(pattern), std::move(doc),
                   [&redis, handler](Request request) -> asio::awaitable<Response> {
                       redis.require_connection();
                       co_return co_await handler(redis, std::move(request));
                   });
    };
    RouteDoc scheduled;
    scheduled.summary = "Jobs that were enqueued for later, by their time";
    scheduled.params = {text_param("queue", "only of this queue"),
                        integer_param("limit", "how many", 50, 1, 200),
                        text_param("cursor", "`next` of the answer before")};
    scheduled.response_schema =
        R"({"type":"object","required":["status","items","next"],"properties":{"status":{"type":"string"},"items":{"type":"array","items":{"type":"object","required":["job_id","at","queue","func_name","description"],"properties":{"job_id":{"type":"string"},"at":{"type":["string","null"],"format":"date-time"},"queue":{"type":"string"},"func_name":{"type":["string","null"]},"description":{"type":["string","null"]}}}},"next":{"type":["string","null"]}}})";
    scheduled.problems = {422};
    add(Method::get, "/api/v1/schedules", scheduled, list_scheduled);

    RouteDoc now;
    now.summary = "Put a scheduled job on its queue before its time";
    now.action = "job.run-now";
    now.keeps_to_queues = true;
    now.params = {dry_run_param()};
    now.problems = {404, 409, 422};
    add(Method::post, "/api/v1/jobs/{job_id}/run-now", now, run_job_now);

    RouteDoc list;
    list.summary = "Cron jobs: those kept in Redis, and those that running processes show";
    list.params = {integer_param("limit", "how many", 25, 1, 200),
                   text_param("cursor", "`next` of the answer before")};
    list.problems = {422};
    list.response_schema = fmt::format(
        R"({{"type":"object","required":["status","items","next"],"properties":{{"status":{{"type":"string"}},"items":{{"type":"array","items":{}}},"next":{{"type":["string","null"]}}}}}})",
        schedule_schema);
    add(Method::get, "/api/v1/cron", list, list_cron);
    RouteDoc one;
    one.summary = "One cron job; its ETag is for If-Match";
    one.response_schema = answer_schema();
    one.problems = {404};
    add(Method::get, "/api/v1/cron/{name}", one,
        [](RedisClient& client, Request request) -> asio::awaitable<Response> {
            co_return cron_answer(200, co_await find(CronEntries(client), name_of(request)),
                                  request);
        });

    RouteDoc created;
    created.summary = "Add a cron job, which servers fire from then on";
    created.action = "cron.add";
    created.good_status = 201;
    created.request_schema = fmt::format(
        R"({{"type":"object","additionalProperties":false,"required":["name","func"],"properties":{{"name":{{"type":"string","description":"letters, digits, _ and -"}},{}}}}})",
        entry_members);
    created.response_schema = answer_schema();
    created.problems = {409, 422};
    add(Method::post, "/api/v1/cron", created, add_cron);

    RouteDoc::Param match;
    match.name = "If-Match";
    match.in = "header";
    match.description = "only where this ETag is that of what is there; else 412";
    RouteDoc changed;
    changed.summary = "Change a cron job: members given take the place of those there, null none";
    changed.action = "cron.change";
    changed.params = {match};
    changed.request_schema = fmt::format(
        R"({{"type":"object","additionalProperties":false,"properties":{{{}}}}})", entry_members);
    changed.response_schema = answer_schema();
    changed.problems = {404, 409, 412, 422};
    add(Method::patch, "/api/v1/cron/{name}", changed, change_cron);

    RouteDoc removed;
    removed.summary = "Take a cron job away; jobs that it has enqueued stay";
    removed.action = "cron.remove";
    removed.params = {match};
    removed.problems = {404, 409, 412, 422};
    add(Method::delete_, "/api/v1/cron/{name}", removed, remove_cron);

    RouteDoc paused;
    paused.summary = "Leave out the slots of a cron job until it is resumed";
    paused.action = "cron.pause";
    paused.problems = {404, 409};
    add(Method::post, "/api/v1/cron/{name}/pause", paused,
        [](RedisClient& client, Request request) {
            return pause_cron(client, std::move(request), true);
        });
    paused.problems = {404};
    paused.summary = "Go on with a cron job that was paused";
    paused.action = "cron.resume";
    add(Method::post, "/api/v1/cron/{name}/resume", paused,
        [](RedisClient& client, Request request) {
            return pause_cron(client, std::move(request), false);
        });
    RouteDoc run;
    run.summary = "Enqueue a cron job's job at once, beside its slots";
    run.action = "cron.run-now";
    run.good_status = 201;
    run.problems = {404, 409};
    add(Method::post, "/api/v1/cron/{name}/run-now", run, run_cron);
}

}  // namespace rqxx::http
