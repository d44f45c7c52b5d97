#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <rqxx/audit.hpp>

#include "http/api.hpp"
#include "http/job_json.hpp"
#include "http/request_values.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

asio::awaitable<void> write_down(RedisClient& redis, Logger& log, ActionRecord record) {
    AuditEntry entry;
    entry.by = std::move(record.by);
    entry.via = "api";
    entry.action = std::move(record.action);
    entry.target = std::move(record.target);
    entry.details = std::move(record.details);
    entry.outcome = record.outcome;
    try {
        redis.require_connection();
        co_await AuditLog(redis).write(entry);
    } catch (const Error& error) {
        // What is done is done: that it is not in the audit log is told here, and not passed over.
        log.error("Action is missing in the audit log", "action", entry.action, "target",
                  entry.target, "by", entry.by, "outcome", entry.outcome, "error", error.message());
    }
}

}  // namespace

json::object audit_json(const AuditEntry& entry, const Redaction& redaction) {
    json::object shown = to_json(entry);
    // Bodies, as they were sent.
    if (!redaction.empty() && !shown.at("details").is_null()) shown["details"] = hidden_text;
    return shown;
}

void add_audit_routes(Router& router, RedisClient& redis, Logger& log) {
    router.on_action(
        [&redis, &log](ActionRecord record) { return write_down(redis, log, std::move(record)); });
    RouteDoc doc;
    doc.scope = Scope::admin;
    doc.summary = "What was done by whom, through API, page or command line; the newest first";
    doc.tag = "audit";
    doc.params = {integer_param("limit", "how many", 50, 1, 500),
                  text_param("cursor", "`next` of the answer before"),
                  text_param("action", "only such actions, as `job.*`; * stands for any text"),
                  text_param("by", "only those of one person or address; * stands for any text")};
    doc.response_schema =
        R"({"type":"object","required":["status","items","next"],"properties":{"status":{"type":"string"},"items":{"type":"array","items":{"type":"object","required":["id","at","by","via","action","target","outcome","details"],"properties":{"id":{"type":"string"},"at":{"type":"string","format":"date-time"},"by":{"type":["string","null"]},"via":{"type":["string","null"]},"action":{"type":"string"},"target":{"type":["string","null"]},"outcome":{"type":"string"},"details":{"type":["string","null"]}}}},"next":{"type":["string","null"],"description":"a page may be short though there are more"}}})";
    doc.problems = {422, 503};
    router.add(
        Method::get, "/api/v1/audit", doc, [&redis](Request request) -> asio::awaitable<Response> {
            AuditQuery query;
            query.limit = static_cast<std::size_t>(request.query_integer("limit", 50, 1, 500));
            query.cursor = query_text(request, "cursor");
            if (!query.cursor.empty() && !is_audit_place(query.cursor))
                throw HttpError(422, "cursor: must be the `next` of an earlier answer");
            query.action = query_text(request, "action");
            query.by = query_text(request, "by");
            redis.require_connection();
            const auto page = co_await AuditLog(redis).read(std::move(query));
            json::array items;
            for (const auto& entry : page.entries)
                items.push_back(audit_json(entry, redaction_of(request)));
            co_return json_response(
                200,
                json::object{{"status", "ok"},
                             {"items", std::move(items)},
                             {"next", page.next.empty() ? json::value() : json::value(page.next)}});
        });
}

}  // namespace rqxx::http
