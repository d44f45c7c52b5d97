#include <rqxx/why.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <rqxx/monitor.hpp>
#include <rqxx/rules.hpp>

#include "base/wildcard.hpp"
#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"
#include "ops/rule_set.hpp"
#include "ops/sorting.hpp"

namespace rqxx {
namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

namespace {

/// Rules that change while the question is asked.
constexpr int most_attempts = 5;
/// Jobs that ended longer ago say nothing of how fast the queue moves.
constexpr auto rate_window = 1h;

bool is_time(std::string_view field) {
    return field == "until" || field == "since" || field == "due";
}

/// Of lua/why.lua: `code, field, value, ...`.
class Fields {
public:
    explicit Fields(const Reply& row) : row_(&row) {}
    [[nodiscard]] const std::string& code() const { return row_->as_array().at(0).text; }
    [[nodiscard]] const Reply* find(std::string_view field) const {
        for (std::size_t i = 1; i + 1 < row_->elements.size(); i += 2) {
            if (row_->elements[i].text == field) return &row_->elements[i + 1];
        }
        return nullptr;
    }
    [[nodiscard]] std::string text(std::string_view field) const {
        const Reply* reply = find(field);
        return reply != nullptr && !reply->is_array() ? reply->as_text() : std::string();
    }
    [[nodiscard]] std::int64_t number(std::string_view field) const {
        const Reply* reply = find(field);
        return reply != nullptr && reply->type == Reply::Type::integer ? reply->integer : 0;
    }
    [[nodiscard]] bool has(std::string_view field) const { return find(field) != nullptr; }
    /// A time as text; empty where there is none.
    [[nodiscard]] std::string time(std::string_view field) const {
        const Reply* reply = find(field);
        if (reply == nullptr) return {};
        if (reply->type != Reply::Type::integer) return reply->as_text();
        return format_utc(Timestamp(std::chrono::microseconds(reply->integer)));
    }
    [[nodiscard]] Value data() const {
        Value::Pairs pairs;
        for (std::size_t i = 1; i + 1 < row_->elements.size(); i += 2) {
            const std::string& field = row_->elements[i].text;
            pairs.push_back({field, value(field, row_->elements[i + 1])});
        }
        return Value::dict(std::move(pairs));
    }

private:
    [[nodiscard]] Value value(std::string_view field, const Reply& reply) const {
        if (is_time(field)) return time(field).empty() ? Value() : Value(time(field));
        if (field == "late") return static_cast<double>(reply.integer) / 1e6;
        if (field == "allows_failure") return reply.integer == 1;
        if (field == "dependencies") return dependencies(reply);
        if (!reply.is_array())
            return reply.type == Reply::Type::integer ? Value(reply.integer) : Value(reply.text);
        Value::Items items;
        for (const auto& item : reply.elements)
            items.emplace_back(item.text);
        return Value::list(std::move(items));
    }

    static Value dependencies(const Reply& reply) {
        Value::Items items;
        for (std::size_t i = 0; i + 1 < reply.elements.size(); i += 2)
            items.push_back(Value::dict(
                {{"id", reply.elements[i].text}, {"status", reply.elements[i + 1].text}}));
        return Value::list(std::move(items));
    }

