#include "ops/job_description.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <rqxx/error.hpp>
#include <vector>

#include "base/utf8.hpp"
#include "ops/deduplication.hpp"
#include "ops/new_job.hpp"

namespace rqxx::ops {
namespace {

using std::chrono::seconds;

/// About three hundred years: sums with the time of day stay far from overflow.
constexpr std::int64_t most_seconds = 10'000'000'000;

std::string text_of(std::string_view field, const Value& value) {
    if (!value.is_string()) refuse(field, "must be a string");
    return value.as_text();
}

std::int64_t integer_of(std::string_view field, const Value& value) {
    if (value.kind() != Value::Kind::integer) refuse(field, "must be a whole number");
    return value.as_integer();
}

seconds duration_of(std::string_view field, const Value& value) {
    seconds result{};
    if (value.kind() == Value::Kind::integer) {
        result = seconds(value.as_integer());
    } else if (value.is_string()) {
        const auto duration = parse_duration(value.as_text());
        if (!duration) refuse(field, duration.error().message);
        result = *duration;
    } else {
        refuse(field, "must be a whole number of seconds, or text like 90s, 5m, 1h, 2d");
    }
    if (result.count() > most_seconds || result.count() < -most_seconds)
        refuse(field, fmt::format("must not be more than {} s", most_seconds));
    return result;
}

Value::Items& list_of(std::string_view field, Value& value) {
    if (value.kind() != Value::Kind::list) refuse(field, "must be a list");
    return value.items();
}

/// The members of a JSON object, each taken once; null counts as left out.
class Fields {
public:
    /// `prefix` is empty, or the path of the object and a dot.
    Fields(Value& object, std::string prefix) : prefix_(std::move(prefix)) {
        if (!object.is_dict()) {
            if (prefix_.empty()) throw Error(Errc::usage, "an object is expected");
            refuse(prefix_.substr(0, prefix_.size() - 1), "must be an object");
        }
        members_.reserve(object.pairs().size());
        known_.reserve(32);
        for (auto& [key, value] : object.pairs())
            members_.emplace_back(key.as_text(), &value);
    }

