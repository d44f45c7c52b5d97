#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>
#include <cmath>
#include <map>
#include <rqxx/cron_entries.hpp>
#include <rqxx/value.hpp>

#include "base/utf8.hpp"
#include "ops/etag.hpp"
#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"
#include "ops/new_job.hpp"

namespace rqxx {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t shown_runs = 24;
constexpr std::size_t shown_slots = 5;
constexpr std::int64_t most_processes = 100;

// ---- one entry ---------------------------------------------------------------------------------

std::string text_of(std::string_view name, const json::value& value) {
    if (!value.is_string()) ops::refuse(name, "must be text");
    return std::string(value.get_string());
}

std::chrono::seconds duration_of(std::string_view name, const json::value& value) {
    if (const auto* seconds = value.if_int64()) {
        if (*seconds < -1 || *seconds > 1'000'000'000) ops::refuse(name, "is out of range");
        return std::chrono::seconds(*seconds);
    }
    const auto duration = parse_duration(text_of(name, value));
    if (!duration) ops::refuse(name, duration.error().message);
    return *duration;
}

Value value_of(const json::value& value) {
    auto decoded = decode_json(json::serialize(value));
    return decoded ? std::move(*decoded) : Value();
}

template <class T>
T parsed(std::string_view name, Parsed<T> value) {
    if (!value) ops::refuse(name, value.error().describe());
    return std::move(*value);
}

using Reader = void (*)(CronSchedule& to, std::string_view name, const json::value& value);

const std::map<std::string_view, Reader> readers{
    {"func", [](CronSchedule& to, std::string_view name,
                const json::value& value) { to.call.func_name = text_of(name, value); }},
    {"cron",
     [](CronSchedule& to, std::string_view name, const json::value& value) {
         to.cron = parsed(name, CronExpression::parse(text_of(name, value)));
     }},
    {"every",
     [](CronSchedule& to, std::string_view name, const json::value& value) {
         to.every = duration_of(name, value);
         if (to.every < 1s) ops::refuse(name, "must be at least 1 s");
     }},
    {"queue", [](CronSchedule& to, std::string_view name,
                 const json::value& value) { to.queue = text_of(name, value); }},
    {"args",
     [](CronSchedule& to, std::string_view name, const json::value& value) {
         if (!value.is_array()) ops::refuse(name, "must be a list");
         to.call.args = Value::tuple(value_of(value).items());
     }},
    {"kwargs",
     [](CronSchedule& to, std::string_view name, const json::value& value) {
         if (!value.is_object()) ops::refuse(name, "must be an object");
         to.call.kwargs = value_of(value);
     }},
    {"timezone",
     [](CronSchedule& to, std::string_view name, const json::value& value) {
         to.zone = parsed(name, TimeZone::find(text_of(name, value)));
     }},
    {"catch_up",
     [](CronSchedule& to, std::string_view name, const json::value& value) {
         to.catch_up = parsed(name, parse_catch_up(text_of(name, value)));
     }},
    {"overlap",
     [](CronSchedule& to, std::string_view name, const json::value& value) {
         to.overlap = parsed(name, parse_overlap(text_of(name, value)));
     }},
    {"jitter", [](CronSchedule& to, std::string_view name,
                  const json::value& value) { to.jitter = duration_of(name, value); }},
    {"timeout", [](CronSchedule& to, std::string_view name,
                   const json::value& value) { to.options.timeout = duration_of(name, value); }},
    {"result_ttl",
     [](CronSchedule& to, std::string_view name, const json::value& value) {
         to.options.result_ttl = duration_of(name, value);
     }},
    {"failure_ttl",
     [](CronSchedule& to, std::string_view name, const json::value& value) {
         to.options.failure_ttl = duration_of(name, value);
     }},
    {"ttl", [](CronSchedule& to, std::string_view name,
               const json::value& value) { to.options.ttl = duration_of(name, value); }},
    {"meta",
     [](CronSchedule& to, std::string_view name, const json::value& value) {
         if (!value.is_object()) ops::refuse(name, "must be an object");
         to.options.meta = value_of(value);
     }},
    {"retry",
     [](CronSchedule& to, std::string_view name, const json::value& value) {
         const auto* most = value.if_int64();
         if (most == nullptr) ops::refuse(name, "must be a whole number");
         to.options.retry = Retry{.max = *most, .intervals = {}, .enqueue_at_front = false};
     }},
    {"description",
     [](CronSchedule& to, std::string_view name, const json::value& value) {
         to.options.description = text_of(name, value);
     }},
    {"serializer",
     [](CronSchedule& to, std::string_view name, const json::value& value) {
         to.serializer = parsed(name, parse_serializer(text_of(name, value)));
     }},
};

// ---- in words ----------------------------------------------------------------------------------

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    while (!text.empty()) {
        const auto end = text.find(separator);
        if (end != 0) parts.push_back(text.substr(0, end));
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    }
    return parts;
}

std::optional<int> number_in(std::string_view text, int low, int high) {
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return {};
    if (value < low || value > high) return {};
    return value;
}

std::optional<int> step_of(std::string_view field, int high) {
    if (!field.starts_with("*/")) return std::nullopt;
    return number_in(field.substr(2), 2, high);
}

std::string weekdays_in_words(std::string_view field) {
    static constexpr std::array names{"Sunday",   "Monday", "Tuesday",  "Wednesday",
                                      "Thursday", "Friday", "Saturday", "Sunday"};
    static constexpr std::array shorts{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"};
    const auto day = [](std::string_view text) -> std::optional<int> {
        std::string upper(text);
        for (char& c : upper)
            if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 32);
        const auto named = std::ranges::find(shorts, upper);
        if (named != shorts.end()) return static_cast<int>(named - shorts.begin());
        return number_in(text, 0, 7);
    };
    const auto ends = split(field, '-');
    if (field.find(',') != std::string_view::npos || field.find('/') != std::string_view::npos ||
        ends.empty() || ends.size() > 2)
        return {};
    const auto first = day(ends.front());
    const auto last = day(ends.back());
    if (!first || !last) return {};
    if (ends.size() == 1) return fmt::format("on {}s", names.at(static_cast<std::size_t>(*first)));
    return fmt::format("{} to {}", names.at(static_cast<std::size_t>(*first)),
                       names.at(static_cast<std::size_t>(*last)));
}

// ---- the listing -------------------------------------------------------------------------------

std::string member_text(const Value& dict, std::string_view name) {
    const Value* value = dict.find(name);
    return value != nullptr && value->is_string() ? value->as_text() : std::string();
}

/// As RQ's cron processes show it. Source: rq/cron.py CronJob.to_dict (RQ 2.10).
void add_shown(std::map<std::string, CronListing>& schedules, const std::string& process,
               std::string_view text, bool of_stored) {
    const auto jobs = decode_json(text);
    if (!jobs || jobs->kind() != Value::Kind::list) return;
    for (const Value& job : jobs->items()) {
        if (!job.is_dict()) continue;
        const std::string func = member_text(job, "func_name");
        std::string name = member_text(job, "name");
        if (name.empty()) name = func;
        if (name.empty() || name.size() > 512 || schedules.size() >= 2 * CronEntries::most)
            continue;
        // What was taken away is shown until its process has noticed.
        if (of_stored && !schedules.contains(name)) continue;
        CronListing& listing = schedules[name];
        listing.name = name;
        listing.processes.push_back(process);
        if (listing.stored) continue;
        listing.shown = job;
        listing.func_name = func;
        listing.queue = member_text(job, "queue_name");
        listing.expression = member_text(job, "cron");
        listing.args = member_text(job, "args");
        listing.kwargs = member_text(job, "kwargs");
        if (const Value* every = job.find("interval");
            every != nullptr && every->kind() == Value::Kind::integer)
            listing.interval = every->as_integer();
    }
}

void add_slots(CronListing& listing, const CronSchedule& schedule, Slot now) {
    auto slot = schedule.next(now);
    for (; slot && listing.next.size() < shown_slots; slot = schedule.next(*slot))
        listing.next.push_back(*slot);
}

void describe_stored(CronListing& listing, Slot now) {
    try {
        const CronSchedule schedule = schedule_of(listing);
        listing.func_name = schedule.call.func_name;
        listing.queue = schedule.queue;
        listing.timezone = schedule.zone.name();
        listing.args = encode_json(Value::list(schedule.call.args.items()));
        listing.kwargs = encode_json(schedule.call.kwargs);
        if (schedule.cron)
            listing.expression = schedule.cron->text();
        else
            listing.interval = schedule.every.count();
        add_slots(listing, schedule, now);
    } catch (const Error& error) {
        listing.problem = error.message();
    }
}

/// `rule` is what a process of ours has written down: the expression as given, and the zone.
void describe_shown(CronListing& listing, const std::string& rule, Slot now) {
    CronSchedule schedule;
    if (listing.interval) {
        if (*listing.interval < 1) return;
        schedule.every = std::chrono::seconds(*listing.interval);
    } else {
        const auto space = rule.rfind(' ');
        if (!rule.empty() && !rule.starts_with("every ") && space != std::string::npos) {
            listing.expression = rule.substr(0, space);
            listing.timezone = rule.substr(space + 1);
        } else if (split(listing.expression, ' ').size() > 5) {
            return;  // Of RQ's own: its seconds come last.
        }
        const auto expression = CronExpression::parse(listing.expression);
        if (!expression) return;
        schedule.cron = *expression;
        if (const auto zone = TimeZone::find(listing.timezone); !listing.timezone.empty() && zone)
            schedule.zone = *zone;
    }
    add_slots(listing, schedule, now);
}

std::string text_in(const Reply& reply, std::size_t index) {
    if (!reply.is_array() || index >= reply.elements.size()) return {};
    return reply.elements[index].text;
}

json::value text_or_null(const std::string& text) {
    return text.empty() ? json::value() : to_json(Value(text));
}

json::value json_or_null(const std::string& text) {
    const auto value = decode_json(text);
    return text.empty() || !value ? json::value() : to_json(*value);
}

json::object run_json(const CronRun& run) {
    return {{"at", format_utc(run.at)},
            {"job_id", to_json(Value(run.job_id))},
            {"status", text_or_null(run.status)}};
}

}  // namespace