    const Reply* row_;
};

std::string counted(std::int64_t count, std::string_view one, std::string_view many) {
    return fmt::format("{} {}", count, count == 1 ? one : many);
}

std::string listed(const Reply* items, std::size_t step = 1) {
    std::string text;
    std::size_t shown = 0;
    for (std::size_t i = 0; items != nullptr && i < items->elements.size(); i += step) {
        if (++shown > 5) return text + ", …";
        if (!text.empty()) text += ", ";
        text += items->elements[i].text;
        if (step == 2) text += " (" + items->elements[i + 1].text + ")";
    }
    return text;
}

std::string at_time(const std::string& time) {
    return time.empty() ? std::string() : " at " + time;
}

std::string limiter_name(const Fields& f) {
    const auto key = f.text("key");
    return key.empty() ? f.text("rule") : fmt::format("{} (key {})", f.text("rule"), key);
}

std::string limited_text(const Fields& f) {
    if (f.has("until"))
        return fmt::format("Limit {} lets it start at {} at the earliest", limiter_name(f),
                           f.time("until"));
    if (f.text("scope") == "worker")
        return fmt::format("Each worker runs as many as limit {} lets it: {}", limiter_name(f),
                           f.number("limit"));
    return fmt::format("Limit {} lets {} run at once; it waits until one of {} ends",
                       limiter_name(f), f.number("limit"),
                       counted(f.number("used"), "that runs", "that run"));
}

std::string position_text(const Fields& f, const std::string& queue) {
    if (f.has("more_than"))
        return fmt::format("More than {} jobs are before it on queue {}", f.number("more_than"),
                           queue);
    if (!f.has("place")) return fmt::format("It waits on queue {}", queue);
    if (f.text("in") == "queue")
        return fmt::format("It is number {} of {} on queue {}", f.number("place"),
                           f.number("waiting"), queue);
    auto text = fmt::format("It is number {} of {} of its kind on queue {}", f.number("place"),
                            f.number("waiting"), queue);
    if (f.has("lanes_before"))
        text += fmt::format(", and {} of other kinds before those",
                            counted(f.number("lanes_before"), "group is", "groups are"));
    return text;
}

std::string dependency_text(const Fields& f) {
    const auto count = counted(f.number("count"), "job", "jobs");
    const auto names = listed(f.find("dependencies"), 2);
    if (f.code() == "dependency_missing")
        return fmt::format("It depends on {} that no longer exist{}: {}", count,
                           f.number("count") == 1 ? "s" : "", names);
    if (f.code() == "dependency_failed")
        return fmt::format("It depends on {} that did not succeed, which it does not allow: {}",
                           count, names);
    return fmt::format("It waits for {} to finish: {}", count, names);
}

/// Of jobs that do not wait.
std::string state_text(const Fields& f) {
    const std::string& code = f.code();
    if (code == "finished") return "It has finished" + at_time(f.time("since"));
    if (code == "failed") return "It has failed" + at_time(f.time("since"));
    if (code == "stopped") return "It was stopped" + at_time(f.time("since"));
    if (code == "canceled") return "It was canceled";
    if (code == "running")
        return fmt::format("It runs since {}, on worker {}", f.time("since"), f.text("worker"));
    if (code == "worker_lost")
        return fmt::format(
            "Worker {} that runs it has not been heard of since {}; the job is taken back within "
            "15 s, if a worker or server runs",
            f.text("worker"), f.time("since"));
    if (code == "not_held")
        return "It is marked as started, but no worker runs it; rqxx doctor --repair mends that";
    if (code == "not_enqueued") return "It was saved, but never put on a queue";
    if (code == "unreadable") return "What is stored under its key is no job";
    return {};
}

/// Of jobs that depend on others, on the time, or on RQ's rate limit.
std::string deferred_text(const Fields& f, const std::string& queue) {
    const std::string& code = f.code();
    if (code.starts_with("dependency_")) return dependency_text(f);
    if (code == "dependencies_met")
        return "Nothing that it depends on holds it up any more; a worker or server releases it "
               "within 10 s";
    if (code == "scheduled") return "It is scheduled for " + f.time("until");
    if (code == "no_scheduler")
        return fmt::format(
            "No scheduler sees to queue {}; rqxx serve and workers with --with-scheduler have one",
            queue);
    if (code == "scheduler_late")
        return fmt::format("It was due at {}, {} s ago; scheduler {} of the queue is late",
                           f.time("due"),
                           format_seconds(Seconds(static_cast<double>(f.number("late")) / 1e6)),
                           f.text("scheduler"));
    if (code == "rate_limited")
        return fmt::format(
            "RQ's rate limit {} lets {} jobs be queued or running; it is number {} of {} that wait",
            f.text("key"), f.number("limit"), f.number("place"), f.number("waiting"));
    return {};
}

std::string busy_text(const Fields& f, const std::string& queue) {
    const auto workers = f.number("workers");
    if (workers == 1) return fmt::format("The one worker on queue {} is busy", queue);
    return fmt::format("All {} workers on queue {} are busy", workers, queue);
}

std::string queued_text(const Fields& f, const std::string& queue) {
    const std::string& code = f.code();
    if (code == "suspended")
        return f.has("until") ? "All workers are suspended until " + f.time("until")
                              : std::string("All workers are suspended, until: rqxx resume");
    if (code == "queue_paused")
        return fmt::format("Queue {} is paused, by {} (stock RQ workers know nothing of it)", queue,
                           listed(f.find("rules")));
    if (code == "function_paused")
        return fmt::format("Function {} is paused, by {}", f.text("function"), f.text("rule"));
    if (code == "no_worker") return fmt::format("No worker listens on queue {}", queue);
    if (code == "only_stock_workers")
        return "Only stock RQ workers listen on the queue, which do not see jobs that are sorted "
               "by limits or keys";
    if (code == "pushed_back")
        return fmt::format("Limit {} was pushed back, and lets nothing pass until {}",
                           limiter_name(f), f.time("until"));
    if (code == "limited") return limited_text(f);
    if (code == "unsorted")
        return "A worker has yet to sort it by the rules that hold for its queue now";
    if (code == "being_taken")
        return "A stock RQ worker has taken it off its queue just now; if that one died, it goes "
               "back within 90 s";
    if (code == "workers_busy") return busy_text(f, queue);
    if (code == "position") return position_text(f, queue);
    if (code == "off_queue")
        return "Its status says that it waits, but it stands nowhere; rqxx doctor --repair mends "
               "that";
    return {};
}

std::string sentence(const Fields& f, const std::string& queue) {
    for (auto& text : {state_text(f), deferred_text(f, queue), queued_text(f, queue)}) {
        if (!text.empty()) return text;
    }
    return fmt::format("Its status is {}, which is not known here", f.text("status"));
}

/// When a job starts that so many others are before; `ended`: when the newest of the queue did.
std::optional<Timestamp> estimate(const Reply& ended, std::int64_t jobs_before, Timestamp now) {
    std::vector<Timestamp> times;
    for (const auto& text : ended.elements) {
        const auto time = parse_utc(text.text);
        if (time && *time <= now && *time > now - rate_window) times.push_back(*time);
    }
    if (times.size() < 2) return std::nullopt;
    const auto each =
        (now - *std::ranges::min_element(times)) / static_cast<std::int64_t>(times.size());
    if (jobs_before > 10'000'000) return std::nullopt;
    return now + (jobs_before + 1) * std::max<std::chrono::microseconds>(each, 1us);
}

/// What the script is asked, of the job as it is stored.
std::vector<std::string> arguments(const std::string& id, const Reply& fields,
                                   const Rules::Listing& listing) {
    const auto field = [&](std::size_t i) {
        return fields.is_array() ? fields.elements.at(i).text : std::string();
    };
    const std::string queue = field(0);
    const auto rules = ops::RuleSet(listing).for_queue(queue);
    std::vector<std::string> args{id, listing.version, queue,
                                  ops::lane_for(rules, queue, field(1), field(2)), ""};
    for (const auto& rule : listing.rules) {
        if (rule.kind == Rule::Kind::pause && rule.function.empty() &&
            (rule.queue.empty() || matches_wildcard(rule.queue, queue)))
            args.push_back(rule.name);
    }
    args[4] = std::to_string(args.size() - 5);
    args.insert(args.end(), rules.limits.begin(), rules.limits.end());
    return args;
}

}  // namespace

asio::awaitable<std::optional<WaitReport>> Monitor::why(std::string id) {
    Rules rules(*redis_);
    for (int attempt = 0; attempt < most_attempts; ++attempt) {
        const auto listing = co_await rules.list();
        Pipeline pipeline;
        pipeline.add("HMGET", keys::job(id), "origin", "data", "meta");
        const auto fields = co_await redis_->run(std::move(pipeline));
        auto args = arguments(id, fields.front(), listing);
        WaitReport report{.job_id = id, .queue = args[2]};
        const Reply reply = co_await redis_->eval(lua::why, {keys::job(id)}, std::move(args));
        const auto& parts = reply.as_array();
        if (parts.empty()) co_return std::nullopt;
        if (parts.size() != 4) continue;
        report.now = Timestamp(std::chrono::microseconds(parts[0].as_integer()));
        report.status = parts[1].text;
        bool held_up = false;
        for (const auto& row : parts[2].as_array()) {
            const Fields reason(row);
            if (reason.code() == "position" && reason.has("jobs_before") && !held_up)
                report.estimated_start =
                    estimate(parts[3], reason.number("jobs_before"), report.now);
            held_up = held_up || reason.code() != "workers_busy";
            report.reasons.push_back(
                {reason.code(), sentence(reason, report.queue), reason.data()});
        }
        co_return report;
    }
    throw Error(Errc::timeout, "the rules change faster than they can be read");
}

json::object to_json(const WaitReport& report) {
    json::array reasons;
    for (const auto& reason : report.reasons)
        reasons.push_back({{"code", reason.code},
                           {"text", to_json(Value(reason.text))},
                           {"data", to_json(reason.data)}});
    json::object out{{"id", report.job_id},
                     {"status", to_json(Value(report.status))},
                     {"queue", to_json(Value(report.queue))},
                     {"reasons", std::move(reasons)}};
    out["estimated_start"] = report.estimated_start
                                 ? json::value(format_utc(*report.estimated_start))
                                 : json::value(nullptr);
    out["at"] = format_utc(report.now);
    return out;
}

}  // namespace rqxx
