#pragma once

#include <map>
#include <rqxx/rules.hpp>
#include <string>
#include <string_view>
#include <vector>

/// The rules as a worker applies them: which hold for a queue, and in which lane a job waits.
namespace rqxx::ops {

/// What holds for the jobs of one queue.
struct QueueRules {
    bool paused = false;
    std::vector<std::string> limits;  ///< Names of those that hold for each of its jobs alike.
    /// Which rules told its jobs apart; empty: none does, and jobs wait on the list alone.
    std::string epoch;

    struct Part {
        std::string rule;
        std::string function;  ///< A pattern; empty: any.
        std::optional<KeyExpression> key;
        std::optional<KeyExpression> points_key;
        std::int64_t points = 1, most_points = 1;
    };
    std::optional<KeyExpression> fair;
    std::vector<Part> parts;
    bool needs_meta = false;
};

class RuleSet {
public:
    RuleSet() = default;
    explicit RuleSet(Rules::Listing listing) : listing_(std::move(listing)) {}
    [[nodiscard]] const std::string& version() const noexcept { return listing_.version; }
    [[nodiscard]] bool empty() const noexcept { return listing_.rules.empty(); }
    [[nodiscard]] const std::vector<Rule>& rules() const noexcept { return listing_.rules; }
    [[nodiscard]] QueueRules for_queue(std::string_view queue) const;

private:
    Rules::Listing listing_;
};

/// Where a job of this queue waits. See lua/includes/lanes.lua.
[[nodiscard]] std::string lane_of(const QueueRules& rules, const std::string& queue,
                                  const Call& call, const Value& meta);
/// The lane of a job that cannot be read: no rule tells it from others.
[[nodiscard]] std::string lane_without_call(const QueueRules& rules);
/// The rules in a lane's name, each with its key.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> parts_of_lane(std::string_view lane);
/// A key as it stands in the names of lanes and limiters: percent-encoded, and cut with a digest
/// where it is long.
[[nodiscard]] std::string encode_key(std::string_view key);

}  // namespace rqxx::ops
