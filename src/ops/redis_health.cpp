#include "ops/redis_health.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "ops/keys.hpp"
#include "ops/queue_counts.hpp"

namespace rqxx::ops {

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

constexpr int sampled_keys = 300;
constexpr std::int64_t countable_keys = 1000;
constexpr int slow_commands = 16;
constexpr std::size_t largest_keys = 10;
constexpr std::size_t longest_key = 200;
constexpr std::size_t most_alerts_of_a_kind = 20;
constexpr Seconds much_skew{1};
constexpr Seconds slow_answer{0.05};
/// Of the memory that Redis may use.
constexpr double nearly_full = 0.9;

bool is_ours(std::string_view key) {
    return key.starts_with("rq:") || key.starts_with("rqxx:");
}

/// `rq:job`, `rqxx:lease`: names vary behind the second part. RQ's queue of a name is `rq:queue`.
std::string family_of(std::string_view key) {
    if (!is_ours(key)) return "other";
    const auto second = key.find(':', key.find(':') + 1);
    return std::string(key.substr(0, second));
}

/// Arguments may be anything, secrets too: only keys that are RQ's or ours are told.
std::string shown_command(const Reply& arguments) {
    if (!arguments.is_array() || arguments.elements.empty()) return {};
    std::string shown = arguments.elements[0].text.substr(0, 40);
    for (std::size_t i = 1; i < std::min<std::size_t>(arguments.elements.size(), 4); ++i) {
        const std::string& text = arguments.elements[i].text;
        if (!is_ours(text)) continue;
        shown += " " + text.substr(0, longest_key);
        break;
    }
    return shown;
}

std::vector<SlowCommand> slow_from(const Reply& log) {
    std::vector<SlowCommand> slow;
    if (!log.is_array()) return slow;
    for (const auto& entry : log.elements) {
        if (!entry.is_array() || entry.elements.size() < 4) continue;
        slow.push_back({Timestamp{std::chrono::seconds(entry.elements[1].integer)},
                        std::chrono::microseconds(entry.elements[2].integer),
                        shown_command(entry.elements[3])});
    }
    return slow;
}

HealthFinding finding(HealthFinding::Level level, std::string code, std::string text,
                      std::string queue = {}) {
    return {level, std::move(code), std::move(text), std::move(queue)};
}

}  // namespace

std::string_view to_string(HealthFinding::Level level) noexcept {
    return level == HealthFinding::Level::error ? "error" : "warning";
}

asio::awaitable<RedisHealth> read_redis_health(RedisClient& redis) {
    redis.require_connection();
    Pipeline first;
    first.add("TIME");
    first.add("INFO");
    first.add("DBSIZE");
    first.add("SLOWLOG", "GET", slow_commands);
    first.add("CONFIG", "GET", "save");
    first.add("SCAN", 0, "COUNT", countable_keys);
    for (int i = 0; i < sampled_keys; ++i)
        first.add("RANDOMKEY");
    const Timestamp asked = utc_now();
    const auto replies = co_await redis.run(std::move(first));
    const Timestamp answered = utc_now();
    replies[0].throw_if_error();

    RedisHealth health;
    health.now = redis_time(replies[0]);
    health.skew = Seconds(asked - health.now) + Seconds(answered - asked) / 2;
    health.info = ServerInfo(replies[1].text);
    health.keys = replies[2].integer;
    health.slow = slow_from(replies[3]);
    const Reply& save = replies[4];
    health.snapshots =
        save.is_array() && save.elements.size() == 2 && !save.elements[1].text.empty();

    std::set<std::string> keys;
    const Reply& scan = replies[5];
    if (scan.is_array() && scan.elements.size() == 2 && scan.elements[1].is_array()) {
        health.counted = scan.elements[0].text == "0";
        for (const auto& key : scan.elements[1].elements)
            if (health.counted) keys.insert(key.text);
    }
    for (std::size_t i = 6; i < replies.size() && !health.counted; ++i)
        if (replies[i].is_string()) keys.insert(replies[i].text);

    Pipeline second;
    for (const auto& key : keys)
        second.add("MEMORY", "USAGE", key);
    const auto sizes = co_await redis.run(std::move(second));
    std::map<std::string, KeyFamily> families;
    std::size_t at = 0;
    for (const auto& key : keys) {
        const std::int64_t bytes = sizes[at].type == Reply::Type::integer ? sizes[at].integer : 0;
        ++at;
        KeyFamily& family = families[family_of(key)];
        ++family.keys;
        family.bytes += bytes;
        health.largest.push_back({key.substr(0, longest_key), bytes});
    }
    const double scale = health.counted || keys.empty()
                             ? 1
                             : static_cast<double>(health.keys) / static_cast<double>(keys.size());
    for (auto& [name, family] : families) {
        family.name = name;
        family.keys = std::llround(static_cast<double>(family.keys) * scale);
        family.bytes = std::llround(static_cast<double>(family.bytes) * scale);
        health.families.push_back(family);
    }
    std::ranges::stable_sort(health.families, std::greater(), &KeyFamily::bytes);
    std::ranges::stable_sort(health.largest, std::greater(), &LargeKey::bytes);
    if (health.largest.size() > largest_keys) health.largest.resize(largest_keys);
    co_return health;
}

