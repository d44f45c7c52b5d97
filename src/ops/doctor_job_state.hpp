#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

namespace rqxx::ops::doctor {

/// Status words, by the number that a job's state keeps.
inline constexpr std::array<std::string_view, 12> status_words{
    "",         "created", "queued",  "deferred", "scheduled",    "started",
    "finished", "failed",  "stopped", "canceled", "rate_limited", "ready_to_enqueue"};
enum Status : std::uint8_t {
    unknown,
    created,
    queued,
    deferred,
    scheduled,
    started,
    finished,
    failed,
    stopped,
    canceled,
    rate_limited
};

/// What is known of a job, as bits.
enum Flag : std::uint32_t {
    has_hash = 1 << 0,
    has_data = 1 << 1,
    has_results = 1 << 2,
    names_dependencies = 1 << 3,
    repeats = 1 << 4,
    on_list = 1 << 5,
    on_own_list = 1 << 6,
    in_intermediate = 1 << 7,
    in_scratch = 1 << 8,
    in_wip = 1 << 9,
    in_finished = 1 << 10,
    in_failed = 1 << 11,
    in_deferred = 1 << 12,
    in_scheduled = 1 << 13,
    in_canceled = 1 << 14,
    in_rate_limited = 1 << 15,
    in_lane = 1 << 16,
};

struct JobState {
    std::uint32_t queue = 0;  ///< Index of the name of its queue; 0: it has none.
    Status status = unknown;
    std::uint32_t flags = 0;

    [[nodiscard]] bool is(std::uint32_t flag) const noexcept { return (flags & flag) != 0; }
};
using Jobs = std::unordered_map<std::string, JobState>;

struct RegistryKind {
    std::string_view prefix;
    std::uint32_t flag;
    std::array<Status, 2> fits;
};
inline constexpr std::array<RegistryKind, 6> registry_kinds{{
    {"rq:wip:", in_wip, {started, started}},
    {"rq:finished:", in_finished, {finished, finished}},
    {"rq:failed:", in_failed, {failed, stopped}},
    {"rq:deferred:", in_deferred, {deferred, deferred}},
    {"rq:scheduled:", in_scheduled, {scheduled, created}},
    {"rq:canceled:", in_canceled, {canceled, canceled}},
}};

}  // namespace rqxx::ops::doctor
