#include <fmt/format.h>

#include <charconv>
#include <rqxx/job.hpp>

namespace rqxx {
namespace {

using Fields = std::span<const std::pair<std::string_view, std::string_view>>;

/// Reads one hash field by field, noting what cannot be read.
class Reader {
public:
    explicit Reader(Job& job) : job_(job) {}

    void read(std::string_view field, std::string_view value) {
        field_ = field;
        if (field == "data")
            job_.data = value;
        else if (field == "status")
            job_.status = value.empty() ? "created" : std::string(value);
        else if (field == "origin")
            job_.origin = value;
        else if (field == "description")
            job_.description = value;
        else if (field == "created_at")
            time(job_.created_at, value);
        else if (field == "enqueued_at")
            time(job_.enqueued_at, value);
        else if (field == "started_at")
            time(job_.started_at, value);
        else if (field == "ended_at")
            time(job_.ended_at, value);
        else if (field == "last_heartbeat")
            time(job_.last_heartbeat, value);
        else if (field == "worker_name")
            job_.worker_name = value;
        else if (field == "timeout")
            number(job_.timeout, value);
        else if (field == "result_ttl")
            number(job_.result_ttl, value);
        else if (field == "failure_ttl")
            number(job_.failure_ttl, value);
        else if (field == "ttl")
            number(job_.ttl, value);
        else if (field == "retries_left")
            number(job_.retries_left, value);
        else if (field == "number_of_retries")
            number(job_.number_of_retries, value);
        else if (field == "repeats_left")
            number(job_.repeats_left, value);
        else if (field == "retry_intervals")
            numbers(job_.retry_intervals, value);
        else if (field == "repeat_intervals")
            numbers(job_.repeat_intervals, value);
        else if (field == "enqueue_at_front")
            flag(job_.enqueue_at_front, value);
        else if (field == "enqueue_at_front_on_retry")
            flag(job_.enqueue_at_front_on_retry, value);
        else if (field == "allow_dependency_failures")
            flag(job_.allow_dependency_failures, value);
        else if (field == "dependency_ids")
            dependencies(value);
        else if (field == "dependency_id") {
            if (!value.empty() && !is_valid_job_id(value))
                refuse("not a job id");
            else if (job_.dependency_ids.empty() && !value.empty())
                job_.dependency_ids.emplace_back(value);
        } else if (field == "success_callback_name")
            job_.success_callback_name = value;
        else if (field == "failure_callback_name")
            job_.failure_callback_name = value;
        else if (field == "stopped_callback_name")
            job_.stopped_callback_name = value;
        else if (field == "success_callback_timeout")
            number(job_.success_callback_timeout, value);
        else if (field == "failure_callback_timeout")
            number(job_.failure_callback_timeout, value);
        else if (field == "stopped_callback_timeout")
            number(job_.stopped_callback_timeout, value);
        else if (field == "group_id")
            job_.group_id = value;
        else if (field == "rate_limit_key")
            job_.rate_limit_key = value;
        else if (field == "rate_limit_concurrency")
            number(job_.rate_limit_concurrency, value);
        else if (field == "meta")
            job_.meta = value;
        else if (field == "webhooks")
            job_.webhooks = value;
        else
            job_.extra.emplace_back(field, value);
    }

    std::vector<ParseError> problems;

private:
    void refuse(std::string why) { problems.emplace_back(std::move(why), std::string(field_)); }

    void time(std::optional<Timestamp>& to, std::string_view value) {
        if (value.empty()) return;
        const auto parsed = parse_utc(value);
        if (parsed)
            to = *parsed;
        else
            refuse(parsed.error().message);
    }
    static std::optional<std::int64_t> integer(std::string_view value) {
        std::int64_t result = 0;
        const auto [end, error] =
            std::from_chars(value.data(), value.data() + value.size(), result);
        if (error != std::errc{} || end != value.data() + value.size()) return std::nullopt;
        return result;
    }
    void number(std::optional<std::int64_t>& to, std::string_view value) {
        if (value.empty()) return;
        to = integer(value);
        if (!to) refuse(fmt::format("\"{}\" is not an integer", value.substr(0, 40)));
    }
    void flag(std::optional<bool>& to, std::string_view value) {
        if (value.empty()) return;
        const auto parsed = integer(value);
        if (parsed)
            to = *parsed != 0;
        else if (value == "True" || value == "true")
            to = true;
        else if (value == "False" || value == "false")
            to = false;
        else
            refuse(fmt::format("\"{}\" is not 0 or 1", value.substr(0, 40)));
    }
    void numbers(std::vector<std::int64_t>& to, std::string_view value) {
        if (value.empty()) return;
        const auto list = decode_json(value);
        if (list && list->kind() == Value::Kind::list) {
            for (const auto& item : list->items()) {
                if (item.kind() != Value::Kind::integer) break;
                to.push_back(item.as_integer());
            }
            if (to.size() == list->items().size()) return;
        }
        to.clear();
        refuse("not a JSON list of integers");
    }
    void dependencies(std::string_view value) {
        if (value.empty()) return;
        const auto list = decode_json(value);
        std::vector<std::string> ids;
        if (list && list->kind() == Value::Kind::list) {
            for (const auto& item : list->items()) {
                if (!item.is_string() || !is_valid_job_id(item.as_text())) break;
                ids.push_back(item.as_text());
            }
            if (ids.size() == list->items().size()) {
                job_.dependency_ids = std::move(ids);
                return;
            }
        }
        refuse("not a JSON list of job ids");
    }