CronSchedule read_cron_entry(std::string name, const json::object& entry) {
    CronSchedule schedule;
    schedule.name = std::move(name);
    for (const auto& [key, value] : entry) {
        const auto reader = readers.find(std::string_view(key));
        if (reader == readers.end())
            throw Error(Errc::usage,
                        fmt::format("{}: is not known", std::string_view(key).substr(0, 80)));
        if (!value.is_null()) reader->second(schedule, reader->first, value);
    }
    if (schedule.call.func_name.empty()) ops::refuse("func", "is missing");
    schedule.check();
    return schedule;
}

std::string cron_in_words(std::string_view expression) {
    static const std::map<std::string_view, std::string_view> named{
        {"@hourly", "every hour"},
        {"@daily", "at 00:00, every day"},
        {"@midnight", "at 00:00, every day"},
        {"@weekly", "at 00:00, on Sundays"},
        {"@monthly", "at 00:00, on day 1 of the month"},
        {"@yearly", "at 00:00, on 1 January"},
        {"@annually", "at 00:00, on 1 January"}};
    if (const auto found = named.find(expression); found != named.end())
        return std::string(found->second);
    const auto fields = split(expression, ' ');
    if (fields.size() != 5 || !CronExpression::parse(expression)) return {};
    const auto minute = fields[0], hour = fields[1], day = fields[2], month = fields[3],
               weekday = fields[4];
    std::string when;
    const auto at_minute = number_in(minute, 0, 59);
    const auto at_hour = number_in(hour, 0, 23);
    if (minute == "*" && hour == "*")
        when = "every minute";
    else if (const auto step = step_of(minute, 30); step && hour == "*" && 60 % *step == 0)
        when = fmt::format("every {} minutes", *step);
    else if (at_minute && hour == "*")
        when = *at_minute == 0 ? "every hour" : fmt::format("every hour at minute {}", *at_minute);
    else if (const auto hours = step_of(hour, 12); hours && at_minute == 0 && 24 % *hours == 0)
        when = fmt::format("every {} hours", *hours);
    else if (at_minute && at_hour)
        when = fmt::format("at {:02}:{:02}", *at_hour, *at_minute);
    else
        return {};
    if (month != "*") return {};
    if (day == "*" && weekday == "*") return at_minute && at_hour ? when + ", every day" : when;
    if (day == "*") {
        const auto days = weekdays_in_words(weekday);
        return days.empty() ? days : when + ", " + days;
    }
    const auto of_month = number_in(day, 1, 31);
    if (weekday != "*" || !of_month) return {};
    return fmt::format("{}, on day {} of the month", when, *of_month);
}

