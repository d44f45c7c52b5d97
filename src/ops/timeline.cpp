#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <rqxx/timeline.hpp>
#include <rqxx/value.hpp>

#include "base/utf8.hpp"

namespace rqxx {

namespace json = boost::json;

namespace {

constexpr std::size_t longest_details = 500, longest_name = 200;
/// As scripts write it; who else has written to the field gets no more room.
constexpr std::size_t most_lines = 50, most_bytes = 1 << 20;

std::string last_line(std::string_view text) {
    while (!text.empty() && (text.back() == '\n' || text.back() == ' '))
        text.remove_suffix(1);
    text.remove_prefix(text.rfind('\n') + 1);
    return std::string(text.substr(0, longest_details));
}

std::string text_of(const json::object& object, std::string_view name) {
    const auto* value = object.if_contains(name);
    return value != nullptr && value->is_string() ? std::string(value->get_string()) : "";
}

std::string short_text_of(const json::object& object, std::string_view name,
                          std::size_t longest = longest_name) {
    std::string text = text_of(object, name);
    if (text.size() > longest) text.resize(whole_characters(text.substr(0, longest)));
    return text;
}

/// The newest lines, oldest first.
std::vector<std::string_view> last_lines(std::string_view text) {
    text.remove_prefix(text.size() - std::min(text.size(), most_bytes));
    std::vector<std::string_view> lines;
    while (!text.empty() && lines.size() < most_lines) {
        if (text.back() == '\n') text.remove_suffix(1);
        const auto before = text.rfind('\n');
        const std::size_t begin = before == std::string_view::npos ? 0 : before + 1;
        if (begin < text.size()) lines.push_back(text.substr(begin));
        text = text.substr(0, begin);
    }
    std::ranges::reverse(lines);
    return lines;
}

/// A traceback as RQ stores it in results; empty where it is none.
std::string error_of(const std::string& stored) {
    if (stored.empty()) return {};
    const std::pair<std::string_view, std::string_view> fields[] = {
        {"type", "2"}, {"created_at", ""}, {"exc_string", stored}};
    const auto result = parse_result("1-1", fields);
    return result ? last_line(result->exc_string) : std::string();
}

/// One line of the field; an attempt that is over gives its start as well.
void add_told(std::vector<TimelineEvent>& events, std::string_view line) {
    boost::system::error_code malformed;
    const json::value value = json::parse(to_valid_utf8(line), malformed);
    if (malformed || !value.is_object()) return;
    const json::object& told = value.get_object();
    const auto at = parse_utc(text_of(told, "at"));
    TimelineEvent event;
    event.event = short_text_of(told, "event");
    if (!at || event.event.empty()) return;
    event.at = *at;
    event.worker = short_text_of(told, "worker");
    event.execution = short_text_of(told, "execution");
    event.by = short_text_of(told, "by");
    event.details = short_text_of(told, "details", longest_details);
    if (const auto started = parse_epoch(text_of(told, "started_at"))) {
        TimelineEvent start;
        start.at = *started;
        start.event = "started";
        start.worker = event.worker;
        start.execution = event.execution;
        events.push_back(std::move(start));
    }
    if (const auto error = error_of(text_of(told, "exc_string")); !error.empty())
        event.details += (event.details.empty() ? "" : ": ") + error;
    events.push_back(std::move(event));
}

std::string outcome_word(const std::string& outcome) {
    return outcome == "successful" ? "finished" : outcome;
}

void add_execution(std::vector<TimelineEvent>& events, const ExecutionInfo& execution,
                   bool was_stopped) {
    const bool known = std::ranges::any_of(events, [&](const TimelineEvent& event) {
        return event.event == "started" && !execution.id.empty() && event.execution == execution.id;
    });
    TimelineEvent event;
    event.worker = execution.worker;
    event.execution = execution.id;
    if (execution.started_at && !known) {
        event.at = *execution.started_at;
        event.event = "started";
        events.push_back(event);
    }
    if (execution.ended_at && execution.outcome != "started") {
        // Told by the script, with more.
        const bool told = std::ranges::any_of(events, [&](const TimelineEvent& other) {
            return other.event == "retried" && !execution.id.empty() &&
                   other.execution == execution.id;
        });
        if (told) return;
        event.at = *execution.ended_at;
        event.event = was_stopped ? "stopped" : outcome_word(execution.outcome);
        event.details = execution.cause.empty() ? last_line(execution.error)
                        : execution.error.empty()
                            ? execution.cause
                            : execution.cause + ": " + last_line(execution.error);
        events.push_back(event);
    } else if (!execution.progress.empty() && execution.started_at) {
        event.at = *execution.started_at;
        event.event = "progress";
        event.details = execution.progress.substr(0, longest_details);
        events.push_back(event);
    }
}

json::value text_or_null(const std::string& text) {
    return text.empty() ? json::value() : to_json(Value(text));
}

}  // namespace

json::object to_json(const TimelineEvent& event) {
    return {{"at", format_utc(event.at)},           {"event", to_json(Value(event.event))},
            {"worker", text_or_null(event.worker)}, {"execution", text_or_null(event.execution)},
            {"by", text_or_null(event.by)},         {"details", text_or_null(event.details)}};
}

std::vector<TimelineEvent> timeline_of(const JobInfo& info) {
    const Job& job = info.job;
    std::vector<TimelineEvent> events;
    for (const auto& [name, value] : job.extra) {
        if (name != "rqxx_timeline") continue;
        for (const auto line : last_lines(value))
            add_told(events, line);
    }
    bool newest = true;
    for (const auto& execution : info.executions) {
        // Results have no word for it; the job's status has.
        add_execution(events, execution, newest && job.status == status::stopped);
        newest = false;
    }
    const auto add = [&](const std::optional<Timestamp>& at, std::string_view word,
                         std::string details = {}) {
        if (!at) return;
        TimelineEvent event;
        event.at = *at;
        event.event = word;
        event.details = std::move(details);
        events.push_back(std::move(event));
    };
    add(job.created_at, "created");
    if (job.status == status::deferred && !job.enqueued_at)
        add(job.created_at, "deferred", "it waits for other jobs");
    if (job.status == status::scheduled && !job.enqueued_at) add(job.created_at, "scheduled");
    add(job.enqueued_at, "enqueued", job.origin);
    // What stock workers end without a result entry.
    const bool ended = job.status == status::finished || job.status == status::failed ||
                       job.status == status::stopped;
    const bool told = std::ranges::any_of(
        events, [&](const TimelineEvent& event) { return event.event == job.status; });
    if (ended && !told) add(job.ended_at, job.status);
    // At the same moment one is created before it is anything else.
    std::ranges::stable_sort(events, [](const TimelineEvent& a, const TimelineEvent& b) {
        if (a.at != b.at) return a.at < b.at;
        return a.event == "created" && b.event != "created";
    });
    return events;
}

}  // namespace rqxx
