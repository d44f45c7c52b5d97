#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <rqxx/json.hpp>
#include <rqxx/rules.hpp>

#include "base/wildcard.hpp"
#include "ops/etag.hpp"
#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"
#include "ops/new_job.hpp"
#include "ops/rule_set.hpp"

namespace rqxx {
namespace asio = boost::asio;

namespace {

constexpr std::pair<Rule::Kind, std::string_view> kind_names[] = {
    {Rule::Kind::token_bucket, "token-bucket"},
    {Rule::Kind::leaky_bucket, "leaky-bucket"},
    {Rule::Kind::fixed_window, "fixed-window"},
    {Rule::Kind::sliding_window, "sliding-window"},
    {Rule::Kind::concurrency, "concurrency"},
    {Rule::Kind::fair, "fair"},
    {Rule::Kind::pause, "pause"},
};
constexpr std::int64_t most_points = 1'000'000;
/// A sliding window keeps a time for each point.
constexpr std::int64_t most_points_of_sliding_window = 10'000;

bool is_in_time(Rule::Kind kind) {
    return kind == Rule::Kind::token_bucket || kind == Rule::Kind::leaky_bucket ||
           kind == Rule::Kind::fixed_window || kind == Rule::Kind::sliding_window;
}

bool is_limit(Rule::Kind kind) {
    return is_in_time(kind) || kind == Rule::Kind::concurrency;
}

bool is_number(std::string_view text) {
    return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

/// Of a rule or pause; `%` comes with encoded names of functions and queues.
bool is_rule_name(std::string_view name) {
    return !name.empty() && name.size() <= 200 && std::ranges::all_of(name, [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' ||
               c == '-' || c == '%' || c == '~' || c == '/' || c == '+' || c == ',';
    });
}

/// As `ops::encode_key` makes them.
bool is_limiter_key(std::string_view key) {
    return key.size() <= 200 && std::ranges::all_of(key, [](char c) {
               return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                      std::string_view("_.-:/+,%~").find(c) != std::string_view::npos;
           });
}

std::optional<ParseError> find_fault_in_text(std::string_view field, const std::string& text) {
    if (text.size() > 200) return ParseError("must have at most 200 bytes", std::string(field));
    for (const char c : text) {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
            return ParseError("control characters are not allowed", std::string(field));
    }
    return std::nullopt;
}

std::optional<ParseError> find_fault_in_points(const Rule& rule) {
    if (!is_number(rule.points)) {
        if (auto key = KeyExpression::parse(rule.points); !key)
            return ParseError(
                "must be a number of at least 1, or a path into the job: " + key.error().message,
                "points");
        return std::nullopt;
    }
    const auto most = std::to_string(rule.burst.value_or(rule.limit));
    const bool too_many = rule.points.size() > most.size() ||
                          (rule.points.size() == most.size() && rule.points > most);
    if (rule.points.front() == '0' || too_many)
        return ParseError(fmt::format("must be from 1 to {}, or no job could ever start", most),
                          "points");
    return std::nullopt;
}

}  // namespace

std::string_view to_string(Rule::Kind kind) noexcept {
    return std::ranges::find(kind_names, kind, [](const auto& pair) { return pair.first; })->second;
}

Parsed<Rule::Kind> parse_rule_kind(std::string_view text) noexcept {
    for (const auto& [kind, name] : kind_names) {
        if (name == text) return kind;
    }
    return ParseError(
        "must be token-bucket, leaky-bucket, fixed-window, sliding-window or concurrency", "kind");
}

std::optional<ParseError> find_fault(const Rule& rule) {
    if (!is_rule_name(rule.name))
        return ParseError("must have 1 to 200 letters, digits, _, . or -", "name");
    for (const auto& [field, text] :
         {std::pair<std::string_view, const std::string&>{"queue", rule.queue},
          {"function", rule.function}}) {
        if (auto fault = find_fault_in_text(field, text)) return fault;
    }
    if (rule.kind == Rule::Kind::pause) return std::nullopt;
    if (rule.kind == Rule::Kind::fair || !rule.key.empty()) {
        if (auto key = KeyExpression::parse(rule.key); !key) return key.error();
    }
    if (rule.kind == Rule::Kind::fair) return std::nullopt;
    const auto most =
        rule.kind == Rule::Kind::sliding_window ? most_points_of_sliding_window : most_points;
    if (rule.limit < 1 || rule.limit > most)
        return ParseError(fmt::format("must be from 1 to {}", most), "limit");
    if (is_in_time(rule.kind) &&
        (rule.per < std::chrono::milliseconds(1) || rule.per > std::chrono::hours(24 * 366)))
        return ParseError("must be from 1 ms to a year", "per");
    if (!is_in_time(rule.kind) && rule.per.count() != 0)
        return ParseError("a limit on how many run at once has no period", "per");
    if (rule.burst && rule.kind != Rule::Kind::token_bucket)
        return ParseError("only a token bucket has one", "burst");
    if (rule.burst && (*rule.burst < 1 || *rule.burst > most))
        return ParseError(fmt::format("must be from 1 to {}", most), "burst");
    if (rule.per_worker && rule.kind != Rule::Kind::concurrency)
        return ParseError("only a limit on how many run at once can hold for each worker", "scope");
    return find_fault_in_points(rule);
}

boost::json::object to_json(const Rule& rule) {
    boost::json::object json{{"kind", to_string(rule.kind)}};
    if (!rule.queue.empty()) json["queue"] = rule.queue;
    if (!rule.function.empty()) json["function"] = rule.function;
    if (!rule.key.empty()) json["key"] = rule.key;
    if (is_limit(rule.kind)) {
        json["limit"] = rule.limit;
        if (is_in_time(rule.kind)) json["per"] = std::chrono::duration<double>(rule.per).count();
        if (rule.burst) json["burst"] = *rule.burst;
        if (is_number(rule.points))
            json["points"] = std::stoll(rule.points);
        else
            json["points"] = rule.points;
        json["scope"] = rule.per_worker ? "worker" : "cluster";
    }
    return json;
}

boost::json::object to_json(const Rule& rule, const std::vector<LimiterUse>& uses) {
    boost::json::object out = to_json(rule);
    out["name"] = rule.name;
    boost::json::array limiters;
    for (const auto& use : uses) {
        if (use.rule != rule.name) continue;
        boost::json::object one{{"key", use.key}, {"used", use.used}, {"waiting", use.waiting}};
        one["pushed_back_until"] =
            use.until ? boost::json::value(format_utc(*use.until)) : boost::json::value(nullptr);
        limiters.push_back(std::move(one));
    }
    out["limiters"] = std::move(limiters);
    out["etag"] = etag_of(rule);
    return out;
}

Parsed<Rule> parse_rule(std::string name, std::string_view json) {
    const auto value = decode_json(json, {.max_bytes = 65536, .max_depth = 4});
    if (!value) return value.error();
    if (!value->is_dict()) return ParseError("must be an object");
    Rule rule;
    rule.name = std::move(name);
    bool has_kind = false;
    for (const auto& [key, item] : value->pairs()) {
        const std::string& field = key.as_text();
        const auto text = [&]() -> std::optional<std::string> {
            if (item.is_string()) return item.as_text();
            return std::nullopt;
        };
        const auto wrong = [&](std::string_view what) {
            return ParseError(fmt::format("must be {}", what), field);
        };
        if (field == "kind") {
            if (!text()) return wrong("text");
            const auto kind = parse_rule_kind(*text());
            if (!kind) return kind.error();
            rule.kind = *kind;
            has_kind = true;
        } else if (field == "queue" || field == "function" || field == "key") {
            if (item.is_none()) continue;
            if (!text()) return wrong("text");
            (field == "queue"      ? rule.queue
             : field == "function" ? rule.function
                                   : rule.key) = *text();
        } else if (field == "limit" || field == "burst") {
            if (field == "burst" && item.is_none()) continue;
            if (item.kind() != Value::Kind::integer) return wrong("a whole number");
            if (field == "limit")
                rule.limit = item.as_integer();
            else
                rule.burst = item.as_integer();
        } else if (field == "per") {
            if (item.is_none()) continue;
            const double seconds = item.kind() == Value::Kind::integer
                                       ? static_cast<double>(item.as_integer())
                                   : item.kind() == Value::Kind::real ? item.as_real()
                                                                      : -1;
            if (!(seconds > 0 && seconds < 1e9)) return wrong("a number of seconds above 0");
            rule.per = std::chrono::microseconds(std::llround(seconds * 1e6));
        } else if (field == "points") {
            if (item.kind() == Value::Kind::integer)
                rule.points = std::to_string(item.as_integer());
            else if (text())
                rule.points = *text();
            else
                return wrong("a number or a path into the job");
        } else if (field == "scope") {
            if (text() != "worker" && text() != "cluster") return wrong("worker or cluster");
            rule.per_worker = text() == "worker";
        } else {
            return ParseError("is not known", field);
        }
    }
    if (!has_kind) return ParseError("is missing", "kind");
    if (auto fault = find_fault(rule)) return *fault;
    return rule;
}

std::string rule_name(std::string_view what, std::string_view name) {
    auto encoded = ops::encode_key(name);
    std::ranges::replace(encoded, ':', '+');
    return fmt::format("{}-{}", what, encoded);
}

asio::awaitable<Rules::Listing> Rules::list() {
    const Reply reply = co_await redis_->eval(lua::read_rules, {}, {});
    Listing listing;
    listing.version = reply.as_array().at(0).as_text();
    const auto& flat = reply.as_array().at(1).as_array();
    for (std::size_t i = 0; i + 1 < flat.size(); i += 2) {
        auto rule = parse_rule(flat[i].text, flat[i + 1].text);
        if (rule)
            listing.rules.push_back(std::move(*rule));
        else
            listing.faults.push_back(
                ParseError(rule.error().describe(), flat[i].text, rule.error().offset));
    }
    std::ranges::sort(listing.rules, {}, &Rule::name);
    co_return listing;
}

asio::awaitable<int> Rules::edit(std::string name, std::string json, std::string etag) {
    const Reply reply =
        co_await redis_->eval(lua::edit_rules, {}, {name, std::move(json), std::move(etag)});
    if (reply.as_integer() < 0) co_return -1;
    // What waited for it as it was.
    while ((co_await redis_->eval(lua::tend_limits, {}, {"1000", name})).as_integer() >= 1000) {
    }
    co_return reply.as_integer() == 1 ? 1 : 0;
}

std::string etag_of(const Rule& rule) {
    return ops::etag_of(to_text(to_json(rule)));
}

asio::awaitable<bool> Rules::add(Rule rule) {
    return replace(std::move(rule), "new");
}

asio::awaitable<bool> Rules::replace(Rule rule, std::string etag) {
    if (const auto fault = find_fault(rule)) throw Error(Errc::usage, fault->describe());
    auto json = to_text(to_json(rule));
    co_return co_await edit(std::move(rule.name), std::move(json), std::move(etag)) >= 0;
}

asio::awaitable<bool> Rules::remove(std::string name, std::string etag) {
    co_return co_await edit(std::move(name), "", std::move(etag)) >= 0;
}

asio::awaitable<void> Rules::set(Rule rule) {
    if (const auto fault = find_fault(rule)) throw Error(Errc::usage, fault->describe());
    auto json = to_text(to_json(rule));
    co_await edit(std::move(rule.name), std::move(json));
}

asio::awaitable<bool> Rules::remove(std::string name) {
    co_return co_await edit(std::move(name), "") == 1;
}

asio::awaitable<bool> Rules::pause_queue(std::string queue) {
    ops::check_queue_name(queue);
    const Rule rule{
        .name = rule_name("pause-queue", queue), .kind = Rule::Kind::pause, .queue = queue};
    co_return co_await edit(rule.name, to_text(to_json(rule))) == 0;
}

asio::awaitable<bool> Rules::resume_queue(std::string queue) {
    co_return co_await edit(rule_name("pause-queue", queue), "") == 1;
}

asio::awaitable<bool> Rules::pause_function(std::string function) {
    const Rule rule{.name = rule_name("pause-function", function),
                    .kind = Rule::Kind::pause,
                    .function = function};
    if (const auto fault = find_fault(rule); fault || function.empty())
        throw Error(Errc::usage, fault ? fault->describe() : "function: must not be empty");
    co_return co_await edit(rule.name, to_text(to_json(rule))) == 0;
}

asio::awaitable<bool> Rules::resume_function(std::string function) {
    co_return co_await edit(rule_name("pause-function", function), "") == 1;
}

asio::awaitable<bool> Rules::share_queue(std::string queue, std::string key) {
    const Rule rule{.name = rule_name("fair", queue),
                    .kind = Rule::Kind::fair,
                    .queue = queue,
                    .key = std::move(key)};
    if (rule.key.empty()) co_return co_await remove(rule.name);
    const auto listing = co_await list();
    const auto same = std::ranges::find_if(listing.rules, [&](const Rule& other) {
        return other.name == rule.name && other.key == rule.key;
    });
    if (same != listing.rules.end()) co_return false;
    co_await set(rule);
    co_return true;
}

asio::awaitable<std::int64_t> Rules::running_of_queue(std::string queue) {
    co_return (co_await redis_->command("ZCARD", keys::started(queue))).as_integer();
}

asio::awaitable<std::int64_t> Rules::running_of_function(std::string function) {
    std::int64_t running = 0;
    const Reply queues = co_await redis_->command("SMEMBERS", keys::queues);
    for (const auto& queue : queues.as_array()) {
        if (!queue.text.starts_with(keys::queue_prefix)) continue;
        const Reply members = co_await redis_->command(
            "ZRANGE", keys::started(queue.text.substr(keys::queue_prefix.size())), 0, -1);
        Pipeline pipeline;
        for (const auto& member : members.as_array())
            pipeline.add("HGET", keys::job(member.text.substr(0, member.text.find(':'))), "data");
        if (pipeline.empty()) continue;
        for (const auto& data : co_await redis_->run(std::move(pipeline))) {
            const auto call = decode_call(data.text);
            if (call && matches_wildcard(function, call->func_name)) ++running;
        }
    }
    co_return running;
}

asio::awaitable<bool> Rules::suspend(std::optional<std::chrono::seconds> duration) {
    if (duration &&
        (*duration < std::chrono::seconds(1) || *duration > std::chrono::hours(24 * 366)))
        throw Error(Errc::usage, "duration: must be from 1 s to a year");
    // Source: rq/suspension.py (RQ 2.10).
    const Reply before = duration ? co_await redis_->command("SET", keys::suspended, 1, "GET", "EX",
                                                             duration->count())
                                  : co_await redis_->command("SET", keys::suspended, 1, "GET");
    co_return before.is_nil();
}

asio::awaitable<bool> Rules::resume() {
    const bool was = (co_await redis_->command("DEL", keys::suspended)).as_integer() == 1;
    co_await redis_->command("PUBLISH", keys::wake_channel, "*");
    co_return was;
}

asio::awaitable<Rule> Rules::find_limit(std::string name) {
    const auto listing = co_await list();
    const auto found = std::ranges::find(listing.rules, name, &Rule::name);
    if (found == listing.rules.end() || !is_limit(found->kind))
        throw Error(Errc::not_found, "there is no such limit");
    co_return *found;
}

asio::awaitable<void> Rules::push_back(std::string rule, std::string key,
                                       std::chrono::seconds delay) {
    if (delay < std::chrono::seconds(0) || delay > std::chrono::hours(24 * 366))
        throw Error(Errc::usage, "delay: must be from 0 to a year");
    const Rule limit = co_await find_limit(rule);
    if (limit.per_worker) throw Error(Errc::usage, "name: this limit is of each worker by itself");
    if (limit.key.empty() != key.empty())
        throw Error(Errc::usage, key.empty()
                                     ? "key: is needed, each value of " + limit.key + " has a limit"
                                     : std::string("key: this limit has none"));
    if (!is_limiter_key(key))
        throw Error(Errc::usage, "key: must be as the list of limits shows it");
    const std::string limiter = key.empty() ? rule : rule + ":" + key;
    co_await redis_->eval(lua::push_back, {}, {limiter, std::to_string(delay.count() * 1'000'000)});
}

asio::awaitable<std::vector<LimiterUse>> Rules::usage(std::size_t most, std::string rule) {
    const Reply reply =
        co_await redis_->eval(lua::limits_in_use, {}, {std::to_string(most), std::move(rule)});
    std::vector<LimiterUse> uses;
    for (const auto& row : reply.as_array()) {
        const auto& parts = row.elements;
        LimiterUse use;
        const std::string& name = parts.at(0).text;
        const auto colon = name.find(':');
        use.rule = name.substr(0, colon);
        if (colon != std::string::npos) use.key = name.substr(colon + 1);
        use.used = parts.at(1).as_integer();
        use.waiting = parts.at(2).as_integer();
        if (const auto until = parts.at(3).as_integer(); until > 0)
            use.until = Timestamp(std::chrono::microseconds(until));
        uses.push_back(std::move(use));
    }
    co_return uses;
}

}  // namespace rqxx
