#include "http/job_request.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <rqxx/error.hpp>
#include <vector>

#include "base/utf8.hpp"
#include "ops/deduplication.hpp"

namespace rqxx::http {
namespace {

using std::chrono::seconds;

/// About three hundred years: sums with the time of day stay far from overflow.
constexpr std::int64_t most_seconds = 10'000'000'000;

[[noreturn]] void refuse(std::string_view field, std::string_view why) {
    throw HttpError(422, fmt::format("{}: {}", field, why));
}

seconds duration_of(std::string_view field, const Value& value) {
    if (value.kind() == Value::Kind::integer && std::abs(value.as_integer()) <= most_seconds)
        return seconds(value.as_integer());
    if (!value.is_string())
        refuse(field, "must be a whole number of seconds, or text like 90s, 5m, 1h, 2d");
    const auto duration = parse_duration(value.as_text());
    if (!duration) refuse(field, duration.error().message);
    return *duration;
}

std::vector<seconds> durations_of(std::string_view field, const Value& value) {
    if (value.kind() != Value::Kind::list) return {duration_of(field, value)};
    std::vector<seconds> result;
    for (const auto& item : value.items())
        result.push_back(duration_of(field, item));
    return result;
}

Timestamp time_of(std::string_view field, const Value& value) {
    constexpr std::string_view expected =
        "must be a time like 2026-12-24T18:00:00Z, or seconds since 1970";
    std::string text;
    if (value.is_string())
        text = value.as_text();
    else if (value.kind() == Value::Kind::integer)
        text = std::to_string(value.as_integer());
    else if (value.kind() == Value::Kind::real)
        text = fmt::format("{}", value.as_real());
    const auto time = parse_time(text);
    if (!time) refuse(field, expected);
    return *time;
}

/// The members of a JSON object, each taken once; null counts as left out.
class Fields {
public:
    Fields(const Value& object, std::string prefix) : prefix_(std::move(prefix)) {
        if (!object.is_dict())
            refuse(prefix_.empty() ? "the body" : prefix_.substr(0, prefix_.size() - 1),
                   "must be an object");
        for (const auto& [key, value] : object.pairs())
            members_.emplace_back(key.as_text(), &value);
    }

    [[nodiscard]] std::string path(std::string_view name) const {
        return prefix_ + std::string(name);
    }
    const Value* take(std::string_view name) {
        known_.push_back(name);
        const auto member =
            std::ranges::find(members_, name, [](const auto& entry) { return entry.first; });
        if (member == members_.end()) return nullptr;
        const Value* value = member->second;
        members_.erase(member);
        return value->is_none() ? nullptr : value;
    }
    std::optional<std::string> text(std::string_view name) {
        const Value* value = take(name);
        if (value == nullptr) return std::nullopt;
        if (!value->is_string()) refuse(path(name), "must be a string");
        return value->as_text();
    }
    bool flag(std::string_view name) {
        const Value* value = take(name);
        if (value == nullptr) return false;
        if (value->kind() != Value::Kind::boolean) refuse(path(name), "must be true or false");
        return value->as_bool();
    }
    std::optional<seconds> duration(std::string_view name) {
        const Value* value = take(name);
        return value == nullptr ? std::nullopt : std::optional(duration_of(path(name), *value));
    }

