#include "http/job_json.hpp"

#include <algorithm>
#include <boost/json/array.hpp>

#include "base/wildcard.hpp"

namespace rqxx::http {
namespace {

namespace json = boost::json;

std::string lower(std::string_view text) {
    std::string result(text);
    for (char& c : result)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    return result;
}

/// `{"$dict": [[key, value], ...]}`, as dictionaries look whose keys are not all plain text.
bool redact_entries(json::array& entries, const Redaction& redaction) {
    bool found = false;
    for (auto& entry : entries) {
        if (!entry.is_array() || entry.get_array().size() != 2) continue;
        json::value& key = entry.get_array()[0];
        json::value& value = entry.get_array()[1];
        if (key.is_string() && is_hidden(key.get_string(), redaction)) {
            value = hidden_text;
            found = true;
        } else {
            found = redact_members(value, redaction) || found;
        }
    }
    return found;
}

bool hide(json::object& object, std::string_view name) {
    auto* value = object.if_contains(name);
    if (value == nullptr || value->is_null()) return false;
    *value = hidden_text;
    return true;
}

bool has_label(const json::object& job, std::string_view name, std::string_view label) {
    const auto* value = job.if_contains(name);
    return value != nullptr && value->is_object() && value->get_object().contains(label);
}

}  // namespace

bool is_hidden(std::string_view name, const Redaction& redaction) {
    if (redaction.all) return true;
    const std::string plain = lower(name);
    return std::ranges::any_of(redaction.names, [&](const std::string& pattern) {
        return matches_wildcard(lower(pattern), plain);
    });
}

bool redact_members(json::value& tree, const Redaction& redaction) {
    bool found = false;
    if (auto* array = tree.if_array()) {
        for (auto& item : *array)
            found = redact_members(item, redaction) || found;
    } else if (auto* object = tree.if_object()) {
        for (auto& [name, value] : *object) {
            if (name == "$dict" && value.is_array()) {
                found = redact_entries(value.get_array(), redaction) || found;
            } else if (is_hidden(name, redaction)) {
                value = hidden_text;
                found = true;
            } else {
                found = redact_members(value, redaction) || found;
            }
        }
    }
    return found;
}

void redact_job(json::object& job, const Redaction& redaction) {
    if (redaction.empty()) return;
    // Nobody can look for names in what cannot be read.
    bool in_call = redaction.all || has_label(job, "args", "$undecodable");
    const auto treat = [&](json::object& object, std::string_view name) {
        if (redaction.all) return hide(object, name);
        auto* value = object.if_contains(name);
        return value != nullptr && redact_members(*value, redaction);
    };
    for (const auto* name : {"args", "kwargs"})
        in_call = treat(job, name) || in_call;
    for (const auto* name : {"result", "meta"})
        treat(job, name);
    if (auto* executions = job.if_contains("executions"); executions && executions->is_array())
        for (auto& execution : executions->get_array())
            for (const auto* name : {"result", "progress"})
                if (execution.is_object()) treat(execution.get_object(), name);
    // RQ's keys of rate limits are made of arguments.
    if (auto* limit = job.if_contains("rate_limit"); redaction.all && limit && limit->is_object())
        hide(limit->get_object(), "key");
    // It has the arguments as text.
    if (in_call) hide(job, "description");
}

void redact_rate_limits(json::array& limits, const Redaction& redaction) {
    if (!redaction.all) return;
    for (auto& limit : limits)
        hide(limit.as_object(), "key");
}

json::object job_json(const JobInfo& info, const Redaction& redaction) {
    json::object job = to_json(info);
    redact_job(job, redaction);
    return job;
}

}  // namespace rqxx::http
