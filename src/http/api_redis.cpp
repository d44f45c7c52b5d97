#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <cmath>

#include "base/utf8.hpp"
#include "http/api.hpp"
#include "ops/redis_health.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

constexpr std::string_view finding_schema =
    R"({"type":"object","required":["level","code","text"],"properties":{"level":{"enum":["warning","error"]},"code":{"type":"string"},"text":{"type":"string"},"queue":{"type":"string"}}})";

constexpr std::string_view redis_schema =
    R"({"type":"object","required":["status","redis"],"properties":{"status":{"type":"string"},"redis":{"type":"object","required":["version","mode","role","uptime","rtt","clock_skew","ops_per_second","memory","evicted_keys","expired_keys","clients","blocked_clients","persistence","replication","slowlog","keys","largest","findings"],"properties":{"version":{"type":"string"},"mode":{"type":"string"},"role":{"type":"string"},"uptime":{"type":["integer","null"],"description":"seconds"},"rtt":{"type":"object","description":"milliseconds, of this server's questions of the last minute","properties":{"p50":{"type":["number","null"]},"p99":{"type":["number","null"]}}},"clock_skew":{"type":"number","description":"seconds that this host's clock is ahead"},"ops_per_second":{"type":["integer","null"]},"memory":{"type":"object","properties":{"used":{"type":["integer","null"]},"peak":{"type":["integer","null"]},"max":{"type":["integer","null"],"description":"null: no limit"},"policy":{"type":"string"}}},"evicted_keys":{"type":["integer","null"]},"expired_keys":{"type":["integer","null"]},"clients":{"type":["integer","null"]},"blocked_clients":{"type":["integer","null"]},"persistence":{"type":"object"},"replication":{"type":"object"},"slowlog":{"type":"array","items":{"type":"object","properties":{"at":{"type":"string","format":"date-time"},"micros":{"type":"integer"},"command":{"type":"string"}}}},"keys":{"type":"object","properties":{"total":{"type":"integer"},"sampled":{"type":"boolean","description":"the counts of families are estimated"},"families":{"type":"array","items":{"type":"object","properties":{"family":{"type":"string"},"keys":{"type":"integer"},"bytes":{"type":"integer"}}}}}},"largest":{"type":"array","items":{"type":"object","properties":{"key":{"type":"string"},"bytes":{"type":"integer"}}}},"findings":{"type":"array","items":)";

json::value whole(const ops::ServerInfo& info, std::string_view field) {
    const auto value = info.number(field);
    if (!value || std::abs(*value) > 9e15) return nullptr;
    return static_cast<std::int64_t>(std::llround(*value));
}

json::value time_of(const ops::ServerInfo& info, std::string_view field) {
    const auto value = info.number(field);
    if (!value || *value <= 0 || *value > 1e11) return nullptr;
    return json::value(format_utc(Timestamp{std::chrono::seconds(std::llround(*value))}));
}

json::array findings_json(const std::vector<ops::HealthFinding>& findings) {
    json::array all;
    for (const auto& one : findings) {
        json::object shown{{"level", ops::to_string(one.level)},
                           {"code", one.code},
                           {"text", to_valid_utf8(one.text)}};
        if (!one.queue.empty()) shown["queue"] = to_valid_utf8(one.queue);
        all.push_back(std::move(shown));
    }
    return all;
}

json::object replication_json(const ops::ServerInfo& info) {
    json::object shown{{"role", info.text("role")},
                       {"connected_replicas", whole(info, "connected_slaves")}};
    if (info.text("role") == "slave") {
        shown["master_link"] = info.text("master_link_status");
        shown["seconds_behind"] = whole(info, "master_last_io_seconds_ago");
    }
    return shown;
}

json::object keys_json(const ops::RedisHealth& health) {
    json::array families;
    for (const auto& family : health.families)
        families.push_back(json::object{{"family", to_valid_utf8(family.name)},
                                        {"keys", family.keys},
                                        {"bytes", family.bytes}});
    return {
        {"total", health.keys}, {"sampled", !health.counted}, {"families", std::move(families)}};
}