namespace {

/// Seconds as RQ takes them: a number, or text such as 1h.
std::optional<std::chrono::seconds> shown_seconds(const Value& job, std::string_view name) {
    const Value* value = job.find(name);
    if (value == nullptr || value->is_none()) return std::nullopt;
    if (value->kind() == Value::Kind::integer) return std::chrono::seconds(value->as_integer());
    if (!value->is_string()) ops::refuse(name, "is no number of seconds");
    return parsed(name, parse_duration(value->as_text()));
}

/// Values that are shown as JSON, which RQ replaces where they cannot be.
/// Source: rq/utils.py safe_json_dumps (RQ 2.10).
std::optional<Value> shown_json(const Value& job, std::string_view name, Value::Kind kind) {
    const Value* value = job.find(name);
    if (value == nullptr || value->is_none()) return std::nullopt;
    auto decoded = decode_json(value->is_string() ? value->as_text() : std::string());
    if (!decoded || decoded->kind() != kind) ops::refuse(name, "is not shown as JSON");
    return std::move(*decoded);
}

CronSchedule read_shown(const CronListing& listing) {
    static constexpr std::array known{"name",
                                      "func_name",
                                      "queue_name",
                                      "args",
                                      "kwargs",
                                      "interval",
                                      "cron",
                                      "latest_enqueue_time",
                                      "ttl",
                                      "job_timeout",
                                      "next_enqueue_time",
                                      "result_ttl",
                                      "meta",
                                      "failure_ttl"};
    const Value& job = listing.shown;
    for (const auto& [key, value] : job.pairs())
        if (!value.is_none() && key.is_string() &&
            std::ranges::find(known, key.as_text()) == known.end())
            ops::refuse(key.as_text(), "cannot be taken over");
    CronSchedule schedule;
    schedule.name = listing.name;
    schedule.call.func_name = listing.func_name;
    if (!listing.queue.empty()) schedule.queue = listing.queue;
    if (auto args = shown_json(job, "args", Value::Kind::list))
        schedule.call.args = Value::tuple(std::move(args->items()));
    if (auto kwargs = shown_json(job, "kwargs", Value::Kind::dict))
        schedule.call.kwargs = std::move(*kwargs);
    if (auto meta = shown_json(job, "meta", Value::Kind::dict))
        schedule.options.meta = std::move(*meta);
    schedule.options.timeout = shown_seconds(job, "job_timeout");
    schedule.options.result_ttl = shown_seconds(job, "result_ttl");
    schedule.options.failure_ttl = shown_seconds(job, "failure_ttl");
    schedule.options.ttl = shown_seconds(job, "ttl");
    schedule.every = 1s;  // One of its slots is not asked for.
    schedule.check();
    return schedule;
}

}  // namespace

