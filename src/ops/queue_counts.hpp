#pragma once

#include <cstdint>
#include <optional>
#include <rqxx/monitor.hpp>
#include <string>
#include <string_view>
#include <vector>

/// How many jobs of a queue are where: the commands that ask, and what their replies mean.
namespace rqxx::ops {

/// Of a reply to SMEMBERS of RQ's set of queues, in order.
[[nodiscard]] std::vector<std::string> queue_names(const Reply& members);

/// A whole number and nothing else.
[[nodiscard]] std::optional<std::int64_t> number(std::string_view text);

/// Of a reply to TIME.
[[nodiscard]] Timestamp redis_time(const Reply& reply);

inline constexpr std::size_t counts_per_queue = 8;
/// Adds so many commands.
void add_counts(Pipeline& pipeline, const std::string& queue);
/// `replies`: the first of so many.
[[nodiscard]] QueueStats counts(std::string queue, const Reply* replies);

/// The queues that rules pause, of a reply to HGETALL of the rules.
class Pauses {
public:
    explicit Pauses(const Reply& rules);
    [[nodiscard]] bool hold(std::string_view queue) const;

private:
    std::vector<std::string> patterns_;
};

}  // namespace rqxx::ops
