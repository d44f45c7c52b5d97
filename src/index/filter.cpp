#include "index/filter.hpp"

#include <fmt/format.h>

#include <charconv>

#include "ops/deduplication.hpp"

namespace rqxx::index {
namespace {

constexpr std::size_t check_digits = 10;

std::string check_of(std::string_view place, std::string_view key) {
    return ops::sha256_hex(fmt::format("{}/{}", place, key)).substr(0, check_digits);
}

std::optional<std::int64_t> number(std::string_view text) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size())
        return std::nullopt;
    return value;
}

}  // namespace

std::string digest(const JobFilter& filter) {
    std::string text;
    const auto add = [&](std::string_view part) {
        text += fmt::format("{}:{};", part.size(), part);
    };
    for (const auto* list : {&filter.statuses, &filter.workers, &filter.groups, &filter.tags,
                             &filter.queues, &filter.functions}) {
        add(std::to_string(list->size()));
        for (const auto& value : *list)
            add(value);
    }
    add(filter.error);
    add(filter.id_prefix);
    // Not since and until: who asks for the last hour goes on asking while time goes on.
    for (const auto& value : {filter.min_duration, filter.max_duration})
        add(value ? std::to_string(*value) : "-");
    add(filter.newest_first ? "newest" : "oldest");
    return ops::sha256_hex(text).substr(0, 16);
}

std::string encode_cursor(const JobPosition& position, std::string_view key) {
    const std::string place = fmt::format("{}_{}", position.created, position.row);
    return fmt::format("{}_{}", place, check_of(place, key));
}

std::optional<JobPosition> decode_cursor(std::string_view cursor, std::string_view key) {
    const auto last = cursor.rfind('_');
    if (cursor.size() > 80 || last == std::string_view::npos) return std::nullopt;
    const std::string_view place = cursor.substr(0, last);
    const auto first = place.find('_');
    if (first == std::string_view::npos || cursor.substr(last + 1) != check_of(place, key))
        return std::nullopt;
    const auto created = number(place.substr(0, first));
    const auto row = number(place.substr(first + 1));
    if (!created || !row) return std::nullopt;
    return JobPosition{*created, *row};
}

}  // namespace rqxx::index
