#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <charconv>
#include <cmath>
#include <rqxx/json.hpp>
#include <rqxx/rules.hpp>

#include "base/task_group.hpp"
#include "cli/commands.hpp"
#include "ops/keys.hpp"
#include "ops/new_job.hpp"

namespace rqxx::cli {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

/// What is paused: `queue` or `function`.
struct Target {
    std::string_view what;
    const PauseOptions& options;
};

asio::awaitable<bool> change(Rules& rules, const Target& target, bool pause) {
    const auto& name = target.options.name;
    if (target.what == "queue")
        co_return pause ? co_await rules.pause_queue(name) : co_await rules.resume_queue(name);
    co_return pause ? co_await rules.pause_function(name) : co_await rules.resume_function(name);
}

void tell(const Target& target, std::string_view state, bool changed,
          std::optional<std::int64_t> running = {}) {
    if (target.options.json) {
        json::object out{
            {target.what, target.options.name}, {"state", state}, {"changed", changed}};
        if (running) out["running"] = *running;
        fmt::print("{}\n", to_text(out));
    } else {
        fmt::print("{} {} {} {}\n", target.what, printable(target.options.name),
                   changed ? "is" : "was already", state);
    }
}

int pause(const CommonOptions& common, Target target) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        Rules rules(redis);
        const bool changed = co_await change(rules, target, true);
        co_await note_action(redis, fmt::format("{}.pause", target.what), target.options.name);
        tell(target, "paused", changed);
        co_return 0;
    });
}

int resume(const CommonOptions& common, Target target) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        Rules rules(redis);
        const bool changed = co_await change(rules, target, false);
        co_await note_action(redis, fmt::format("{}.resume", target.what), target.options.name);
        tell(target, "running", changed);
        co_return 0;
    });
}

/// Pauses it, then waits until what runs has ended.
int drain(const CommonOptions& common, Target target) {
    const auto wait = duration_option("--wait", target.options.wait);
    return with_redis(common, [&, wait](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        Rules rules(redis);
        const bool changed = co_await change(rules, target, true);
        co_await note_action(redis, fmt::format("{}.pause", target.what), target.options.name,
                             "to drain it");
        const bool terminal = ::isatty(STDERR_FILENO) == 1;
        const auto until = std::chrono::steady_clock::now() + wait;
        Event step(redis.executor());
        for (;;) {
            const auto running = target.what == "queue"
                                     ? co_await rules.running_of_queue(target.options.name)
                                     : co_await rules.running_of_function(target.options.name);
            if (terminal) fmt::print(stderr, "\r\x1b[K");
            if (running == 0) {
                tell(target, "paused and drained", changed, 0);
                co_return 0;
            }
            if (std::chrono::steady_clock::now() >= until) {
                if (target.options.json) tell(target, "paused", changed, running);
                fmt::print(stderr, "rqxx: {} {} is paused, and {} of its jobs still {}\n",
                           target.what, printable(target.options.name), running,
                           running == 1 ? "runs" : "run");
                co_return 1;
            }
            if (terminal) fmt::print(stderr, "{} still running", running);
            co_await step.wait(200ms);
        }
    });
}

/// Seconds with an optional part behind the point, or as other durations.
std::chrono::microseconds period_option(const std::string& text) {
    double seconds = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
    const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
    if (error == std::errc() && seconds > 0 && seconds < 1e9) {
        if (unit == "ms") return std::chrono::microseconds(std::llround(seconds * 1e3));
        if (unit.empty() || unit == "s")
            return std::chrono::microseconds(std::llround(seconds * 1e6));
    }
    return duration_option("--per", text);
}

std::string period_text(std::chrono::microseconds period) {
    const double seconds = std::chrono::duration<double>(period).count();
    return seconds < 1 ? fmt::format("{:g}ms", seconds * 1000) : fmt::format("{:g}s", seconds);
}

std::string amount(const Rule& rule) {
    if (rule.kind == Rule::Kind::fair || rule.kind == Rule::Kind::pause) return "";
    if (rule.kind == Rule::Kind::concurrency)
        return fmt::format("{}{}", rule.limit, rule.per_worker ? " per worker" : "");
    auto text = fmt::format("{} / {}", rule.limit, period_text(rule.per));
    if (rule.burst) text += fmt::format(", burst {}", *rule.burst);
    return text;
}

void print_rules(const Rules::Listing& listing, const std::vector<LimiterUse>& uses) {
    if (listing.rules.empty() && listing.faults.empty()) {
        fmt::print(
            "No limits yet. Ten jobs a second of one queue, for example:\n"
            "  rqxx limit set gentle --kind token-bucket --limit 10 --per 1s --queue default\n");
        return;
    }
    Table table({"NAME", "KIND", "LIMIT", "QUEUE", "FUNCTION", "KEY", "USED", "WAITING"});
    for (const auto& rule : listing.rules) {
        std::int64_t used = 0, waiting = 0;
        for (const auto& use : uses) {
            if (use.rule != rule.name) continue;
            if (use.key.empty()) used = use.used;
            waiting += use.waiting;
        }
        const bool counts = rule.kind != Rule::Kind::fair && rule.kind != Rule::Kind::pause;
        table.add({rule.name, std::string(to_string(rule.kind)), amount(rule),
                   printable(rule.queue.empty() ? "*" : rule.queue),
                   printable(rule.function.empty() ? "*" : rule.function), printable(rule.key),
                   counts && rule.key.empty() ? std::to_string(used) : "",
                   waiting > 0 ? std::to_string(waiting) : ""});
    }
    table.print(stdout);
    for (const auto& fault : listing.faults)
        fmt::print(stderr, "rqxx: rule {} holds for nobody: {}\n", printable(fault.field),
                   printable(fault.message));
}