CronSchedule schedule_of(const CronListing& listing) {
    if (!listing.stored) return read_shown(listing);
    boost::system::error_code malformed;
    const json::value value = json::parse(listing.json, malformed);
    if (malformed || !value.is_object()) throw Error(Errc::usage, "it is no JSON object");
    return read_cron_entry(listing.name, value.get_object());
}

json::object to_json(const CronListing& listing) {
    json::array next, runs, processes;
    for (const Slot slot : listing.next)
        next.push_back(json::value(format_utc(slot)));
    for (const auto& run : listing.runs)
        runs.push_back(run_json(run));
    for (const auto& process : listing.processes)
        processes.push_back(to_json(Value(process)));
    json::value last;
    if (!listing.runs.empty()) last = run_json(listing.runs.front());
    return {{"id", to_json(Value(listing.name))},
            {"name", to_json(Value(listing.name))},
            {"stored", listing.stored},
            {"expression", text_or_null(listing.expression)},
            {"interval", listing.interval ? json::value(*listing.interval) : json::value()},
            {"words", text_or_null(cron_in_words(listing.expression))},
            {"timezone", text_or_null(listing.timezone)},
            {"func_name", text_or_null(listing.func_name)},
            {"queue", text_or_null(listing.queue)},
            {"args", json_or_null(listing.args)},
            {"kwargs", json_or_null(listing.kwargs)},
            {"next", std::move(next)},
            {"last", std::move(last)},
            {"runs", std::move(runs)},
            {"lag", listing.lag ? json::value(*listing.lag) : json::value()},
            {"paused", listing.paused},
            {"can_pause", listing.heeds_pause},
            {"processes", std::move(processes)},
            {"leader", text_or_null(listing.leader)},
            {"entry", json_or_null(listing.json)},
            {"etag", text_or_null(listing.etag)},
            {"problem", text_or_null(listing.problem)}};
}

