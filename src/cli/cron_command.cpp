#include <fmt/format.h>
#include <signal.h>

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <charconv>
#include <map>
#include <rqxx/cron_service.hpp>
#include <rqxx/json.hpp>
#include <set>

#include "cli/commands.hpp"

namespace rqxx::cli {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

constexpr std::size_t shown_runs = 5;

using Refuse = std::function<void(const std::string& why)>;

template <class T>
T value_or_refuse(Parsed<T> parsed, const Refuse& refuse) {
    if (!parsed) refuse(parsed.error().describe());
    return std::move(*parsed);
}

Value json_value(const std::string& text, bool list, const Refuse& refuse) {
    auto value = decode_json(text);
    if (!value || (list ? value->kind() != Value::Kind::list : !value->is_dict()))
        refuse(list ? "must be a JSON list in single quotes, such as '[1, \"x\"]'"
                    : "must be a JSON object in single quotes, such as '{\"y\": 2}'");
    return std::move(*value);
}

std::int64_t integer(const std::string& text, const Refuse& refuse) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size())
        refuse(fmt::format("\"{}\" is not a whole number", text.substr(0, 40)));
    return value;
}

using Reader = void (*)(CronSchedule& to, const std::string& text, const Refuse& refuse);

/// The keys of a schedule's table.
const std::map<std::string, Reader, std::less<>> keys{
    {"func",
     [](CronSchedule& to, const std::string& text, const Refuse&) { to.call.func_name = text; }},
    {"cron",
     [](CronSchedule& to, const std::string& text, const Refuse& refuse) {
         to.cron = value_or_refuse(CronExpression::parse(text), refuse);
     }},
    {"every",
     [](CronSchedule& to, const std::string& text, const Refuse& refuse) {
         to.every = value_or_refuse(parse_duration(text), refuse);
         if (to.every < 1s) refuse("must be at least 1 s");
     }},
    {"queue", [](CronSchedule& to, const std::string& text, const Refuse&) { to.queue = text; }},
    {"args",
     [](CronSchedule& to, const std::string& text, const Refuse& refuse) {
         to.call.args = Value::tuple(json_value(text, true, refuse).items());
     }},
    {"kwargs", [](CronSchedule& to, const std::string& text,
                  const Refuse& refuse) { to.call.kwargs = json_value(text, false, refuse); }},
    {"timezone",
     [](CronSchedule& to, const std::string& text, const Refuse& refuse) {
         to.zone = value_or_refuse(TimeZone::find(text), refuse);
     }},
    {"catch_up",
     [](CronSchedule& to, const std::string& text, const Refuse& refuse) {
         to.catch_up = value_or_refuse(parse_catch_up(text), refuse);
     }},
    {"overlap",
     [](CronSchedule& to, const std::string& text, const Refuse& refuse) {
         to.overlap = value_or_refuse(parse_overlap(text), refuse);
     }},
    {"jitter",
     [](CronSchedule& to, const std::string& text, const Refuse& refuse) {
         to.jitter = value_or_refuse(parse_duration(text), refuse);
     }},
    {"timeout",
     [](CronSchedule& to, const std::string& text, const Refuse& refuse) {
         to.options.timeout = value_or_refuse(parse_duration(text), refuse);
     }},
    {"result_ttl",
     [](CronSchedule& to, const std::string& text, const Refuse& refuse) {
         to.options.result_ttl = value_or_refuse(parse_duration(text), refuse);
     }},
    {"failure_ttl",
     [](CronSchedule& to, const std::string& text, const Refuse& refuse) {
         to.options.failure_ttl = value_or_refuse(parse_duration(text), refuse);
     }},
    {"ttl",
     [](CronSchedule& to, const std::string& text, const Refuse& refuse) {
         to.options.ttl = value_or_refuse(parse_duration(text), refuse);
     }},
    {"meta", [](CronSchedule& to, const std::string& text,
                const Refuse& refuse) { to.options.meta = json_value(text, false, refuse); }},
    {"retry",
     [](CronSchedule& to, const std::string& text, const Refuse& refuse) {
         to.options.retry =
             Retry{.max = integer(text, refuse), .intervals = {}, .enqueue_at_front = false};
     }},
    {"description", [](CronSchedule& to, const std::string& text,
                       const Refuse&) { to.options.description = text; }},
    {"serializer",
     [](CronSchedule& to, const std::string& text, const Refuse& refuse) {
         to.serializer = value_or_refuse(parse_serializer(text), refuse);
     }},
};

