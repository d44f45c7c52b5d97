#pragma once

#include <chrono>
#include <rqxx/error.hpp>
#include <string>
#include <string_view>

namespace rqxx {

/// A point in UTC time as Redis and people see it.
using Timestamp = std::chrono::sys_time<std::chrono::microseconds>;
/// Seconds with a fraction, for durations shown to people.
using Seconds = std::chrono::duration<double>;

/// Local wall clock. Only for display fields that RQ, too, fills from the client's clock.
[[nodiscard]] Timestamp utc_now() noexcept;

/// `2026-11-23T17:47:37.728246Z`: RQ's form, always six fraction digits.
/// Source: rq/utils.py utcformat (RQ 2.10).
[[nodiscard]] std::string format_utc(Timestamp time);

/// Reads RQ's form with 0 to 6 fraction digits. Anything else is an error, as in RQ.
/// Source: rq/utils.py utcparse (RQ 2.10).
[[nodiscard]] Parsed<Timestamp> parse_utc(std::string_view text) noexcept;

/// Seconds since the epoch with microseconds, as text that Python's float() reads back exactly.
[[nodiscard]] std::string format_epoch(Timestamp time);
[[nodiscard]] Parsed<Timestamp> parse_epoch(std::string_view text) noexcept;

/// A moment as people write it: RFC 3339 with `Z` or an offset, or seconds since 1970.
[[nodiscard]] Parsed<Timestamp> parse_time(std::string_view text) noexcept;

/// At most two decimals, trailing zeros dropped: `0.5`, `12.34`, `3`.
[[nodiscard]] std::string format_seconds(Seconds duration);

/// A duration as RQ writes it: digits with an optional unit of d, h, m or s (`90`, `90s`, `1h`).
/// Source: rq/utils.py parse_timeout (RQ 2.10).
[[nodiscard]] Parsed<std::chrono::seconds> parse_duration(std::string_view text) noexcept;

}  // namespace rqxx
