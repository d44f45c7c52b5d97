#include <fmt/format.h>

#include <cassert>
#include <cmath>
#include <cstdio>
#include <rqxx/value.hpp>

#include "base/utf8.hpp"
#include "model/python_float.hpp"

namespace rqxx {
namespace {

/// `datetime.timedelta(...)` of what Python keeps of one. Source: CPython Lib/_pydatetime.py.
std::string python_timedelta(long days, long seconds, long micros) {
    std::string parts;
    const std::pair<std::string_view, long> fields[] = {
        {"days", days}, {"seconds", seconds}, {"microseconds", micros}};
    for (const auto& [name, value] : fields) {
        if (value != 0) parts += fmt::format("{}{}={}", parts.empty() ? "" : ", ", name, value);
    }
    return fmt::format("datetime.timedelta({})", parts.empty() ? "0" : parts);
}

/// The offset of an ISO text, `Z` or `+hh:mm[:ss]`, as `, tzinfo=...`; nothing for none.
std::string python_zone(std::string_view offset) {
    if (offset.empty()) return {};
    int hours = 0, minutes = 0, rest = 0;
    std::sscanf(std::string(offset).c_str() + 1, "%2d:%2d:%2d", &hours, &minutes, &rest);
    long seconds = hours * 3600L + minutes * 60L + rest;
    if (seconds == 0) return ", tzinfo=datetime.timezone.utc";
    if (offset[0] == '-') seconds = -seconds;
    return fmt::format(
        ", tzinfo=datetime.timezone({})",
        python_timedelta(seconds < 0 ? -1 : 0, seconds < 0 ? seconds + 86400 : seconds, 0));
}

/// As repr() writes what we keep as ISO text; the text itself where it has another form.
std::string python_time(Value::Kind kind, const std::string& iso) {
    using Kind = Value::Kind;
    int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0, used = 0;
    const char* at = iso.c_str();
    if (kind == Kind::timedelta) {
        long days = 0, seconds = 0, micros = 0;
        if (std::sscanf(at, "P%ldDT%ld.%6ld", &days, &seconds, &micros) >= 2)
            return python_timedelta(days, seconds, micros);
        return fmt::format("datetime.timedelta({})", iso);
    }
    const std::string_view name = kind == Kind::date   ? "datetime.date"
                                  : kind == Kind::time ? "datetime.time"
                                                       : "datetime.datetime";
    std::string parts;
    if (kind != Kind::time) {
        if (std::sscanf(at, "%d-%d-%d%n", &year, &month, &day, &used) != 3)
            return fmt::format("{}({})", name, iso);
        parts = fmt::format("{}, {}, {}", year, month, day);
        at += used;
        if (kind == Kind::date) return fmt::format("{}({})", name, parts);
        parts += ", ";
        if (*at != '\0') ++at;  // T
    }
    if (std::sscanf(at, "%d:%d:%d%n", &hour, &minute, &second, &used) != 3)
        return fmt::format("{}({})", name, iso);
    at += used;
    int micros = 0;
    if (std::sscanf(at, ".%6d%n", &micros, &used) == 1) at += used;
    parts += fmt::format("{}, {}", hour, minute);
    if (second != 0 || micros != 0) parts += fmt::format(", {}", second);
    if (micros != 0) parts += fmt::format(", {}", micros);
    return fmt::format("{}({}{})", name, parts, python_zone(at));
}

/// The text of a Python string literal, quotes chosen and characters escaped as repr() does.
void append_quoted(std::string& out, std::string_view text, bool bytes) {
    const bool has_single = text.find('\'') != std::string_view::npos;
    const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
    out += quote;
    for (std::size_t i = 0; i < text.size();) {
        const auto byte = static_cast<unsigned char>(text[i]);
        const auto [code, length] = bytes ? Utf8{byte, 1} : next_utf8(text, i);
        if (text[i] == quote || text[i] == '\\') {
            out += '\\';
            out += text[i];
        } else if (byte == '\n')
            out += "\\n";
        else if (byte == '\r')
            out += "\\r";
        else if (byte == '\t')
            out += "\\t";
        else if (byte < 0x20 || byte == 0x7f || (bytes && byte >= 0x80))
            out += fmt::format("\\x{:02x}", byte);
        else if (code >= 0xd800 && code < 0xe000)
            out += fmt::format("\\u{:04x}", code);
        else
            out += text.substr(i, length);
        i += length;
    }
    out += quote;
}

class Repr {
public:
    explicit Repr(std::size_t max_size) : max_size_(max_size) {}

