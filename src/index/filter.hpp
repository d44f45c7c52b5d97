#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace rqxx::index {

/// Which jobs a list shows. Of each list one must fit; empty lists and texts fit all.
struct JobFilter {
    std::vector<std::string> statuses, workers, groups, tags;
    std::vector<std::string> queues, functions;  ///< `*` stands for any text.
    std::string error;                           ///< Part of the error's last line, in any case.
    std::string id_prefix;
    std::optional<std::int64_t> since, until;  ///< Created at or after, before (us since 1970).
    std::optional<std::int64_t> min_duration, max_duration;  ///< us; only jobs that have run.
    bool newest_first = true;
};

/// Behind which job a page ended.
struct JobPosition {
    std::int64_t created = 0, row = 0;
    friend bool operator==(const JobPosition&, const JobPosition&) = default;
};

/// What tells the lists of one filter from those of another, whose places mean nothing there: 16
/// hex digits. Those of other times are the same list, only cut elsewhere.
[[nodiscard]] std::string digest(const JobFilter& filter);

/// A place in the list of `key` as text that clients give back.
[[nodiscard]] std::string encode_cursor(const JobPosition& position, std::string_view key);
/// Nothing for what was not made by `encode_cursor` for the same `key`.
[[nodiscard]] std::optional<JobPosition> decode_cursor(std::string_view cursor,
                                                       std::string_view key);

}  // namespace rqxx::index