asio::awaitable<CronPage> CronEntries::list(std::string after, std::size_t limit) {
    return read(std::nullopt, std::move(after), limit);
}

asio::awaitable<std::optional<CronListing>> CronEntries::find(std::string name) {
    auto found = co_await read(std::move(name), "", 1);
    if (found.schedules.empty()) co_return std::nullopt;
    co_return std::move(found.schedules.front());
}

asio::awaitable<CronPage> CronEntries::read(std::optional<std::string> only, std::string after,
                                            std::size_t limit) {
    Pipeline first;
    first.add("TIME")
        .add("HKEYS", keys::cron_entries)
        .add("ZREVRANGE", keys::cron_schedulers, 0, most_processes - 1)
        .add("GET", keys::cron_leader(stored_cron_group));
    const auto begin = co_await redis_->run(std::move(first));
    std::int64_t seconds = 0;
    const std::string clock = text_in(begin.at(0), 0);
    std::from_chars(clock.data(), clock.data() + clock.size(), seconds);
    const Slot now{std::chrono::seconds(seconds)};

    std::map<std::string, CronListing> schedules;
    if (begin.at(1).is_array())
        for (const auto& name : begin.at(1).elements)
            schedules[name.text].stored = true;
    // Of those kept in Redis, these can be on the page, whatever processes show.
    std::vector<std::string> stored;
    for (const auto& [name, listing] : schedules)
        if (only ? name == *only : (after.empty() || name > after) && stored.size() <= limit)
            stored.push_back(name);
    Pipeline second;
    for (const auto& name : stored)
        second.add("HGET", keys::cron_entries, name);
    std::vector<std::string> processes;
    if (begin.at(2).is_array())
        for (const auto& process : begin.at(2).elements) {
            processes.push_back(process.text);
            second.add("HMGET", keys::cron_scheduler(process.text), "cron_jobs", "config_file");
        }
    const auto replies = co_await redis_->run(std::move(second));
    for (std::size_t i = 0; i < stored.size(); ++i) {
        CronListing& listing = schedules[stored[i]];
        listing.name = stored[i];
        listing.json = replies.at(i).text;
        listing.etag = ops::etag_of(listing.json);
        listing.leader = begin.at(3).text;
        // Taken away meanwhile, or somebody else's.
        if (!replies.at(i).is_string()) schedules.erase(stored[i]);
    }
    for (std::size_t i = 0; i < processes.size(); ++i) {
        const Reply& shown = replies.at(stored.size() + i);
        add_shown(schedules, processes[i], text_in(shown, 0),
                  text_in(shown, 1) == stored_cron_file);
    }
    std::erase_if(schedules, [&](const auto& one) {
        return only ? one.first != *only : one.first <= after && !after.empty();
    });
    CronPage page;
    page.more = schedules.size() > limit;
    if (page.more)
        schedules.erase(std::next(schedules.begin(), static_cast<std::ptrdiff_t>(limit)),
                        schedules.end());
    if (schedules.empty()) co_return page;

    std::vector<std::string> args{std::to_string(shown_runs)};
    for (const auto& [name, listing] : schedules)
        args.push_back(name);
    const Reply states = co_await redis_->eval(lua::cron_states, {}, std::move(args));
    std::size_t at = 0;
    for (auto& [name, listing] : schedules) {
        const Reply& state = states.as_array().at(at++);
        listing.paused = text_in(state, 3) == "1";
        listing.heeds_pause = listing.stored || !text_in(state, 0).empty();
        if (listing.stored)
            describe_stored(listing, now);
        else
            describe_shown(listing, text_in(state, 0), now);
        if (const auto last = parse_epoch(text_in(state, 2))) {
            std::int64_t slot = 0;
            const std::string text = text_in(state, 1);
            std::from_chars(text.data(), text.data() + text.size(), slot);
            const double lag =
                Seconds(last->time_since_epoch()).count() - static_cast<double>(slot);
            // A slot that was left out has no job, and no lateness.
            if (lag >= 0) listing.lag = std::round(lag * 1000) / 1000;
        }
        const auto& runs = state.elements.at(4).as_array();
        for (std::size_t i = 0; i + 2 < runs.size(); i += 3)
            if (const auto when = parse_epoch(runs[i + 1].text))
                listing.runs.push_back({*when, runs[i].text, runs[i + 2].text});
        page.schedules.push_back(std::move(listing));
    }
    co_return page;
}