    [[nodiscard]] std::string path(std::string_view name) const {
        return prefix_ + std::string(name);
    }
    Value* take(std::string_view name) {
        known_.push_back(name);
        const auto member =
            std::ranges::find(members_, name, [](const auto& entry) { return entry.first; });
        if (member == members_.end()) return nullptr;
        Value* value = member->second;
        members_.erase(member);
        return value->is_none() ? nullptr : value;
    }
    Value& need(std::string_view name) {
        Value* value = take(name);
        if (value == nullptr) refuse(path(name), "is missing");
        return *value;
    }
    std::optional<std::string> text(std::string_view name) {
        Value* value = take(name);
        return value == nullptr ? std::nullopt : std::optional(text_of(path(name), *value));
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
    /// Several, or a single one as it is.
    std::vector<seconds> durations(std::string_view name) {
        Value* value = take(name);
        if (value == nullptr) return {};
        if (value->kind() != Value::Kind::list) return {duration_of(path(name), *value)};
        std::vector<seconds> result;
        for (const auto& item : value->items())
            result.push_back(duration_of(path(name), item));
        return result;
    }
    std::optional<Value> object(std::string_view name) {
        Value* value = take(name);
        if (value == nullptr) return std::nullopt;
        if (!value->is_dict()) refuse(path(name), "must be an object");
        return std::move(*value);
    }

    void end() const {
        if (members_.empty()) return;
        refuse(to_valid_utf8(path(members_.front().first.substr(0, 40))),
               fmt::format("unknown field; known are {}", fmt::join(known_, ", ")));
    }

private:
    std::string prefix_;
    std::vector<std::pair<std::string_view, Value*>> members_;
    std::vector<std::string_view> known_;
};

std::vector<std::string> texts_of(std::string_view field, Value& list) {
    std::vector<std::string> result;
    for (const auto& item : list_of(field, list))
        result.push_back(text_of(field, item));
    return result;
}

/// As of a request, which may name a single job without a list.
std::vector<std::string> ids_of(std::string_view field, Value& value) {
    if (value.is_string()) return {value.as_text()};
    return texts_of(field, value);
}

Timestamp time_of(std::string_view field, const Value& value) {
    std::string text;
    if (value.is_string())
        text = value.as_text();
    else if (value.kind() == Value::Kind::integer)
        text = std::to_string(value.as_integer());
    else if (value.kind() == Value::Kind::real)
        text = fmt::format("{}", value.as_real());
    const auto time = parse_time(text);
    if (!time) refuse(field, "must be a time like 2026-12-24T18:00:00Z, or seconds since 1970");
    return *time;
}

/// NAME or NAME@DURATION.
std::optional<Callback> callback_of(Fields& fields, std::string_view name) {
    const auto text = fields.text(name);
    if (!text) return std::nullopt;
    const auto at = text->find('@');
    Callback result{text->substr(0, at), std::nullopt};
    if (at != std::string::npos) result.timeout = duration_of(name, Value(text->substr(at + 1)));
    return result;
}

Webhook webhook_of(Value& value) {
    Fields fields(value, "webhooks.");
    Webhook hook;
    hook.url = fields.text("url").value_or("");
    hook.job_status = fields.text("job_status").value_or(hook.job_status);
    hook.method = fields.text("method").value_or(hook.method);
    hook.timeout = fields.duration("timeout").value_or(hook.timeout);
    fields.end();
    return hook;
}

Retry retry_of(Value& value) {
    Retry retry;
    if (!value.is_dict()) {
        retry.max = integer_of("retry", value);
        return retry;
    }
    Fields fields(value, "retry.");
    retry.max = integer_of("retry.max", fields.need("max"));
    retry.intervals = fields.durations("intervals");
    retry.enqueue_at_front = fields.flag("at_front");
    fields.end();
    return retry;
}

Dependency dependency_of(Value& value) {
    Dependency dependency;
    if (!value.is_dict()) {
        dependency.job_ids = ids_of("depends_on", value);
        return dependency;
    }
    Fields fields(value, "depends_on.");
    dependency.job_ids = ids_of("depends_on.job_ids", fields.need("job_ids"));
    dependency.allow_failure = fields.flag("allow_failure");
    dependency.enqueue_at_front = fields.flag("at_front");
    fields.end();
    return dependency;
}

Dedup dedup_of(Value& value) {
    Fields fields(value, "dedup.");
    Dedup dedup;
    const auto mode = parse_dedup_mode(text_of("dedup.mode", fields.need("mode")));
    if (!mode) refuse("dedup.mode", mode.error().message);
    dedup.mode = *mode;
    if (const auto key = fields.text("key")) {
        if (key->empty()) refuse("dedup.key", "must not be empty");
        dedup.key = *key;
    }
    dedup.period = fields.duration("period");
    dedup.max_delay = fields.duration("max_delay");
    fields.end();
    return dedup;
}

void read_request_fields(Fields& fields, EnqueueRequest& request) {
    EnqueueOptions& options = request.options;
    if (const auto word = fields.text("serializer")) {
        const auto serializer = parse_serializer(*word);
        if (!serializer) refuse("serializer", serializer.error().message);
        request.serializer = *serializer;
    }
    if (Value* retry = fields.take("retry")) options.retry = retry_of(*retry);
    if (Value* parents = fields.take("depends_on")) options.depends_on = dependency_of(*parents);
    options.unique = fields.flag("unique");
    if (Value* dedup = fields.take("dedup")) options.dedup = dedup_of(*dedup);
    options.group = fields.text("group").value_or("");
}

void read_line_fields(Fields& fields, EnqueueOptions& options) {
    const Value* retry = fields.take("retry");
    auto intervals = fields.durations("retry_intervals");
    const bool at_front = fields.flag("retry_at_front");
    if (retry != nullptr)
        options.retry = Retry{integer_of("retry", *retry), std::move(intervals), at_front};
    else if (!intervals.empty() || at_front)
        refuse("retry", "how often is not said");
    const Value* repeat = fields.take("repeat");
    intervals = fields.durations("repeat_intervals");
    if (repeat != nullptr)
        options.repeat = Repeat{integer_of("repeat", *repeat), std::move(intervals)};
    else if (!intervals.empty())
        refuse("repeat", "how often is not said");
    Value* parents = fields.take("depends_on");
    const bool allow_failure = fields.flag("allow_failure");
    if (parents != nullptr)
        options.depends_on = Dependency{texts_of("depends_on", *parents), allow_failure, false};
    else if (allow_failure)
        refuse("allow_failure", "goes with depends_on");
    options.on_success = callback_of(fields, "on_success");
    options.on_failure = callback_of(fields, "on_failure");
    options.on_stopped = callback_of(fields, "on_stopped");
    if (Value* hooks = fields.take("webhooks"))
        for (auto& hook : list_of("webhooks", *hooks))
            options.webhooks.push_back(webhook_of(hook));
}

}  // namespace

EnqueueRequest read_job(std::string_view text, JobForm form, const std::string& default_queue) {
    if (!is_valid_utf8(text)) throw Error(Errc::usage, "not JSON: the text is not UTF-8");
    auto document = decode_json(text);
    if (!document)
        throw Error(Errc::usage, fmt::format("not JSON: {}", document.error().describe()));
    Fields fields(*document, "");
    EnqueueRequest request;
    request.call.func_name = fields.text("func").value_or("");
    if (request.call.func_name.empty()) refuse("func", "is missing");
    if (Value* args = fields.take("args"))
        request.call.args = Value::tuple(std::move(list_of("args", *args)));
    if (auto kwargs = fields.object("kwargs")) request.call.kwargs = std::move(*kwargs);
    const auto queue = fields.text("queue");
    if (const auto word = fields.text("priority")) {
        const auto priority = parse_priority(*word);
        if (!priority) refuse("priority", priority.error().message);
        request.priority = *priority;
    }
    if (queue)
        request.queue = *queue;
    else if (!request.priority)
        request.queue = default_queue;
    if (const Value* at = fields.take("at")) request.at = time_of("at", *at);
    request.in = fields.duration("in");
    if (request.in && request.in->count() < 0) refuse("in", "must not be negative");
    EnqueueOptions& options = request.options;
    options.timeout = fields.duration("timeout");
    options.result_ttl = fields.duration("result_ttl");
    options.failure_ttl = fields.duration("failure_ttl");
    options.ttl = fields.duration("ttl");
    if (auto meta = fields.object("meta")) options.meta = std::move(*meta);
    options.at_front = fields.flag("at_front");
    options.description = fields.text("description");
    options.job_id = fields.text("job_id").value_or("");
    if (form == JobForm::request)
        read_request_fields(fields, request);
    else
        read_line_fields(fields, options);
    fields.end();
    return request;
}

}  // namespace rqxx::ops