    Job& job_;
    std::string_view field_;
};

std::string json_list(const std::vector<std::int64_t>& numbers) {
    return fmt::format("[{}]", fmt::join(numbers, ", "));
}

}  // namespace

bool is_valid_job_id(std::string_view id) noexcept {
    if (id.empty() || id.size() > 512) return false;
    return std::all_of(id.begin(), id.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-';
    });
}

LenientJob parse_job_leniently(std::string_view id, Fields fields) noexcept {
    LenientJob result;
    result.job.id = id;
    Reader reader(result.job);
    bool has_data = false;
    for (const auto& [field, value] : fields) {
        has_data = has_data || field == "data";
        reader.read(field, value);
    }
    if (!has_data) reader.problems.emplace_back("the field is missing", "data");
    result.problems = std::move(reader.problems);
    return result;
}

Parsed<Job> parse_job(std::string_view id, Fields fields) noexcept {
    auto [job, problems] = parse_job_leniently(id, fields);
    if (!problems.empty()) return std::move(problems.front());
    return std::move(job);
}

FieldList to_fields(const Job& job) {
    FieldList fields;
    for (auto& [name, value] : field_values(job))
        fields.emplace_back(name, std::move(value));
    return fields;
}

std::vector<std::pair<std::string_view, std::string>> field_values(const Job& job) {
    std::vector<std::pair<std::string_view, std::string>> fields;
    fields.reserve(24);
    const auto add = [&](std::string_view name, std::string value) {
        fields.emplace_back(name, std::move(value));
    };
    const auto add_time = [&](std::string_view name, const std::optional<Timestamp>& time) {
        add(name, time ? format_utc(*time) : std::string());
    };
    const auto add_number = [&](std::string_view name, const std::optional<std::int64_t>& number) {
        if (number) add(name, std::to_string(*number));
    };
    const auto add_flag = [&](std::string_view name, const std::optional<bool>& flag) {
        if (flag) add(name, *flag ? "1" : "0");
    };
    // Those that RQ always writes, maybe empty. `last_heartbeat` must exist: RQ's parent process
    // deletes a job whose heartbeat creates the field.
    add_time("created_at", job.created_at);
    add("data", job.data);
    add("success_callback_name", job.success_callback_name);
    add("failure_callback_name", job.failure_callback_name);
    add("stopped_callback_name", job.stopped_callback_name);
    add_time("started_at", job.started_at);
    add_time("ended_at", job.ended_at);
    add_time("last_heartbeat", job.last_heartbeat);
    add("worker_name", job.worker_name);
    add("group_id", job.group_id);
    add("status", job.status);
    // Those that carry a value.
    if (!job.origin.empty()) add("origin", job.origin);
    if (!job.description.empty()) add("description", job.description);
    if (job.enqueued_at) add_time("enqueued_at", job.enqueued_at);
    add_number("timeout", job.timeout);
    add_number("result_ttl", job.result_ttl);
    add_number("failure_ttl", job.failure_ttl);
    add_number("ttl", job.ttl);
    add_number("retries_left", job.retries_left);
    if (!job.retry_intervals.empty()) add("retry_intervals", json_list(job.retry_intervals));
    if (job.enqueue_at_front_on_retry.value_or(false)) add("enqueue_at_front_on_retry", "1");
    add_number("number_of_retries", job.number_of_retries);
    add_number("repeats_left", job.repeats_left);
    if (!job.repeat_intervals.empty()) add("repeat_intervals", json_list(job.repeat_intervals));
    add_flag("enqueue_at_front", job.enqueue_at_front);
    add_flag("allow_dependency_failures", job.allow_dependency_failures);
    if (!job.dependency_ids.empty()) {
        Value::Items ids;
        for (const auto& id : job.dependency_ids)
            ids.emplace_back(id);
        add("dependency_ids", encode_json(Value::list(std::move(ids))));
        add("dependency_id", job.dependency_ids.front());
    }
    add_number("success_callback_timeout", job.success_callback_timeout);
    add_number("failure_callback_timeout", job.failure_callback_timeout);
    add_number("stopped_callback_timeout", job.stopped_callback_timeout);
    if (!job.rate_limit_key.empty()) add("rate_limit_key", job.rate_limit_key);
    add_number("rate_limit_concurrency", job.rate_limit_concurrency);
    if (!job.meta.empty()) add("meta", job.meta);
    if (!job.webhooks.empty()) add("webhooks", job.webhooks);
    for (const auto& [name, value] : job.extra)
        add(name, value);
    return fields;
}

}  // namespace rqxx
