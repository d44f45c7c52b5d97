#include "ops/rule_set.hpp"

#include <fmt/format.h>
#include <openssl/sha.h>

#include <algorithm>
#include <charconv>

#include "base/wildcard.hpp"

namespace rqxx::ops {
namespace {

constexpr std::size_t longest_key = 80;

std::string digest(std::string_view text, std::size_t bytes) {
    std::array<unsigned char, SHA256_DIGEST_LENGTH> hash{};
    SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), hash.data());
    std::string hex;
    for (std::size_t i = 0; i < bytes; ++i)
        hex += fmt::format("{:02x}", hash[i]);
    return hex;
}

bool fits(std::string_view pattern, std::string_view name) {
    return pattern.empty() || matches_wildcard(pattern, name);
}

std::optional<KeyExpression> expression(const std::string& text) {
    if (text.empty()) return std::nullopt;
    auto parsed = KeyExpression::parse(text);
    if (!parsed) return std::nullopt;
    return std::move(*parsed);
}

std::optional<std::int64_t> whole_number(std::string_view text) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return number;
}

}  // namespace

std::string encode_key(std::string_view key) {
    std::string text;
    for (const char c : key) {
        const auto byte = static_cast<unsigned char>(c);
        const bool plain = std::isalnum(byte) != 0 ||
                           std::string_view("_.-:/+,").find(c) != std::string_view::npos;
        if (plain)
            text += c;
        else
            text += fmt::format("%{:02x}", byte);
        if (text.size() > longest_key)
            return text.substr(0, longest_key / 2) + "%~" + digest(key, 8);
    }
    return text;
}

QueueRules RuleSet::for_queue(std::string_view queue) const {
    QueueRules found;
    std::string told_apart_by;
    for (const auto& rule : listing_.rules) {
        if (!fits(rule.queue, queue)) continue;
        if (rule.kind == Rule::Kind::fair) {
            if (!found.fair) found.fair = expression(rule.key);
        } else if (rule.kind == Rule::Kind::pause && rule.function.empty()) {
            found.paused = true;
            continue;
        } else {
            const auto points = whole_number(rule.points);
            if (rule.function.empty() && rule.key.empty() && points) {
                found.limits.push_back(rule.name);
                continue;
            }
            const auto most = rule.burst.value_or(rule.limit);
            found.parts.push_back({rule.name, rule.function, expression(rule.key),
                                   points ? std::nullopt : expression(rule.points),
                                   points.value_or(1), std::max<std::int64_t>(most, 1)});
        }
        told_apart_by += fmt::format("{}\n{}\n{}\n{}\n", rule.name, rule.function, rule.key,
                                     rule.kind == Rule::Kind::fair ? "" : rule.points);
    }
    if (!told_apart_by.empty()) found.epoch = digest(told_apart_by, 4);
    const auto reads_meta = [](const auto& key) { return key && key->uses_meta(); };
    found.needs_meta = reads_meta(found.fair) || std::ranges::any_of(found.parts, [&](auto& part) {
                           return reads_meta(part.key) || reads_meta(part.points_key);
                       });
    return found;
}

std::string lane_of(const QueueRules& rules, const std::string& queue, const Call& call,
                    const Value& meta) {
    std::string lane = rules.epoch + '|';
    if (rules.fair) lane += encode_key(rules.fair->evaluate(queue, call, meta));
    for (const auto& part : rules.parts) {
        if (!fits(part.function, call.func_name)) continue;
        std::int64_t points = part.points;
        if (part.points_key)
            points = std::clamp<std::int64_t>(
                whole_number(part.points_key->evaluate(queue, call, meta)).value_or(1), 1,
                part.most_points);
        lane +=
            fmt::format("|{}={}*{}", part.rule,
                        part.key ? encode_key(part.key->evaluate(queue, call, meta)) : "", points);
    }
    return lane;
}

std::string lane_without_call(const QueueRules& rules) {
    return rules.epoch + '|';
}

std::vector<std::pair<std::string, std::string>> parts_of_lane(std::string_view lane) {
    std::vector<std::pair<std::string, std::string>> parts;
    for (std::size_t at = lane.find('|', lane.find('|') + 1); at < lane.size();) {
        const auto end = lane.find('|', at + 1);
        const auto part = lane.substr(at + 1, end - at - 1);
        const auto key = part.find('='), points = part.rfind('*');
        if (key != part.npos && points != part.npos && key < points)
            parts.emplace_back(part.substr(0, key), part.substr(key + 1, points - key - 1));
        at = end;
    }
    return parts;
}

}  // namespace rqxx::ops
