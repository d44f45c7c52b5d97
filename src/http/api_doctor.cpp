#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include "base/utf8.hpp"
#include "http/api.hpp"
#include "http/job_json.hpp"
#include "http/request_values.hpp"
#include "runtime/examiner.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

constexpr std::int64_t least_age = 10, most_age = 86'400;

constexpr std::string_view doctor_schema =
    R"({"type":"object","required":["status","doctor"],"properties":{"status":{"type":"string"},"doctor":{"type":"object","required":["state","step","done","total","started_at","ended_at","error","report"],"properties":{"state":{"enum":["none","running","done","failed"]},"step":{"type":["string","null"],"description":"of the one that runs"},"done":{"type":"integer"},"total":{"type":"integer","description":"of the step; 0: not known"},"started_at":{"type":["string","null"],"format":"date-time"},"ended_at":{"type":["string","null"],"format":"date-time"},"error":{"type":["string","null"]},"report":{"type":["object","null"],"description":"of the last one that ended well","required":["healthy","keys","jobs","queues","findings","command"],"properties":{"healthy":{"type":"boolean"},"keys":{"type":"integer"},"jobs":{"type":"integer"},"queues":{"type":"integer"},"findings":{"type":"array","items":{"type":"object","required":["code","severity","found","what","why","repair","examples"],"properties":{"code":{"type":"string"},"severity":{"enum":["info","warning","error"]},"found":{"type":"integer"},"what":{"type":"string"},"why":{"type":"string"},"repair":{"type":["string","null"],"description":"what mending does; null: it is a person's decision"},"examples":{"type":"array","items":{"type":"object","required":["subject","key","note"],"properties":{"subject":{"type":"string"},"key":{"type":"string"},"note":{"type":"string"}}}}}}},"command":{"type":["string","null"],"description":"mends what can be mended; null where there is nothing of that"}}}}}}})";

json::value time_or_null(const std::optional<Timestamp>& time) {
    return time ? json::value(format_utc(*time)) : json::value();
}

json::value text_or_null(std::string_view text) {
    return text.empty() ? json::value() : json::value(to_valid_utf8(text));
}

json::object finding_json(const ops::Finding& finding, const Redaction& redaction) {
    json::array examples;
    for (const auto& example : finding.examples) {
        // It may quote what is in a field.
        const bool hidden = !redaction.empty() && !example.note.empty();
        examples.push_back(json::object{
            {"subject", to_valid_utf8(example.subject)},
            {"key", to_valid_utf8(example.key)},
            {"note", hidden ? std::string(hidden_text) : to_valid_utf8(example.note)}});
    }
    const auto& kind = *finding.kind;
    return {{"code", kind.code},
            {"severity", ops::to_string(kind.severity)},
            {"found", finding.found},
            {"what", kind.what},
            {"why", kind.why},
            {"repair", text_or_null(kind.repair)},
            {"examples", std::move(examples)}};
}

json::object report_json(const ops::DoctorReport& report, const Redaction& redaction) {
    json::array findings;
    bool can_be_mended = false;
    for (const auto& finding : report.findings) {
        findings.push_back(finding_json(finding, redaction));
        can_be_mended = can_be_mended || (finding.left > 0 && !finding.kind->repair.empty());
    }
    return {{"healthy", report.healthy()},
            {"keys", report.keys},
            {"jobs", report.jobs},
            {"queues", report.queues},
            {"findings", std::move(findings)},
            {"command", can_be_mended ? json::value("rqxx doctor --repair") : json::value()}};
}

/// Whether the last one began so long ago, or there was none.
bool is_older(const runtime::ExaminationState& state, std::int64_t seconds) {
    return !state.started_at || utc_now() - *state.started_at > std::chrono::seconds(seconds);
}

}  // namespace

void add_doctor_route(Router& router, RedisClient& redis, runtime::Examiner& examiner) {
    RouteDoc doc;
    doc.summary =
        "What an examination of all keys has found, and with max_age the examination; it changes "
        "nothing";
    doc.tag = "monitor";
    RouteDoc::Param age;
    age.name = "max_age";
    age.type = "integer";
    age.minimum = least_age;
    age.maximum = most_age;
    age.description =
        "seconds: begin one where the last began longer ago; ask again for how it goes on. Unless "
        "given, only what is known is told";
    doc.params = {age};
    doc.problems = {422, 503};
    doc.response_schema = doctor_schema;
    router.add(Method::get, "/api/v1/doctor", doc,
               [&redis, &examiner](Request request) -> asio::awaitable<Response> {
                   const bool wanted = request.query_value("max_age").has_value();
                   const auto most =
                       request.query_integer("max_age", most_age, least_age, most_age);
                   redis.require_connection();
                   if (wanted && is_older(examiner.state(), most)) examiner.begin();
                   const auto state = examiner.state();
                   const char* word = state.running          ? "running"
                                      : !state.started_at    ? "none"
                                      : !state.error.empty() ? "failed"
                                                             : "done";
                   json::object doctor{
                       {"state", word},
                       {"step", state.running ? text_or_null(state.step) : json::value()},
                       {"done", state.done},
                       {"total", state.total},
                       {"started_at", time_or_null(state.started_at)},
                       {"ended_at", state.running ? json::value() : time_or_null(state.ended_at)},
                       {"error", text_or_null(state.error)},
                       {"report", nullptr}};
                   if (state.report)
                       doctor["report"] = report_json(*state.report, redaction_of(request));
                   co_return json_response(
                       200, json::object{{"status", "ok"}, {"doctor", std::move(doctor)}});
               });
}

}  // namespace rqxx::http