static asio::awaitable<CronEntries::Edit> edit(RedisClient& redis, std::string name,
                                               std::string text, std::string expected) {
    const Reply reply = co_await redis.eval(
        lua::edit_cron,
        {std::string(keys::cron_entries), std::string(keys::cron_entries_version),
         keys::cron_state(name)},
        {name, std::move(text), std::move(expected), std::to_string(CronEntries::most)});
    co_return static_cast<CronEntries::Edit>(reply.as_integer());
}

asio::awaitable<CronEntries::Edit> CronEntries::add(std::string name, std::string text) {
    return edit(*redis_, std::move(name), std::move(text), "new");
}

asio::awaitable<CronEntries::Edit> CronEntries::replace(std::string name, std::string text,
                                                        std::string etag) {
    return edit(*redis_, std::move(name), std::move(text), std::move(etag));
}

asio::awaitable<CronEntries::Edit> CronEntries::remove(std::string name, std::string etag) {
    return edit(*redis_, std::move(name), "", std::move(etag));
}

asio::awaitable<bool> CronEntries::pause(std::string name, bool paused) {
    const Reply changed =
        paused ? co_await redis_->command("HSETNX", keys::cron_state(name), "paused", "1")
               : co_await redis_->command("HDEL", keys::cron_state(name), "paused");
    co_return changed.as_integer() == 1;
}

asio::awaitable<std::string> CronEntries::run_now(CronSchedule schedule) {
    EnqueueOptions options = schedule.options;
    options.job_id = fmt::format("cron-{}-now-{}", schedule.name, new_execution_id());
    const Job job =
        ops::make_job(schedule.call, options, schedule.queue, schedule.serializer, utc_now());
    std::vector<std::string> args{job.id, job.ttl ? std::to_string(*job.ttl) : std::string()};
    for (auto& [field, value] : field_values(job)) {
        args.emplace_back(field);
        args.push_back(std::move(value));
    }
    co_await redis_->eval(
        lua::cron_run_now,
        {keys::job(job.id), keys::queue(schedule.queue), keys::cron_history(schedule.name)},
        std::move(args));
    co_return job.id;
}

}  // namespace rqxx