    void end() const {
        if (members_.empty()) return;
        throw HttpError(
            422, fmt::format("{}: unknown field; known are {}",
                             path(members_.front().first.substr(0, 40)), fmt::join(known_, ", ")));
    }

private:
    std::string prefix_;
    std::vector<std::pair<std::string_view, const Value*>> members_;
    std::vector<std::string_view> known_;
};

std::vector<std::string> texts_of(std::string_view field, const Value& value) {
    if (value.is_string()) return {value.as_text()};
    if (value.kind() != Value::Kind::list) refuse(field, "must be a string or a list of strings");
    std::vector<std::string> result;
    for (const auto& item : value.items()) {
        if (!item.is_string()) refuse(field, "must be a string or a list of strings");
        result.push_back(item.as_text());
    }
    return result;
}

Retry retry_of(const Value& value) {
    Retry retry;
    const auto count = [&](std::string_view field, const Value& number) {
        if (number.kind() != Value::Kind::integer) refuse(field, "must be a whole number");
        retry.max = number.as_integer();
    };
    if (!value.is_dict()) {
        count("retry", value);
        return retry;
    }
    Fields fields(value, "retry.");
    const Value* max = fields.take("max");
    if (max == nullptr) refuse("retry.max", "is missing");
    count("retry.max", *max);
    if (const Value* intervals = fields.take("intervals"))
        retry.intervals = durations_of("retry.intervals", *intervals);
    retry.enqueue_at_front = fields.flag("at_front");
    fields.end();
    return retry;
}

Dependency dependency_of(const Value& value) {
    Dependency dependency;
    if (!value.is_dict()) {
        dependency.job_ids = texts_of("depends_on", value);
        return dependency;
    }
    Fields fields(value, "depends_on.");
    const Value* ids = fields.take("job_ids");
    if (ids == nullptr) refuse("depends_on.job_ids", "is missing");
    dependency.job_ids = texts_of("depends_on.job_ids", *ids);
    dependency.allow_failure = fields.flag("allow_failure");
    dependency.enqueue_at_front = fields.flag("at_front");
    fields.end();
    return dependency;
}

Dedup dedup_of(const Value& value) {
    Fields fields(value, "dedup.");
    Dedup dedup;
    const auto mode = fields.text("mode");
    if (!mode) refuse("dedup.mode", "is missing");
    const auto parsed = parse_dedup_mode(*mode);
    if (!parsed) refuse("dedup.mode", parsed.error().message);
    dedup.mode = *parsed;
    if (const auto key = fields.text("key")) {
        if (key->empty()) refuse("dedup.key", "must not be empty");
        dedup.key = *key;
    }
    dedup.period = fields.duration("period");
    dedup.max_delay = fields.duration("max_delay");
    fields.end();
    return dedup;
}

Call call_of(Fields& fields) {
    Call call;
    call.func_name = fields.text("func").value_or("");
    if (call.func_name.empty()) refuse("func", "is missing");
    if (const Value* args = fields.take("args")) {
        if (args->kind() != Value::Kind::list) refuse("args", "must be a list");
        call.args = Value::tuple(args->items());
    }
    if (const Value* kwargs = fields.take("kwargs")) {
        if (!kwargs->is_dict()) refuse("kwargs", "must be an object");
        call.kwargs = *kwargs;
    }
    return call;
}

EnqueueOptions options_of(Fields& fields) {
    EnqueueOptions options;
    options.timeout = fields.duration("timeout");
    if (const Value* retry = fields.take("retry")) options.retry = retry_of(*retry);
    options.result_ttl = fields.duration("result_ttl");
    options.failure_ttl = fields.duration("failure_ttl");
    options.ttl = fields.duration("ttl");
    if (const Value* meta = fields.take("meta")) {
        if (!meta->is_dict()) refuse("meta", "must be an object");
        options.meta = *meta;
    }
    if (const Value* parents = fields.take("depends_on"))
        options.depends_on = dependency_of(*parents);
    options.at_front = fields.flag("at_front");
    options.unique = fields.flag("unique");
    if (const Value* dedup = fields.take("dedup")) options.dedup = dedup_of(*dedup);
    options.description = fields.text("description");
    options.job_id = fields.text("job_id").value_or("");
    options.group = fields.text("group").value_or("");
    return options;
}

/// The string of a structured field, or the text as it is.
std::string unquoted(std::string_view text) {
    constexpr std::string_view field = "Idempotency-Key";
    if (!text.starts_with('"')) return std::string(text);
    std::string result;
    std::size_t at = 1;
    for (; at < text.size() && text[at] != '"'; ++at) {
        if (text[at] == '\\') ++at;
        if (at < text.size()) result += text[at];
    }
    if (at + 1 != text.size()) refuse(field, "the quoted string does not end where the key does");
    return result;
}

}  // namespace

ops::EnqueueRequest parse_job_request(std::string_view body) {
    if (to_valid_utf8(body) != body) throw HttpError(422, "the body is not UTF-8");
    const auto document = decode_json(body);
    if (!document)
        throw HttpError(422,
                        fmt::format("the body is not valid JSON: {}", document.error().describe()));
    Fields fields(*document, "");
    ops::EnqueueRequest request;
    request.call = call_of(fields);
    if (const auto queue = fields.text("queue")) request.queue = *queue;
    if (const auto word = fields.text("priority")) {
        const auto priority = parse_priority(*word);
        if (!priority) refuse("priority", priority.error().message);
        request.priority = *priority;
    }
    if (const auto word = fields.text("serializer")) {
        const auto serializer = parse_serializer(*word);
        if (!serializer) refuse("serializer", serializer.error().message);
        request.serializer = *serializer;
    }
    if (const Value* at = fields.take("at")) request.at = time_of("at", *at);
    request.in = fields.duration("in");
    if (request.in && request.in->count() < 0) refuse("in", "must not be negative");
    request.options = options_of(fields);
    fields.end();
    return request;
}

std::string job_request_schema() {
    constexpr std::string_view duration = R"({"type":["integer","string","null"]})";
    constexpr std::string_view text = R"({"type":["string","null"]})";
    constexpr std::string_view flag = R"({"type":["boolean","null"]})";
    constexpr std::string_view ids = R"({"type":"array","items":{"type":"string"}})";
    const std::string retry = fmt::format(
        R"({{"oneOf":[{{"type":["integer","null"],"minimum":0}},{{"type":"object","required":["max"],"properties":{{"max":{{"type":"integer","minimum":0}},"intervals":{{"type":"array","items":{0}}},"at_front":{1}}},"additionalProperties":false}}]}})",
        duration, flag);
    const std::string depends_on = fmt::format(
        R"({{"oneOf":[{{"type":["string","null"]}},{0},{{"type":"object","required":["job_ids"],"properties":{{"job_ids":{0},"allow_failure":{1},"at_front":{1}}},"additionalProperties":false}}]}})",
        ids, flag);
    const std::string dedup = fmt::format(
        R"({{"type":["object","null"],"required":["mode"],"properties":{{"mode":{{"enum":["unique","throttle","debounce","replace"]}},"key":{{"type":["string","null"],"description":"default: the function and a hash of its arguments"}},"period":{0},"max_delay":{0}}},"additionalProperties":false}})",
        duration);
    return fmt::format(
        R"({{"type":"object","required":["func"],"properties":{{"func":{{"type":"string"}},"args":{{"type":["array","null"]}},"kwargs":{{"type":["object","null"]}},"queue":{0},"priority":{{"enum":["high","normal","low",null]}},"serializer":{{"enum":["pickle","json",null]}},"at":{{"type":["string","number","null"]}},"in":{1},"timeout":{1},"retry":{2},"result_ttl":{1},"failure_ttl":{1},"ttl":{1},"meta":{{"type":["object","null"]}},"depends_on":{3},"at_front":{4},"unique":{4},"dedup":{5},"description":{0},"job_id":{0},"group":{0}}},"additionalProperties":false}})",
        text, duration, retry, depends_on, flag, dedup);
}

std::optional<Idempotency> parse_idempotency(const Request& request) {
    constexpr std::string_view field = "Idempotency-Key";
    const auto given = request.header(field);
    if (!given) return std::nullopt;
    if (request.header_count(field) > 1) refuse(field, "is given more than once");
    Idempotency idempotency{.key = unquoted(*given), .asked = {}};
    const auto printable = [](char c) { return c >= 0x20 && c <= 0x7e; };
    if (idempotency.key.empty() || idempotency.key.size() > 255 ||
        !std::ranges::all_of(idempotency.key, printable))
        refuse(field, "must be 1 to 255 printable ASCII characters");
    idempotency.asked = ops::sha256_hex(fmt::format("POST {}\n{}", request.path, request.body));
    return idempotency;
}

}  // namespace rqxx::http