json::object redis_json(const ops::RedisHealth& health,
                        std::optional<runtime::RedisPulse::RoundTrip> rtt) {
    const auto& info = health.info;
    const auto milliseconds = [](Seconds time) { return std::round(time.count() * 1e6) / 1e3; };
    json::array slow, largest;
    for (const auto& one : health.slow)
        slow.push_back(json::object{{"at", format_utc(one.at)},
                                    {"micros", one.took.count()},
                                    {"command", to_valid_utf8(one.command)}});
    for (const auto& one : health.largest)
        largest.push_back(json::object{{"key", to_valid_utf8(one.key)}, {"bytes", one.bytes}});
    json::value most = whole(info, "maxmemory");
    if (most == 0) most = nullptr;
    return {
        {"version", info.text("redis_version")},
        {"mode", info.text("redis_mode")},
        {"role", info.text("role")},
        {"uptime", whole(info, "uptime_in_seconds")},
        {"rtt", json::object{{"p50", rtt ? json::value(milliseconds(rtt->p50)) : nullptr},
                             {"p99", rtt ? json::value(milliseconds(rtt->p99)) : nullptr}}},
        {"clock_skew", std::round(health.skew.count() * 1e3) / 1e3},
        {"ops_per_second", whole(info, "instantaneous_ops_per_sec")},
        {"memory", json::object{{"used", whole(info, "used_memory")},
                                {"peak", whole(info, "used_memory_peak")},
                                {"max", std::move(most)},
                                {"policy", info.text("maxmemory_policy")}}},
        {"evicted_keys", whole(info, "evicted_keys")},
        {"expired_keys", whole(info, "expired_keys")},
        {"clients", whole(info, "connected_clients")},
        {"blocked_clients", whole(info, "blocked_clients")},
        {"persistence", json::object{{"aof", info.number("aof_enabled").value_or(0) > 0},
                                     {"aof_last_write_status", info.text("aof_last_write_status")},
                                     {"rdb_last_save", time_of(info, "rdb_last_save_time")},
                                     {"rdb_last_status", info.text("rdb_last_bgsave_status")},
                                     {"loading", info.number("loading").value_or(0) > 0}}},
        {"replication", replication_json(info)},
        {"slowlog", std::move(slow)},
        {"keys", keys_json(health)},
        {"largest", std::move(largest)},
        {"findings",
         findings_json(ops::findings_of(health, rtt ? std::optional(rtt->p99) : std::nullopt))},
    };
}

}  // namespace

void add_redis_routes(Router& router, RedisClient& redis, const runtime::RedisPulse& pulse) {
    RouteDoc health;
    health.summary = "How Redis is doing, and what is wrong with it for a queue";
    health.tag = "monitor";
    health.response_schema = std::string(redis_schema) + std::string(finding_schema) + "}}}}}";
    health.problems = {503};
    router.add(Method::get, "/api/v1/redis", health,
               [&redis, &pulse](Request) -> asio::awaitable<Response> {
                   const auto state = co_await ops::read_redis_health(redis);
                   json::object answer{{"status", "ok"}};
                   answer["redis"] = redis_json(state, pulse.last_minute());
                   co_return json_response(200, answer);
               });

    RouteDoc alerts;
    alerts.summary = "What is wrong just now and needs somebody";
    alerts.tag = "monitor";
    alerts.response_schema =
        R"({"type":"object","required":["status","alerts"],"properties":{"status":{"type":"string"},"alerts":{"type":"array","items":)" +
        std::string(finding_schema) + "}}}";
    alerts.problems = {503};
    router.add(Method::get, "/api/v1/alerts", alerts,
               [&redis](Request) -> asio::awaitable<Response> {
                   const auto census = co_await ops::take_census(redis);
                   json::object answer{{"status", "ok"}};
                   answer["alerts"] = findings_json(ops::alerts_of(census));
                   co_return json_response(200, answer);
               });
}

}  // namespace rqxx::http
