#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <rqxx/time.hpp>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

namespace rqxx {

enum class LogLevel { debug, info, warning, error, off };
enum class LogFormat { text, json };

/// One `key=value` of a log line.
struct LogField {
    using Data = std::variant<std::string_view, std::int64_t, bool, Seconds>;
    std::string_view key;
    Data value;
};

/// Writes one line per event: `INFO: Job finished: id=abc123, duration=12.34s`, or JSON.
///
/// The message is constant, what varies are the fields. Line breaks and other control characters
/// in a value are escaped, so that an event is always one line.
/// Thread safety: all members may be called from any thread.
class Logger {
public:
    using Sink = std::function<void(std::string_view line)>;

    /// Logs to stderr.
    explicit Logger(LogLevel level = LogLevel::info, LogFormat format = LogFormat::text);
    /// Logs to `sink`, called with whole lines without the line break, one at a time.
    Logger(LogLevel level, LogFormat format, Sink sink);
    ~Logger();
    Logger(const Logger&) = delete;
    Logger& operator=(const Logger&) = delete;

    /// `fields` are pairs: a key, then a string, integer, bool or `std::chrono` duration.
    template <class... Fields>
    void debug(std::string_view message, const Fields&... fields) {
        write(LogLevel::debug, message, fields...);
    }
    template <class... Fields>
    void info(std::string_view message, const Fields&... fields) {
        write(LogLevel::info, message, fields...);
    }
    template <class... Fields>
    void warning(std::string_view message, const Fields&... fields) {
        write(LogLevel::warning, message, fields...);
    }
    template <class... Fields>
    void error(std::string_view message, const Fields&... fields) {
        write(LogLevel::error, message, fields...);
    }

    [[nodiscard]] bool enabled(LogLevel level) const noexcept { return level >= level_; }
    void log(LogLevel level, std::string_view message, std::span<const LogField> fields);

private:
    template <class... Fields>
    void write(LogLevel level, std::string_view message, const Fields&... fields) {
        static_assert(sizeof...(fields) % 2 == 0, "fields are pairs of key and value");
        if (!enabled(level)) return;
        if constexpr (sizeof...(fields) == 0) {
            log(level, message, {});
        } else {
            std::array<LogField, sizeof...(fields) / 2> list;
            fill(list.data(), fields...);
            log(level, message, list);
        }
    }
    template <class Value, class... Rest>
    static void fill(LogField* at, std::string_view key, const Value& value, const Rest&... rest) {
        at->key = key;
        at->value = data(value);
        if constexpr (sizeof...(rest) > 0) fill(at + 1, rest...);
    }
    template <class Value>
    static LogField::Data data(const Value& value) {
        if constexpr (std::is_same_v<Value, bool>)
            return value;
        else if constexpr (std::is_integral_v<Value>)
            return static_cast<std::int64_t>(value);
        else if constexpr (std::is_convertible_v<const Value&, std::string_view>)
            return std::string_view(value);
        else
            return Seconds(value);
    }

    LogLevel level_;
    LogFormat format_;
    struct Output;
    std::unique_ptr<Output> output_;
};

/// A logger that writes nothing, for callers who want none.
[[nodiscard]] Logger& null_logger() noexcept;

[[nodiscard]] Parsed<LogLevel> parse_log_level(std::string_view text) noexcept;
[[nodiscard]] Parsed<LogFormat> parse_log_format(std::string_view text) noexcept;

}  // namespace rqxx
