#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <rqxx/time.hpp>

namespace rqxx {
namespace {

namespace chrono = std::chrono;

/// Takes exactly `width` digits from the front of `text`.
std::optional<int> take_digits(std::string_view& text, std::size_t width) noexcept {
    if (text.size() < width) return std::nullopt;
    int value = 0;
    for (char c : text.substr(0, width)) {
        if (c < '0' || c > '9') return std::nullopt;
        value = value * 10 + (c - '0');
    }
    text.remove_prefix(width);
    return value;
}

bool take(std::string_view& text, char expected) noexcept {
    if (!text.starts_with(expected)) return false;
    text.remove_prefix(1);
    return true;
}

ParseError not_a_time(std::string_view text) {
    return ParseError(
        fmt::format("\"{}\" is not a time like 2026-11-23T17:47:37.728246Z", text.substr(0, 40)));
}

}  // namespace

Timestamp utc_now() noexcept {
    return chrono::time_point_cast<chrono::microseconds>(chrono::system_clock::now());
}

std::string format_utc(Timestamp time) {
    const auto day = chrono::floor<chrono::days>(time);
    const chrono::year_month_day date{day};
    const chrono::hh_mm_ss clock{time - day};
    // By hand: every enqueued job needs several of these.
    std::string text = "0000-00-00T00:00:00.000000Z";
    const auto put = [&](std::size_t at, std::size_t width, std::int64_t number) {
        for (std::size_t i = width; i-- > 0; number /= 10)
            text[at + i] = static_cast<char>('0' + number % 10);
    };
    put(0, 4, static_cast<int>(date.year()));
    put(5, 2, static_cast<unsigned>(date.month()));
    put(8, 2, static_cast<unsigned>(date.day()));
    put(11, 2, clock.hours().count());
    put(14, 2, clock.minutes().count());
    put(17, 2, clock.seconds().count());
    put(20, 6, clock.subseconds().count());
    return text;
}

Parsed<Timestamp> parse_utc(std::string_view text) noexcept {
    std::string_view rest = text;
    const auto year = take_digits(rest, 4);
    const bool dash1 = take(rest, '-');
    const auto month = take_digits(rest, 2);
    const bool dash2 = take(rest, '-');
    const auto day = take_digits(rest, 2);
    const bool t = take(rest, 'T');
    const auto hour = take_digits(rest, 2);
    const bool colon1 = take(rest, ':');
    const auto minute = take_digits(rest, 2);
    const bool colon2 = take(rest, ':');
    const auto second = take_digits(rest, 2);
    if (!year || !dash1 || !month || !dash2 || !day || !t || !hour || !colon1 || !minute ||
        !colon2 || !second)
        return not_a_time(text);
    int micros = 0;
    if (take(rest, '.')) {
        int digits = 0;
        while (digits < 6 && !rest.empty() && rest.front() >= '0' && rest.front() <= '9') {
            micros = micros * 10 + (rest.front() - '0');
            rest.remove_prefix(1);
            ++digits;
        }
        if (digits == 0) return not_a_time(text);
        for (; digits < 6; ++digits)
            micros *= 10;
    }
    if (rest != "Z" || *hour > 23 || *minute > 59 || *second > 59) return not_a_time(text);
    const chrono::year_month_day date{chrono::year{*year},
                                      chrono::month(static_cast<unsigned>(*month)),
                                      chrono::day(static_cast<unsigned>(*day))};
    if (!date.ok() || *year < 1) return not_a_time(text);
    return Timestamp{chrono::sys_days{date}} + chrono::hours{*hour} + chrono::minutes{*minute} +
           chrono::seconds{*second} + chrono::microseconds{micros};
}

std::string format_epoch(Timestamp time) {
    const auto micros = time.time_since_epoch().count();
    return fmt::format("{}{}.{:06}", micros < 0 ? "-" : "", std::abs(micros) / 1'000'000,
                       std::abs(micros) % 1'000'000);
}

Parsed<Timestamp> parse_epoch(std::string_view text) noexcept {
    double seconds = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
    // Year 9999 and before; also refuses NaN and infinities.
    if (error != std::errc{} || end != text.data() + text.size() ||
        !(std::abs(seconds) < 253402300800.0))
        return ParseError(fmt::format("\"{}\" is not a number of seconds", text.substr(0, 40)));
    return Timestamp{chrono::microseconds{std::llround(seconds * 1e6)}};
}

Parsed<Timestamp> parse_time(std::string_view text) noexcept {
    if (const auto epoch = parse_epoch(text)) return *epoch;
    if (text.size() <= 6 || text[text.size() - 3] != ':' ||
        (text[text.size() - 6] != '+' && text[text.size() - 6] != '-'))
        return parse_utc(text);
    std::string_view zone = text.substr(text.size() - 5);
    const auto hours = take_digits(zone, 2);
    zone.remove_prefix(1);
    const auto minutes = take_digits(zone, 2);
    if (!hours || !minutes || *hours > 23 || *minutes > 59) return not_a_time(text);
    const auto local = parse_utc(std::string(text.substr(0, text.size() - 6)) + "Z");
    if (!local) return not_a_time(text);
    const chrono::minutes offset = chrono::hours(*hours) + chrono::minutes(*minutes);
    return text[text.size() - 6] == '-' ? *local + offset : *local - offset;
}

std::string format_seconds(Seconds duration) {
    std::string text = fmt::format("{:.2f}", duration.count());
    text.erase(text.find_last_not_of('0') + 1);
    if (text.ends_with('.')) text.pop_back();
    return text == "-0" ? "0" : text;
}

Parsed<chrono::seconds> parse_duration(std::string_view text) noexcept {
    const auto fail = [&] {
        return ParseError(
            fmt::format("\"{}\" is not a duration like 90, 90s, 5m, 1h or 2d", text.substr(0, 40)));
    };
    std::int64_t factor = 1;
    std::string_view digits = text;
    if (!digits.empty()) {
        switch (digits.back()) {
            case 'd':
            case 'D':
                factor = 86400;
                break;
            case 'h':
            case 'H':
                factor = 3600;
                break;
            case 'm':
            case 'M':
                factor = 60;
                break;
            case 's':
            case 'S':
                factor = 1;
                break;
            default:
                factor = 0;
        }
        if (factor != 0)
            digits.remove_suffix(1);
        else
            factor = 1;
    }
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size() ||
        value < -1 || value > std::numeric_limits<std::int32_t>::max())
        return fail();
    return chrono::seconds{value * factor};
}

}  // namespace rqxx