    void append(const Value& value, int depth = 0) {
        // What is cut off anyway is not made.
        if (out_.size() > max_size_) return;
        if (depth > 250) {
            out_ += "...";
            return;
        }
        using Kind = Value::Kind;
        switch (value.kind()) {
            case Kind::none:
                out_ += "None";
                break;
            case Kind::boolean:
                out_ += value.as_bool() ? "True" : "False";
                break;
            case Kind::integer:
                out_ += std::to_string(value.as_integer());
                break;
            case Kind::big_integer:
                out_ += value.as_text();
                break;
            case Kind::real:
                out_ += format_real(value.as_real());
                break;
            case Kind::string:
                append_quoted(out_, std::string_view(value.as_text()).substr(0, max_size_ + 8),
                              false);
                break;
            case Kind::bytes:
                out_ += 'b';
                append_quoted(out_, std::string_view(value.as_text()).substr(0, max_size_ + 8),
                              true);
                break;
            case Kind::list:
                sequence("[", value.items(), "]", depth);
                break;
            case Kind::tuple:
                sequence("(", value.items(), value.items().size() == 1 ? ",)" : ")", depth);
                break;
            case Kind::set:
                if (value.items().empty())
                    out_ += "set()";
                else
                    sequence("{", value.items(), "}", depth);
                break;
            case Kind::frozenset:
                if (value.items().empty())
                    out_ += "frozenset()";
                else
                    sequence("frozenset({", value.items(), "})", depth);
                break;
            case Kind::dict: {
                out_ += '{';
                std::string_view separator;
                for (const auto& [key, item] : value.pairs()) {
                    out_ += separator;
                    append(key, depth + 1);
                    out_ += ": ";
                    append(item, depth + 1);
                    separator = ", ";
                }
                out_ += '}';
                break;
            }
            case Kind::uuid:
                out_ += fmt::format("UUID('{}')", value.as_text());
                break;
            case Kind::decimal:
                out_ += fmt::format("Decimal('{}')", value.as_text());
                break;
            case Kind::datetime:
            case Kind::date:
            case Kind::time:
            case Kind::timedelta:
                out_ += python_time(value.kind(), value.as_text());
                break;
            case Kind::opaque:
                out_ += fmt::format("<{}>", value.as_text());
                break;
        }
    }

    std::string finish() {
        if (out_.size() <= max_size_) return std::move(out_);
        std::size_t end = max_size_;
        while (end > 0 && (static_cast<unsigned char>(out_[end]) & 0xc0) == 0x80)
            --end;
        return out_.substr(0, end) + "...";
    }

    static std::string format_real(double value) { return python_float(value, "nan", "inf"); }

private:
    void sequence(std::string_view open, const Value::Items& items, std::string_view close,
                  int depth) {
        out_ += open;
        std::string_view separator;
        for (const auto& item : items) {
            out_ += separator;
            append(item, depth + 1);
            separator = ", ";
            if (out_.size() > max_size_) return;
        }
        out_ += close;
    }

    std::size_t max_size_;
    std::string out_;
};

}  // namespace

std::string python_float(double value, std::string_view nan, std::string_view infinity) {
    if (std::isnan(value)) return std::string(nan);
    if (std::isinf(value)) return (value < 0 ? "-" : "") + std::string(infinity);
    // repr() writes the shortest digits that read back the same: positional from 1e-4 up to 1e16.
    const double size = std::abs(value);
    std::string text;
    if (size != 0 && (size < 1e-4 || size >= 1e16)) {
        text = fmt::format("{:e}", value);
        const std::string shortest = fmt::format("{}", value);
        // fmt's shortest digits, in Python's exponent form.
        std::string digits;
        for (char c : shortest.substr(0, shortest.find('e'))) {
            if (c >= '0' && c <= '9') digits += c;
        }
        const auto first = digits.find_first_not_of('0');
        digits.erase(0, first == std::string::npos ? 0 : first);
        digits.erase(digits.find_last_not_of('0') + 1);
        // The exponent of the rounded-to-shortest value.
        int exponent = 0;
        const auto e = shortest.find('e');
        if (e != std::string::npos)
            exponent = std::atoi(shortest.c_str() + e + 1);
        else
            exponent = static_cast<int>(std::floor(std::log10(size)));
        text = value < 0 ? "-" : "";
        text += digits.substr(0, 1);
        if (digits.size() > 1) text += "." + digits.substr(1);
        text += fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
        return text;
    }
    text = fmt::format("{}", value);
    if (text.find('e') != std::string::npos) text = fmt::format("{:.0f}", value);
    if (text.find('.') == std::string::npos) text += ".0";
    return text;
}

Value Value::dict(Pairs pairs) {
    Value value;
    value.kind_ = Kind::dict;
    value.data_ = std::move(pairs);
    return value;
}

Value Value::opaque(std::string label, Items parts) {
    Value value;
    value.kind_ = Kind::opaque;
    value.data_ = Opaque{std::move(label), std::move(parts)};
    return value;
}

bool Value::is_sequence() const noexcept {
    return kind_ == Kind::list || kind_ == Kind::tuple || kind_ == Kind::set ||
           kind_ == Kind::frozenset;
}

const std::string& Value::as_text() const {
    if (kind_ == Kind::opaque) return std::get<Opaque>(data_).label;
    return std::get<std::string>(data_);
}

const Value* Value::find(std::string_view key) const noexcept {
    if (kind_ != Kind::dict) return nullptr;
    for (const auto& pair : std::get<Pairs>(data_)) {
        if (pair.key.is_string() && pair.key.as_text() == key) return &pair.value;
    }
    return nullptr;
}

bool operator==(const Value& a, const Value& b) {
    return a.kind_ == b.kind_ && a.data_ == b.data_;
}

std::string repr(const Value& value, std::size_t max_size) {
    Repr out(max_size);
    out.append(value);
    return out.finish();
}

}  // namespace rqxx
