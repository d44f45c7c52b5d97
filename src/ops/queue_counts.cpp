#include "ops/queue_counts.hpp"

#include <algorithm>
#include <charconv>
#include <rqxx/rules.hpp>

#include "base/wildcard.hpp"
#include "ops/keys.hpp"

namespace rqxx::ops {

std::vector<std::string> queue_names(const Reply& members) {
    std::vector<std::string> names;
    for (const auto& member : members.as_array()) {
        if (member.text.starts_with(keys::queue_prefix))
            names.push_back(member.text.substr(keys::queue_prefix.size()));
    }
    std::sort(names.begin(), names.end());
    return names;
}

std::optional<std::int64_t> number(std::string_view text) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size())
        return std::nullopt;
    return value;
}

Timestamp redis_time(const Reply& reply) {
    const auto& parts = reply.as_array();
    return Timestamp{std::chrono::seconds(parts.at(0).as_integer()) +
                     std::chrono::microseconds(parts.at(1).as_integer())};
}

void add_counts(Pipeline& pipeline, const std::string& queue) {
    pipeline.add("LLEN", keys::queue(queue));
    for (const auto& key : {keys::started(queue), keys::finished(queue), keys::failed(queue),
                            keys::deferred(queue), keys::scheduled(queue), keys::canceled(queue)})
        pipeline.add("ZCARD", key);
    pipeline.add("HGET", keys::sorted, queue);  // Those that wait in lanes.
}

QueueStats counts(std::string queue, const Reply* replies) {
    // A key of the wrong type counts as empty: somebody else's damage must not hide the other
    // queues.
    const auto at = [&](std::size_t i) {
        return replies[i].type == Reply::Type::integer ? replies[i].integer : 0;
    };
    const auto in_lanes = number(replies[7].text).value_or(0);
    return {std::move(queue), at(0) + in_lanes, at(1), at(2), at(3), at(4), at(5), at(6), in_lanes};
}

Pauses::Pauses(const Reply& rules) {
    if (!rules.is_array()) return;
    for (const auto& [name, text] : rules.as_pairs()) {
        // Most rules are limits, and need not be read.
        if (text.find("pause") == std::string_view::npos) continue;
        const auto rule = parse_rule(std::string(name), text);
        if (rule && rule->kind == Rule::Kind::pause && rule->function.empty())
            patterns_.push_back(rule->queue);
    }
}

bool Pauses::hold(std::string_view queue) const {
    return std::ranges::any_of(patterns_, [&](const std::string& pattern) {
        return pattern.empty() || matches_wildcard(pattern, queue);
    });
}

}  // namespace rqxx::ops
