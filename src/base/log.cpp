#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <mutex>
#include <rqxx/log.hpp>

#include "base/utf8.hpp"

namespace rqxx {
namespace {

std::string_view name_of(LogLevel level) noexcept {
    switch (level) {
        case LogLevel::debug:
            return "DEBUG";
        case LogLevel::info:
            return "INFO";
        case LogLevel::warning:
            return "WARNING";
        default:
            return "ERROR";
    }
}

/// Appends `text` as valid UTF-8 with control characters escaped, and quotes too where `quoted`.
void append_escaped(fmt::memory_buffer& out, std::string_view text, bool quoted) {
    for (std::size_t at = 0; at < text.size();) {
        const auto [code, length] = next_utf8(text, at);
        if (code == '\n')
            out.append(std::string_view("\\n"));
        else if (code == '\r')
            out.append(std::string_view("\\r"));
        else if (code == '\t')
            out.append(std::string_view("\\t"));
        else if (code < 0x20 || (code >= 0x7f && code < 0xa0))
            fmt::format_to(fmt::appender(out), "\\u{:04x}", code);
        else if (code == Utf8::invalid || (code >= 0xd800 && code < 0xe000))
            out.append(std::string_view("\xef\xbf\xbd"));
        else {
            if (quoted && (code == '"' || code == '\\')) out.push_back('\\');
            out.append(text.substr(at, length));
        }
        at += length;
    }
}

void append_text(fmt::memory_buffer& out, LogLevel level, std::string_view message,
                 std::span<const LogField> fields) {
    fmt::format_to(fmt::appender(out), "{}: {}", name_of(level), message);
    std::string_view separator = ": ";
    for (const auto& [key, value] : fields) {
        fmt::format_to(fmt::appender(out), "{}{}=", separator, key);
        separator = ", ";
        if (const auto* text = std::get_if<std::string_view>(&value))
            append_escaped(out, *text, false);
        else if (const auto* number = std::get_if<std::int64_t>(&value))
            fmt::format_to(fmt::appender(out), "{}", *number);
        else if (const auto* flag = std::get_if<bool>(&value))
            fmt::format_to(fmt::appender(out), "{}", *flag);
        else
            fmt::format_to(fmt::appender(out), "{}s", format_seconds(std::get<Seconds>(value)));
    }
}

void append_json(fmt::memory_buffer& out, LogLevel level, std::string_view message,
                 std::span<const LogField> fields) {
    fmt::format_to(fmt::appender(out), R"({{"time":"{}","level":"{}","event":"{}")",
                   format_utc(utc_now()), name_of(level), message);
    for (const auto& [key, value] : fields) {
        fmt::format_to(fmt::appender(out), R"(,"{}":)", key);
        if (const auto* text = std::get_if<std::string_view>(&value)) {
            out.push_back('"');
            append_escaped(out, *text, true);
            out.push_back('"');
        } else if (const auto* number = std::get_if<std::int64_t>(&value))
            fmt::format_to(fmt::appender(out), "{}", *number);
        else if (const auto* flag = std::get_if<bool>(&value))
            fmt::format_to(fmt::appender(out), "{}", *flag);
        else
            fmt::format_to(fmt::appender(out), "{}", format_seconds(std::get<Seconds>(value)));
    }
    out.push_back('}');
}

}  // namespace

struct Logger::Output {
    Sink sink;
    std::mutex mutex;
    std::unique_ptr<spdlog::logger> stderr_logger;
};

Logger::Logger(LogLevel level, LogFormat format)
    : level_(level), format_(format), output_(std::make_unique<Output>()) {
    output_->stderr_logger =
        std::make_unique<spdlog::logger>("rqxx", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    output_->stderr_logger->set_pattern("%v");
}

Logger::Logger(LogLevel level, LogFormat format, Sink sink)
    : level_(level), format_(format), output_(std::make_unique<Output>()) {
    output_->sink = std::move(sink);
}

Logger::~Logger() = default;

void Logger::log(LogLevel level, std::string_view message, std::span<const LogField> fields) {
    if (!enabled(level)) return;
    fmt::memory_buffer line;
    if (format_ == LogFormat::json)
        append_json(line, level, message, fields);
    else
        append_text(line, level, message, fields);
    const std::string_view text(line.data(), line.size());
    if (output_->stderr_logger) {
        output_->stderr_logger->log(spdlog::level::info, text);
    } else {
        const std::scoped_lock lock(output_->mutex);
        output_->sink(text);
    }
}

Logger& null_logger() noexcept {
    static Logger logger(LogLevel::off, LogFormat::text, [](std::string_view) {});
    return logger;
}

Parsed<LogLevel> parse_log_level(std::string_view text) noexcept {
    if (text == "debug") return LogLevel::debug;
    if (text == "info") return LogLevel::info;
    if (text == "warning") return LogLevel::warning;
    if (text == "error") return LogLevel::error;
    return ParseError(fmt::format("\"{}\" is not one of debug, info, warning, error", text));
}

Parsed<LogFormat> parse_log_format(std::string_view text) noexcept {
    if (text == "text") return LogFormat::text;
    if (text == "json") return LogFormat::json;
    return ParseError(fmt::format("\"{}\" is not one of text, json", text));
}

}  // namespace rqxx
