#pragma once

#include <bitset>
#include <chrono>
#include <optional>
#include <rqxx/error.hpp>
#include <rqxx/time.hpp>
#include <string>
#include <string_view>

namespace date {
class time_zone;
}

namespace rqxx {

/// A time zone of the system's tzdata, by its IANA name. Cheap to copy.
class TimeZone {
public:
    /// UTC.
    TimeZone() = default;
    /// Reads the zone's file on first use.
    [[nodiscard]] static Parsed<TimeZone> find(std::string_view name) noexcept;

    [[nodiscard]] std::string name() const;
    /// `2026-11-26 03:00:00 +01:00`: the zone's clock at this moment.
    [[nodiscard]] std::string format(std::chrono::sys_seconds time) const;

private:
    friend class CronExpression;
    const date::time_zone* zone_ = nullptr;  ///< Nothing for UTC.
};

/// A moment at which something is to run, in whole seconds.
using Slot = std::chrono::sys_seconds;

/// When to run: `minute hour day-of-month month day-of-week`, or six fields, seconds first.
///
/// A field is `*`, a number, a range `9-17`, a step `*/5`, `9-17/2` or `5/15`, or a list of these.
/// Months and days of the week may be named by three letters; 0 and 7 are Sunday. `@hourly`,
/// `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly` and `@annually` stand for the obvious.
/// Where neither day field begins with `*`, a day has to match one of them, else both (vixie cron).
///
/// When clocks change: where the hour field names hours, a slot in the hour that is left out runs
/// once, at the first moment after it; one in the hour that comes twice runs the first time. Where
/// it is `*` or a step, whatever the clock shows counts: nothing in the hour left out, both passes
/// of the hour that comes twice.
class CronExpression {
public:
    /// The error names the field.
    [[nodiscard]] static Parsed<CronExpression> parse(std::string_view text) noexcept;

    /// The first slot after `after`; nothing when there is none within 50 years (30 February).
    [[nodiscard]] std::optional<Slot> next(Slot after, const TimeZone& zone) const;
    /// As it was given.
    [[nodiscard]] const std::string& text() const noexcept { return text_; }
    /// In the words of Python's croniter, which RQ uses: seconds come last there.
    [[nodiscard]] std::string croniter_text() const;

private:
    CronExpression() = default;
    friend boost::system::result<CronExpression, ParseError>;
    /// Seconds since the epoch on a wall clock.
    using Wall = std::chrono::sys_seconds;
    [[nodiscard]] bool matches_day(std::chrono::year_month_day day) const;
    [[nodiscard]] std::optional<Wall> next_wall(Wall after) const;

    std::string text_;
    bool has_seconds_ = false;
    std::bitset<60> seconds_, minutes_;
    std::bitset<24> hours_;
    std::bitset<32> days_;
    std::bitset<13> months_;
    std::bitset<7> weekdays_;
    bool any_day_ = false;      ///< The day of the month begins with `*`.
    bool any_weekday_ = false;  ///< The day of the week does.
    bool elapsed_ = false;      ///< The hour is `*` or a step.
};

}  // namespace rqxx