/// @throws Error `Errc::usage` that names file, table and key.
std::vector<CronSchedule> load_schedules(const std::string& file) {
    const auto refuse = [&](const std::string& where, const std::string& why) {
        throw Error(Errc::usage, printable(fmt::format("{}: {}: {}", file, where, why)));
    };
    std::vector<CronSchedule> schedules;
    std::set<std::string> given;
    for (const auto& entry : read_toml(file, "FILE")) {
        if (entry.table.size() > 1)
            refuse(fmt::format("[{}]", fmt::join(entry.table, ".")),
                   "a table within a table is no schedule");
        if (entry.table.empty())
            refuse(entry.key, "must stand in a table, which names the schedule");
        const std::string& name = entry.table.front();
        if (entry.key.empty()) {
            schedules.emplace_back().name = name;
            continue;
        }
        const std::string where = fmt::format("[{}] {}", name, entry.key);
        const auto known = keys.find(entry.key);
        if (known == keys.end()) refuse(where, "unknown key");
        if (entry.list) refuse(where, "needs one value");
        given.insert(where);
        // Dotted keys reach a table without a header.
        if (schedules.empty() || schedules.back().name != name)
            refuse(where, "must stand below the header of its table");
        known->second(schedules.back(), entry.values.front(),
                      [&](const std::string& why) { refuse(where, why); });
    }
    if (schedules.empty()) throw Error(Errc::usage, fmt::format("FILE: {} has no schedules", file));
    for (const auto& schedule : schedules) {
        if (!given.contains(fmt::format("[{}] func", schedule.name)))
            refuse(fmt::format("[{}] func", schedule.name), "is needed");
        try {
            schedule.check();
        } catch (const Error& error) {
            throw Error(error.code(), printable(fmt::format("{}: [{}] {}", file, schedule.name,
                                                            error.message())));
        }
    }
    return schedules;
}

// ---- --check -----------------------------------------------------------------------------------

std::vector<std::string> next_runs(const CronSchedule& schedule) {
    std::vector<std::string> runs;
    auto slot = schedule.next(std::chrono::floor<std::chrono::seconds>(utc_now()));
    for (; slot && runs.size() < shown_runs; slot = schedule.next(*slot))
        runs.push_back(schedule.zone.format(*slot));
    return runs;
}

std::string when(const CronSchedule& schedule) {
    return schedule.cron ? schedule.cron->text() : fmt::format("every {}s", schedule.every.count());
}

void print_schedules(const std::vector<CronSchedule>& schedules) {
    Table table({"SCHEDULE", "WHEN", "ZONE", "QUEUE", "FUNCTION", "NEXT RUNS"});
    for (const auto& schedule : schedules) {
        auto runs = next_runs(schedule);
        runs.resize(std::max<std::size_t>(runs.size(), 1));
        table.add({schedule.name, printable(when(schedule)), schedule.zone.name(),
                   printable(schedule.queue), printable(schedule.call.func_name), runs.front()});
        for (std::size_t i = 1; i < runs.size(); ++i)
            table.add({"", "", "", "", "", runs[i]});
    }
    table.print(stdout);
}

void print_json(const std::vector<CronSchedule>& schedules) {
    json::array list;
    for (const auto& schedule : schedules) {
        json::array runs;
        for (std::string run : next_runs(schedule)) {
            run[10] = 'T';
            run.erase(19, 1);
            runs.push_back(json::value(run));
        }
        json::object object{{"name", schedule.name},
                            {"func", schedule.call.func_name},
                            {"queue", schedule.queue},
                            {"cron", nullptr},
                            {"every", nullptr},
                            {"timezone", schedule.zone.name()},
                            {"catch_up", to_string(schedule.catch_up)},
                            {"overlap", to_string(schedule.overlap)},
                            {"jitter", schedule.jitter.count()},
                            {"args", to_json(schedule.call.args)},
                            {"kwargs", to_json(schedule.call.kwargs)},
                            {"next", std::move(runs)}};
        if (schedule.cron)
            object["cron"] = schedule.cron->text();
        else
            object["every"] = schedule.every.count();
        list.push_back(std::move(object));
    }
    fmt::print("{}\n", to_text(list));
}

// ---- running -----------------------------------------------------------------------------------

/// The first signal ends it cleanly, where Redis answers; the second at once.
void listen(asio::signal_set& signals, CronService& service, RedisClient& redis, bool again) {
    signals.async_wait([&, again](boost::system::error_code error, int) {
        if (error) return;
        service.request_stop();
        if (again || !redis.connected()) redis.close();
        listen(signals, service, redis, true);
    });
}

asio::awaitable<void> connect_and_run(RedisClient& redis, CronService& service) {
    co_await redis.connect(30s);
    co_await service.run();
}

}  // namespace

int cron(const CommonOptions& common, const CronCommandOptions& options) {
    auto schedules = load_schedules(options.file);
    if (options.json && !options.check) throw Error(Errc::usage, "--json: goes with --check");
    if (options.check) {
        options.json ? print_json(schedules) : print_schedules(schedules);
        return 0;
    }
    Logger log(log_level(common), log_format(common));
    asio::io_context context(1);
    RedisOptions redis_settings = redis_options(common, "rqxx-cron");
    redis_settings.max_backoff = 1s;
    RedisClient redis(context.get_executor(), redis_settings, log);
    CronServiceOptions settings;
    settings.config_file = options.file;
    CronService service(redis, std::move(schedules), settings, log);
    asio::signal_set signals(context, SIGINT, SIGTERM);
    listen(signals, service, redis, false);
    std::exception_ptr failure;
    asio::co_spawn(context, connect_and_run(redis, service), [&](std::exception_ptr error) {
        failure = error;
        redis.close();
        signals.cancel();
    });
    context.run();
    try {
        if (failure) std::rethrow_exception(failure);
    } catch (const Cancelled&) {
        // Stopped while Redis was away.
    }
    return 0;
}

}  // namespace rqxx::cli
