#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <charconv>
#include <cmath>
#include <rqxx/codec.hpp>

#include "base/utf8.hpp"
#include "http/api.hpp"
#include "http/job_json.hpp"
#include "http/request_values.hpp"
#include "ops/raw_job.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

/// Of arguments and meta data that a form is filled with.
constexpr std::size_t most_text = 256 << 10;

/// Fields of RQ and rqxx that carry nothing of a job's data; where data is hidden only these are
/// shown, as nobody can look for names in bytes.
constexpr std::array plain_fields{
    "status",       "origin",          "created_at",        "enqueued_at",
    "started_at",   "ended_at",        "last_heartbeat",    "worker_name",
    "timeout",      "result_ttl",      "failure_ttl",       "ttl",
    "retries_left", "retry_intervals", "number_of_retries", "repeats_left",
    "group_id",     "dependency_ids",  "dependency_id",     "enqueue_at_front"};

std::string utf8_of(std::uint32_t code) {
    std::string text;
    const auto add = [&](std::uint32_t byte) { text += static_cast<char>(byte); };
    if (code < 0x80) {
        add(code);
    } else if (code < 0x800) {
        add(0xc0 | code >> 6);
        add(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        add(0xe0 | code >> 12);
        add(0x80 | (code >> 6 & 0x3f));
        add(0x80 | (code & 0x3f));
    } else {
        add(0xf0 | code >> 18);
        add(0x80 | (code >> 12 & 0x3f));
        add(0x80 | (code >> 6 & 0x3f));
        add(0x80 | (code & 0x3f));
    }
    return text;
}

/// Any bytes as one line of text, from which they can be told again: `\n`, `\\`, `\xNN`.
std::string escaped(std::string_view bytes) {
    // In what is no text, what looks like a letter is one by chance.
    const bool is_text = is_valid_utf8(bytes.substr(0, whole_characters(bytes)));
    std::string text;
    for (std::size_t at = 0; at < bytes.size();) {
        const Utf8 next = next_utf8(bytes, at);
        const std::uint32_t code = next.code;
        // Controls, halves of characters, and what turns the direction of writing.
        const bool bad = code == Utf8::invalid || (code >= 0x80 && !is_text) || code < 0x20 ||
                         (code >= 0x7f && code < 0xa0) || (code >= 0xd800 && code < 0xe000) ||
                         code == 0x200e || code == 0x200f || (code >= 0x202a && code <= 0x202e) ||
                         (code >= 0x2066 && code <= 0x2069);
        const std::string_view character = bytes.substr(at, next.length);
        at += next.length;
        if (code == '\\')
            text += "\\\\";
        else if (code == '\n')
            text += "\\n";
        else if (code == '\t')
            text += "\\t";
        else if (!bad)
            text += character;
        else
            for (const char byte : character)
                text += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
    }
    return text;
}

json::object field_json(const ops::RawField& field, const Redaction& redaction) {
    const bool hidden =
        !redaction.empty() && std::ranges::find(plain_fields, field.name) == plain_fields.end();
    return {{"name", escaped(field.name)},
            {"size", field.size},
            {"value", hidden ? std::string(hidden_text) : escaped(field.value)},
            {"cut", !hidden && field.value.size() < field.size},
            {"hidden", hidden}};
}

asio::awaitable<Response> show_raw(RedisClient& redis, Request request) {
    const std::string& id = request.path_param("job_id");
    const auto bytes = request.query_integer("bytes", 4096, 1, 65'536);
    std::optional<ops::RawJob> job;
    if (is_valid_job_id(id))
        job = co_await ops::raw_job(redis, id, static_cast<std::size_t>(bytes));
    if (!job || !may_see_queue(request, job->queue)) throw HttpError(404, "Job not found");
    json::array fields;
    for (const auto& field : job->fields)
        fields.push_back(field_json(field, redaction_of(request)));
    const json::value ttl = job->ttl ? json::value(Seconds(*job->ttl).count()) : json::value();
    co_return json_response(200,
                            json::object{{"status", "ok"},
                                         {"raw", json::object{{"key", job->key},
                                                              {"type", job->type},
                                                              {"ttl", ttl},
                                                              {"fields_total", job->fields_total},
                                                              {"fields", std::move(fields)}}}});
}

// ---- a job as a request ------------------------------------------------------------------------

/// Whether JSON has all of it, so that it comes back as it was. Sequences within are lists.
bool is_json(const Value& value) {
    switch (value.kind()) {
        case Value::Kind::none:
        case Value::Kind::boolean:
        case Value::Kind::integer:
        case Value::Kind::big_integer:
            return true;
        case Value::Kind::real:
            return std::isfinite(value.as_real());
        case Value::Kind::string:
            return is_valid_utf8(value.as_text());
        case Value::Kind::list:
            return std::ranges::all_of(value.items(), is_json);
        case Value::Kind::dict:
            return std::ranges::all_of(value.pairs(), [](const Value::Pair& pair) {
                return pair.key.is_string() && is_json(pair.key) && is_json(pair.value);
            });
        default:
            return false;
    }
}

/// JSON text with the escapes undone of what people can read: Python escapes all that is not ASCII.
std::string readable(std::string_view text) {
    const auto unit = [&](std::size_t at) -> std::uint32_t {
        std::uint32_t code = 0;
        if (at + 6 > text.size() || text[at] != '\\' || text[at + 1] != 'u') return 0;
        const auto* end = text.data() + at + 6;
        return std::from_chars(text.data() + at + 2, end, code, 16).ptr == end ? code : 0;
    };
    std::string result;
    for (std::size_t at = 0; at < text.size();) {
        std::uint32_t code = text[at] == '\\' ? unit(at) : 0;
        std::size_t length = text[at] == '\\' ? 2 : 1;
        if (code != 0) length = 6;
        if (code >= 0xd800 && code < 0xdc00) {
            const std::uint32_t low = unit(at + 6);
            code = low >= 0xdc00 && low < 0xe000
                       ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00)
                       : 0;
            if (code != 0) length = 12;
        }
        const std::string character = code >= 0xa0 ? utf8_of(code) : std::string();
        // What `escaped` would not show is better left as it is.
        if (!character.empty() && escaped(character) == character)
            result += character;
        else
            result += text.substr(at, length);
        at += length;
    }
    return result;
}

/// What a form is filled with, and what it cannot have.
struct Filled {
    json::object request;
    json::object texts{{"args", nullptr}, {"kwargs", nullptr}, {"meta", nullptr}};
    json::array problems;

    void problem(std::string_view field, std::string_view code, std::string_view detail) {
        problems.push_back(json::object{{"field", field}, {"code", code}, {"detail", detail}});
    }

    /// Whether it may be told.
    bool fill(const char* field, Value value, const Redaction& redaction) {
        json::value shown = to_json(value);
        if (redaction.all || redact_members(shown, redaction)) {
            problem(field, "hidden", "it is hidden here");
            return false;
        }
        if (value.kind() == Value::Kind::tuple) value = Value::list(std::move(value.items()));
        if (!is_json(value)) {
            problem(field, "not_json",
                    "it has what JSON has not, such as a tuple, bytes or a date");
            return true;
        }
        std::string text = readable(encode_json(value));
        if (text.size() > most_text)
            problem(field, "too_large", fmt::format("it has more than {} bytes", most_text));
        else
            texts[field] = std::move(text);
        return true;
    }
};

void fill_call(Filled& filled, const Job& job, const Redaction& redaction) {
    Serializer serializer = Serializer::pickle;
    const auto call = decode_call(job.data, {}, &serializer);
    filled.request["serializer"] = serializer == Serializer::json ? "json" : "pickle";
    if (!call) {
        filled.problem("args", "unreadable", to_valid_utf8(call.error().describe()));
        return;
    }
    filled.request["func"] = to_valid_utf8(call->func_name);
    if (!call->instance.is_none())
        filled.problem("func", "instance", "it is a method of an object, which JSON has not");
    const bool args = filled.fill("args", call->args, redaction);
    const bool kwargs = filled.fill("kwargs", call->kwargs, redaction);
    // The usual one is made from the arguments.
    if (args && kwargs && !job.description.empty() && job.description != describe_call(*call))
        filled.request["description"] = to_valid_utf8(job.description);
}

void fill_settings(json::object& request, const Job& job) {
    request["queue"] = to_valid_utf8(job.origin);
    const std::pair<const char*, std::optional<std::int64_t>> durations[] = {
        {"timeout", job.timeout},
        {"result_ttl", job.result_ttl},
        {"failure_ttl", job.failure_ttl},
        {"ttl", job.ttl}};
    for (const auto& [name, seconds] : durations)
        if (seconds) request[name] = *seconds;
    if (job.retries_left.value_or(0) > 0) {
        json::array intervals(job.retry_intervals.begin(), job.retry_intervals.end());
        json::object retry{{"max", *job.retries_left}};
        if (!intervals.empty()) retry["intervals"] = std::move(intervals);
        if (job.enqueue_at_front_on_retry.value_or(false)) retry["at_front"] = true;
        request["retry"] = std::move(retry);
    }
}

json::array left_out(const Job& job) {
    json::array names;
    const std::pair<const char*, bool> parts[] = {
        {"depends_on", !job.dependency_ids.empty()},
        {"on_success", !job.success_callback_name.empty()},
        {"on_failure", !job.failure_callback_name.empty()},
        {"on_stopped", !job.stopped_callback_name.empty()},
        {"repeat", job.repeats_left.value_or(0) > 0},
        {"webhooks", !job.webhooks.empty()},
        {"group", !job.group_id.empty()},
        {"rate_limit", !job.rate_limit_key.empty()}};
    for (const auto& [name, there] : parts)
        if (there) names.emplace_back(name);
    return names;
}

asio::awaitable<Response> show_request(Monitor& monitor, Request request) {
    const std::string& id = request.path_param("job_id");
    std::optional<JobInfo> info;
    if (is_valid_job_id(id)) info = co_await monitor.job_info(id);
    if (!info || !may_see_queue(request, info->job.origin)) throw HttpError(404, "Job not found");
    const Redaction& redaction = redaction_of(request);
    Filled filled;
    fill_call(filled, info->job, redaction);
    fill_settings(filled.request, info->job);
    if (!info->job.meta.empty()) {
        if (auto meta = decode(info->job.meta))
            filled.fill("meta", std::move(*meta), redaction);
        else
            filled.problem("meta", "unreadable", to_valid_utf8(meta.error().describe()));
    }
    co_return json_response(200, json::object{{"status", "ok"},
                                              {"request", std::move(filled.request)},
                                              {"args", std::move(filled.texts["args"])},
                                              {"kwargs", std::move(filled.texts["kwargs"])},
                                              {"meta", std::move(filled.texts["meta"])},
                                              {"problems", std::move(filled.problems)},
                                              {"left_out", left_out(info->job)}});
}

}  // namespace