/// A rule's name, and the key of a limiter where one follows the colon.
std::pair<std::string, std::string> limiter_named(const std::string& text) {
    const auto colon = text.find(':');
    if (colon == std::string::npos) return {text, ""};
    return {text.substr(0, colon), text.substr(colon + 1)};
}

}  // namespace

int pause_queue(const CommonOptions& common, const PauseOptions& options) {
    return pause(common, {"queue", options});
}
int resume_queue(const CommonOptions& common, const PauseOptions& options) {
    return resume(common, {"queue", options});
}
int drain_queue(const CommonOptions& common, const PauseOptions& options) {
    return drain(common, {"queue", options});
}
int pause_function(const CommonOptions& common, const PauseOptions& options) {
    return pause(common, {"function", options});
}
int resume_function(const CommonOptions& common, const PauseOptions& options) {
    return resume(common, {"function", options});
}
int drain_function(const CommonOptions& common, const PauseOptions& options) {
    return drain(common, {"function", options});
}

int share_queue(const CommonOptions& common, const FairOptions& options) {
    if (options.off == !options.key.empty())
        throw Error(Errc::usage, "KEY: either a key, such as args[0], or --off is needed");
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        Rules rules(redis);
        if (options.off) {
            const bool was = co_await rules.share_queue(options.queue, "");
            co_await note_action(redis, "queue.share", options.queue, "no longer");
            fmt::print("queue {} {}\n", printable(options.queue),
                       was ? "is served in the order of its jobs" : "was not shared");
            co_return 0;
        }
        co_await rules.share_queue(options.queue, options.key);
        co_await note_action(redis, "queue.share", options.queue, "by " + options.key);
        fmt::print("queue {} is shared by {}\n", printable(options.queue), printable(options.key));
        co_return 0;
    });
}

int set_limit(const CommonOptions& common, const LimitOptions& options) {
    Rule rule{.name = options.name,
              .queue = options.queue,
              .function = options.function,
              .key = options.key,
              .limit = options.limit,
              .points = options.points,
              .per_worker = options.scope == "worker"};
    const auto kind = parse_rule_kind(options.kind);
    if (!kind) throw Error(Errc::usage, fmt::format("--{}", kind.error().describe()));
    rule.kind = *kind;
    if (!options.per.empty()) rule.per = period_option(options.per);
    if (options.burst != 0) rule.burst = options.burst;
    if (const auto fault = find_fault(rule))
        throw Error(Errc::usage,
                    fmt::format("{}{}", fault->field == "name" ? "" : "--", fault->describe()));
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        co_await Rules(redis).set(rule);
        co_await note_action(redis, "limit.set", rule.name, to_text(to_json(rule)));
        fmt::print("{}: {} {}\n", rule.name, to_string(rule.kind), amount(rule));
        co_return 0;
    });
}

int list_limits(const CommonOptions& common, const LimitOptions& options) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        Rules rules(redis);
        const auto listing = co_await rules.list();
        const auto uses = co_await rules.usage();
        if (!options.json) {
            print_rules(listing, uses);
            co_return 0;
        }
        json::array out;
        for (const auto& rule : listing.rules)
            out.push_back(to_json(rule, uses));
        fmt::print("{}\n", to_text(out));
        co_return 0;
    });
}

int remove_limit(const CommonOptions& common, const LimitOptions& options) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        if (!co_await Rules(redis).remove(options.name)) {
            fmt::print(stderr, "rqxx: there is no limit {}\n", printable(options.name));
            co_return 1;
        }
        co_await note_action(redis, "limit.remove", options.name);
        fmt::print("{} removed\n", printable(options.name));
        co_return 0;
    });
}

int push_back_limit(const CommonOptions& common, const LimitOptions& options) {
    const auto delay = duration_option("FOR", options.delay);
    return with_redis(common, [&, delay](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        const auto [rule, key] = limiter_named(options.name);
        try {
            co_await Rules(redis).push_back(rule, key, delay);
        } catch (const Error& error) {
            if (error.code() != Errc::not_found) throw;
            fmt::print(stderr, "rqxx: there is no limit {}\n", printable(rule));
            co_return 1;
        }
        co_await note_action(redis, "limit.push-back", options.name,
                             fmt::format("{} s", delay.count()));
        fmt::print("{} lets nothing pass for {} s\n", printable(options.name), delay.count());
        co_return 0;
    });
}

int suspend(const CommonOptions& common, const SuspendOptions& options) {
    std::optional<std::chrono::seconds> duration;
    if (!options.duration.empty()) {
        duration = duration_option("--duration", options.duration);
        if (*duration < 1s) throw Error(Errc::usage, "--duration: must be at least 1 s");
    }
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        co_await Rules(redis).suspend(duration);
        co_await note_action(redis, "workers.suspend", "",
                             duration ? fmt::format("{} s", duration->count()) : std::string());
        fmt::print("All workers are suspended{}\n",
                   duration ? fmt::format(" for {} s", duration->count())
                            : std::string(", until: rqxx resume"));
        co_return 0;
    });
}

int resume(const CommonOptions& common) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        const bool was = co_await Rules(redis).resume();
        co_await note_action(redis, "workers.resume", "");
        fmt::print("{}\n", was ? "Workers go on" : "Workers were not suspended");
        co_return 0;
    });
}

}  // namespace rqxx::cli