namespace {

/// What endangers jobs now.
std::vector<HealthFinding> dangers_of(const ServerInfo& info, Seconds skew) {
    using enum HealthFinding::Level;
    std::vector<HealthFinding> found;
    const auto value = [&](std::string_view field) { return info.number(field).value_or(0); };
    if (const auto policy = info.text("maxmemory_policy");
        !policy.empty() && policy != "noeviction")
        found.push_back(finding(
            error, "eviction_policy",
            fmt::format("maxmemory-policy is {}: Redis may throw jobs away when memory runs short. "
                        "Set it to noeviction",
                        policy)));
    if (value("evicted_keys") > 0)
        found.push_back(finding(error, "evicted_keys",
                                fmt::format("{:.0f} keys have been thrown away for lack of memory",
                                            value("evicted_keys"))));
    const double used = value("used_memory"), most = value("maxmemory");
    if (most > 0 && used > most * nearly_full)
        found.push_back(finding(
            error, "memory_nearly_full",
            fmt::format("{:.0f} % of the memory that Redis may use is in use", 100 * used / most)));
    const bool aof = value("aof_enabled") > 0;
    if (aof && info.text("aof_last_write_status") == "err")
        found.push_back(finding(error, "aof_failed", "The append-only file cannot be written"));
    if (aof && info.text("aof_last_bgrewrite_status") == "err")
        found.push_back(
            finding(warning, "aof_rewrite_failed", "The append-only file could not be rewritten"));
    if (info.text("rdb_last_bgsave_status") == "err")
        found.push_back(finding(error, "rdb_failed", "The last snapshot could not be written"));
    if (value("loading") > 0)
        found.push_back(finding(warning, "loading", "Redis is loading its data"));
    if (info.text("role") == "slave" && info.text("master_link_status") != "up")
        found.push_back(
            finding(error, "replication_down", "The link of this replica to its master is down"));
    if (std::abs(skew.count()) > much_skew.count())
        found.push_back(
            finding(warning, "clock_skew",
                    fmt::format("This host's clock is {:.1f} s {} that of Redis",
                                std::abs(skew.count()), skew.count() > 0 ? "ahead of" : "behind")));
    return found;
}

}  // namespace

std::vector<HealthFinding> findings_of(const RedisHealth& health, std::optional<Seconds> rtt_p99) {
    using enum HealthFinding::Level;
    auto found = dangers_of(health.info, health.skew);
    if (health.info.number("aof_enabled").value_or(0) == 0 && !health.snapshots &&
        health.info.text("role") != "slave")
        found.push_back(finding(warning, "no_persistence",
                                "Redis keeps neither an append-only file nor snapshots: all jobs "
                                "are lost when it ends"));
    if (rtt_p99 && *rtt_p99 > slow_answer)
        found.push_back(
            finding(warning, "slow_answers",
                    fmt::format("One in a hundred questions to Redis takes {:.0f} ms or more",
                                1000 * rtt_p99->count())));
    return found;
}

std::vector<HealthFinding> alerts_of(const Census& census) {
    using enum HealthFinding::Level;
    std::vector<HealthFinding> found;
    std::map<std::string, std::size_t> told;
    const auto add = [&](HealthFinding one) {
        if (++told[one.code] <= most_alerts_of_a_kind) found.push_back(std::move(one));
    };
    for (const auto& queue : census.queues) {
        const auto& stats = queue.stats;
        // Of more workers than were looked at, some may listen.
        const bool all_known = census.registered_workers <= 1000;
        if (stats.queued > 0 && queue.listeners == 0 && !stats.paused && all_known)
            add(finding(error, "no_listener",
                        stats.queued == 1
                            ? "1 job waits and no worker takes it"
                            : fmt::format("{} jobs wait and no worker takes them", stats.queued),
                        stats.queue_name));
        if (queue.lapsed > 0)
            add(finding(error, "started_without_lease",
                        fmt::format("{} started {} that nobody vouches for any more, and that "
                                    "nobody has taken back",
                                    queue.lapsed, queue.lapsed == 1 ? "job" : "jobs"),
                        stats.queue_name));
        if (queue.due > 0 && !queue.has_scheduler)
            add(finding(error, "no_scheduler",
                        fmt::format("{} scheduled jobs are due and no scheduler serves the queue",
                                    queue.due),
                        stats.queue_name));
    }
    for (auto& one : dangers_of(census.info, census.skew))
        add(std::move(one));
    if (census.suspended)
        add(finding(warning, "suspended", "Workers are suspended: no job is started"));
    for (const auto& [code, count] : told) {
        if (count > most_alerts_of_a_kind)
            found.push_back(finding(
                error, code, fmt::format("… and {} more queues", count - most_alerts_of_a_kind)));
    }
    return found;
}

}  // namespace rqxx::ops