void add_raw_routes(Router& router, RedisClient& redis, Monitor& monitor, bool enqueues) {
    RouteDoc raw;
    raw.summary = "The hash of a job as it stands in Redis, bytes escaped";
    raw.tag = "jobs";
    raw.keeps_to_queues = true;
    raw.problems = {404, 422, 503};
    raw.params = {integer_param("bytes", "of each value", 4096, 1, 65'536)};
    raw.response_schema =
        R"({"type":"object","required":["status","raw"],"properties":{"status":{"type":"string"},"raw":{"type":"object","required":["key","type","ttl","fields_total","fields"],"properties":{"key":{"type":"string"},"type":{"type":"string","description":"of the key; only a hash has fields"},"ttl":{"type":["number","null"],"description":"seconds until Redis forgets it"},"fields_total":{"type":"integer","description":"of more than 200 those are told that RQ writes"},"fields":{"type":"array","items":{"type":"object","required":["name","size","value","cut","hidden"],"properties":{"name":{"type":"string"},"size":{"type":"integer","description":"bytes"},"value":{"type":"string","description":"what is no printable text as \\xNN, a backslash as \\\\; empty where it has more than 1 MB"},"cut":{"type":"boolean"},"hidden":{"type":"boolean"}}}}}}}})";
    router.add(Method::get, "/api/v1/jobs/{job_id}/raw", raw,
               [&redis](Request request) -> asio::awaitable<Response> {
                   redis.require_connection();
                   co_return co_await show_raw(redis, std::move(request));
               });

    if (!enqueues) return;
    RouteDoc again;
    again.summary = "What to send to POST /api/v1/jobs for another job like this one";
    again.tag = "jobs";
    again.keeps_to_queues = true;
    again.problems = {404, 503};
    again.response_schema =
        R"({"type":"object","required":["status","request","args","kwargs","meta","problems","left_out"],"properties":{"status":{"type":"string"},"request":{"type":"object","description":"func, queue, serializer, timeout and so on, as the body has them"},"args":{"type":["string","null"],"description":"as JSON text, so that numbers keep their digits; null: see problems"},"kwargs":{"type":["string","null"]},"meta":{"type":["string","null"],"description":"null where there is none as well"},"problems":{"type":"array","items":{"type":"object","required":["field","code","detail"],"properties":{"field":{"enum":["func","args","kwargs","meta"]},"code":{"enum":["not_json","unreadable","hidden","too_large","instance"]},"detail":{"type":"string"}}}},"left_out":{"type":"array","items":{"type":"string"},"description":"what the job has and the body has not: depends_on, on_success, on_failure, on_stopped, repeat, webhooks, group, rate_limit"}}})";
    router.add(Method::get, "/api/v1/jobs/{job_id}/request", again,
               [&monitor](Request request) -> asio::awaitable<Response> {
                   monitor.require_connection();
                   co_return co_await show_request(monitor, std::move(request));
               });
}

}  // namespace rqxx::http
