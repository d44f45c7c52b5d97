#include <date/tz.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <rqxx/cron.hpp>
#include <span>
#include <vector>

namespace rqxx {
namespace {

namespace chrono = std::chrono;
using chrono::seconds;

/// Longest distance of two slots that is looked over: the 29th of February on one day of the week
/// can be 40 years away.
constexpr auto search_limit = chrono::days(50 * 366);

struct Field {
    std::string_view name;
    int low, high;
    std::string_view words;  ///< Three letters for each value, from `low` up.
};

constexpr std::array<Field, 6> fields{{
    {"second", 0, 59, ""},
    {"minute", 0, 59, ""},
    {"hour", 0, 23, ""},
    {"day of month", 1, 31, ""},
    {"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
    {"day of week", 0, 7, "sunmontuewedthufrisat"},
}};

constexpr std::array<std::pair<std::string_view, std::string_view>, 7> aliases{{
    {"@yearly", "0 0 1 1 *"},
    {"@annually", "0 0 1 1 *"},
    {"@monthly", "0 0 1 * *"},
    {"@weekly", "0 0 * * 0"},
    {"@daily", "0 0 * * *"},
    {"@midnight", "0 0 * * *"},
    {"@hourly", "0 * * * *"},
}};

std::string lower(std::string_view text) {
    std::string result(text);
    for (char& c : result)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return result;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separators) {
    std::vector<std::string_view> parts;
    for (std::size_t at = 0; at <= text.size();) {
        const auto end = std::min(text.find_first_of(separators, at), text.size());
        parts.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    return parts;
}

ParseError wrong(const Field& field, std::string_view text, std::string_view why) {
    return ParseError(fmt::format("\"{}\" {}", text.substr(0, 40), why), std::string(field.name));
}

std::optional<int> number(std::string_view text) {
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || text.size() > 4 || text.front() == '-' || error != std::errc{} ||
        end != text.data() + text.size())
        return std::nullopt;
    return value;
}

Parsed<int> value_of(const Field& field, std::string_view text) {
    if (const auto value = number(text)) {
        if (*value >= field.low && *value <= field.high) return *value;
        return wrong(field, text, fmt::format("is not from {} to {}", field.low, field.high));
    }
    if (text.size() == 3) {
        const auto at = field.words.find(text);
        if (at != std::string_view::npos && at % 3 == 0)
            return field.low + static_cast<int>(at / 3);
    }
    return wrong(field, text, field.words.empty() ? "is not a number" : "is no number and no name");
}

/// The values that a field names, as bits.
template <std::size_t N>
std::optional<ParseError> parse_field(const Field& field, std::string_view text,
                                      std::bitset<N>& bits) {
    for (const auto part : split(text, ",")) {
        const auto slash = part.find('/');
        const std::string_view range = part.substr(0, slash);
        int low = field.low, high = N == 7 ? 6 : field.high, step = 1;
        if (range != "*") {
            const auto dash = range.find('-');
            const auto first = value_of(field, range.substr(0, dash));
            if (!first) return first.error();
            low = *first;
            if (dash != std::string_view::npos) {
                const auto last = value_of(field, range.substr(dash + 1));
                if (!last) return last.error();
                // Saturday to Sunday: a week may end with it.
                high = N == 7 && *last == 0 && low > 0 ? 7 : *last;
                if (high < low) return wrong(field, range, "ends before it begins");
            } else if (slash == std::string_view::npos) {
                high = low;
            } else if (low > high) {
                low = 0;  // 7 is Sunday, with which a week begins.
            }
        }
        if (slash != std::string_view::npos) {
            const auto given = number(part.substr(slash + 1));
            if (!given || *given < 1 || *given > field.high)
                return wrong(field, part, fmt::format("needs a step from 1 to {}", field.high));
            step = *given;
        }
        for (int value = low; value <= high; value += step)
            bits.set(static_cast<std::size_t>(N == 7 ? value % 7 : value));
    }
    return std::nullopt;
}

/// The lowest set bit from `from` up.
template <std::size_t N>
std::optional<int> next_bit(const std::bitset<N>& bits, int from) {
    for (auto i = static_cast<std::size_t>(from); i < N; ++i)
        if (bits[i]) return static_cast<int>(i);
    return std::nullopt;
}

}  // namespace

// ---- time zones --------------------------------------------------------------------------------

Parsed<TimeZone> TimeZone::find(std::string_view name) noexcept {
    TimeZone zone;
    if (name == "UTC") return zone;
    // The library joins the name to a folder and opens that file.
    const bool plausible = !name.empty() && name.size() < 100 &&
                           name.find("..") == std::string_view::npos && name.front() != '/' &&
                           name.find_first_not_of(
                               "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                               "0123456789_+-/") == std::string_view::npos;
    try {
        if (plausible) {
            zone.zone_ = date::locate_zone(name);
            return zone;
        }
    } catch (const std::exception&) {
    }
    return ParseError(
        fmt::format("\"{}\" is not a time zone like Europe/Berlin", name.substr(0, 40)));
}

std::string TimeZone::name() const {
    return zone_ == nullptr ? "UTC" : zone_->name();
}

std::string TimeZone::format(Slot time) const {
    const seconds offset = zone_ == nullptr ? seconds(0) : zone_->get_info(time).offset;
    const auto wall = time + offset;
    const auto day = chrono::floor<chrono::days>(wall);
    const chrono::year_month_day date{day};
    const chrono::hh_mm_ss clock{wall - day};
    const auto minutes = chrono::abs(chrono::floor<chrono::minutes>(offset)).count();
    return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02} {}{:02}:{:02}",
                       static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                       static_cast<unsigned>(date.day()), clock.hours().count(),
                       clock.minutes().count(), clock.seconds().count(),
                       offset < seconds(0) ? '-' : '+', minutes / 60, minutes % 60);
}

// ---- expressions -------------------------------------------------------------------------------

Parsed<CronExpression> CronExpression::parse(std::string_view text) noexcept {
    std::string expression = lower(text);
    if (expression.starts_with('@')) {
        const auto* const alias =
            std::find_if(aliases.begin(), aliases.end(),
                         [&](const auto& known) { return known.first == expression; });
        if (alias == aliases.end())
            return ParseError(
                fmt::format("\"{}\" is not one of @hourly, @daily, @midnight, "
                            "@weekly, @monthly, @yearly, @annually",
                            text.substr(0, 40)));
        expression = alias->second;
    }
    std::vector<std::string_view> parts = split(expression, " \t");
    std::erase(parts, std::string_view());
    if (parts.size() != 5 && parts.size() != 6)
        return ParseError(fmt::format("\"{}\" has {} fields; 5 are needed, or 6 with seconds first",
                                      text.substr(0, 60), parts.size()));
    CronExpression cron;
    cron.text_ = std::string(text);
    cron.has_seconds_ = parts.size() == 6;
    if (!cron.has_seconds_) parts.insert(parts.begin(), "0");
    std::optional<ParseError> error;
    const auto read = [&](std::size_t index, auto& bits) {
        if (!error) error = parse_field(fields[index], parts[index], bits);
    };
    read(0, cron.seconds_);
    read(1, cron.minutes_);
    read(2, cron.hours_);
    read(3, cron.days_);
    read(4, cron.months_);
    read(5, cron.weekdays_);
    if (error) return *error;
    cron.elapsed_ = parts[2].find_first_of("*/") != std::string_view::npos || cron.hours_.all();
    cron.any_day_ = parts[3].starts_with('*');
    cron.any_weekday_ = parts[5].starts_with('*');
    if (!cron.next_wall(Wall(chrono::sys_days(chrono::year(2024) / 1 / 1))))
        return ParseError(fmt::format("\"{}\" names no day that exists", text.substr(0, 60)));
    return cron;
}

std::string CronExpression::croniter_text() const {
    std::string expression = lower(text_);
    if (!has_seconds_) return expression;
    auto parts = split(expression, " \t");
    std::erase(parts, std::string_view());
    std::rotate(parts.begin(), parts.begin() + 1, parts.end());
    return fmt::format("{}", fmt::join(parts, " "));
}

bool CronExpression::matches_day(chrono::year_month_day day) const {
    const bool date = days_[static_cast<unsigned>(day.day())];
    const bool weekday = weekdays_[chrono::weekday(chrono::sys_days(day)).c_encoding()];
    return any_day_ || any_weekday_ ? date && weekday : date || weekday;
}

std::optional<CronExpression::Wall> CronExpression::next_wall(Wall after) const {
    const Wall from = after + seconds(1);
    const auto first_day = chrono::floor<chrono::days>(from);
    for (auto day = first_day; day < first_day + search_limit;) {
        const chrono::year_month_day date{day};
        if (!months_[static_cast<unsigned>(date.month())]) {
            day = chrono::sys_days((date.year() / date.month() + chrono::months(1)) / 1);
            continue;
        }
        if (matches_day(date)) {
            // The earliest time of this day that matches, from `from` on where it is the first.
            const chrono::hh_mm_ss start{day == first_day ? from - day : seconds(0)};
            const int hour = static_cast<int>(start.hours().count());
            const int minute = static_cast<int>(start.minutes().count());
            const int second = static_cast<int>(start.seconds().count());
            for (auto h = next_bit(hours_, hour); h; h = next_bit(hours_, *h + 1)) {
                const bool same_hour = *h == hour;
                for (auto m = next_bit(minutes_, same_hour ? minute : 0); m;
                     m = next_bit(minutes_, *m + 1)) {
                    const auto s = next_bit(seconds_, same_hour && *m == minute ? second : 0);
                    if (s) return day + chrono::hours(*h) + chrono::minutes(*m) + seconds(*s);
                }
            }
        }
        day += chrono::days(1);
    }
    return std::nullopt;
}

std::optional<Slot> CronExpression::next(Slot after, const TimeZone& zone) const {
    if (zone.zone_ == nullptr) return next_wall(after);
    const Slot give_up = after + search_limit;
    if (elapsed_) {
        // Between two changes of the clock it runs evenly.
        while (after < give_up) {
            const auto info = zone.zone_->get_info(after + seconds(1));
            const auto wall = next_wall(after + info.offset);
            if (!wall) return std::nullopt;
            if (*wall - info.offset < info.end) return *wall - info.offset;
            after = info.end - seconds(1);
        }
        return std::nullopt;
    }
    auto wall = next_wall(after + zone.zone_->get_info(after).offset);
    while (wall) {
        const auto info = zone.zone_->get_info(date::local_seconds(wall->time_since_epoch()));
        // Left out: the moment at which the clock is moved. Twice: the first time.
        const Slot slot = info.result == date::local_info::nonexistent
                              ? chrono::time_point_cast<seconds>(info.first.end)
                              : *wall - info.first.offset;
        if (slot > after) return slot;
        wall = next_wall(*wall);
    }
    return std::nullopt;
}

}  // namespace rqxx
