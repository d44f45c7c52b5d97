#include <fmt/format.h>

#include <boost/json/stream_parser.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <rqxx/codec.hpp>
#include <rqxx/job.hpp>

#include "base/utf8.hpp"
#include "model/python_float.hpp"

namespace rqxx {
namespace {

using Kind = Value::Kind;

/// Python's json reads NaN and Infinity, and integers of any size; Boost.JSON does not. Each such
/// token outside of strings is replaced by a string with a mark that nobody can know beforehand.
const std::string& mark() {
    static const std::string text = "rqxx:" + new_execution_id() + ":";
    return text;
}

bool word_at(std::string_view text, std::size_t at, std::string_view word) {
    return text.substr(at, word.size()) == word;
}

enum class NumberKind { none, integer, real };

/// What a token is by JSON's grammar (RFC 8259, section 6).
NumberKind number_kind(std::string_view token) {
    std::size_t at = token.starts_with('-') ? 1 : 0;
    const auto digits = [&] {
        const std::size_t begin = at;
        while (at < token.size() && token[at] >= '0' && token[at] <= '9')
            ++at;
        return at - begin;
    };
    const bool zero = at < token.size() && token[at] == '0';
    const std::size_t whole = digits();
    if (whole == 0 || (zero && whole > 1)) return NumberKind::none;
    if (at == token.size()) return NumberKind::integer;
    if (token[at] == '.') {
        ++at;
        if (digits() == 0) return NumberKind::none;
    }
    if (at < token.size() && (token[at] == 'e' || token[at] == 'E')) {
        ++at;
        if (at < token.size() && (token[at] == '+' || token[at] == '-')) ++at;
        if (digits() == 0) return NumberKind::none;
    }
    return at == token.size() ? NumberKind::real : NumberKind::none;
}

/// Also marks fractions: Boost.JSON 1.81 may read them one unit off in the last place.
std::string mark_special_tokens(std::string_view text) {
    std::string out;
    out.reserve(text.size() + 16);
    for (std::size_t i = 0; i < text.size();) {
        const char c = text[i];
        if (c == '"') {
            std::size_t end = i + 1;
            while (end < text.size() && text[end] != '"')
                end += text[end] == '\\' ? 2 : 1;
            end = std::min(end + 1, text.size());
            out += text.substr(i, end - i);
            i = end;
            continue;
        }
        if (c == 'N' && word_at(text, i, "NaN")) {
            out += fmt::format("\"{}nan\"", mark());
            i += 3;
            continue;
        }
        if (word_at(text, i, "Infinity") || word_at(text, i, "-Infinity")) {
            out += fmt::format("\"{}{}inf\"", mark(), c == '-' ? "-" : "");
            i += c == '-' ? 9 : 8;
            continue;
        }
        if (c == '-' || (c >= '0' && c <= '9')) {
            std::size_t end = i + 1;
            while (end < text.size() &&
                   std::string_view("0123456789.eE+-").find(text[end]) != std::string_view::npos)
                ++end;
            const auto token = text.substr(i, end - i);
            const auto kind = number_kind(token);
            // Up to 18 digits fit an int64 for sure; what might not, and fractions, are kept as
            // text.
            if (kind == NumberKind::real || (kind == NumberKind::integer && token.size() > 18))
                out += fmt::format("\"{}{}\"", mark(), token);
            else
                out += token;
            i = end;
            continue;
        }
        out += c;
        ++i;
    }
    return out;
}

Value unmark(Value value) {
    switch (value.kind()) {
        case Kind::string: {
            const std::string& text = value.as_text();
            if (!text.starts_with(mark())) return value;
            const std::string token = text.substr(mark().size());
            if (token == "nan") return std::nan("");
            if (token == "inf") return HUGE_VAL;
            if (token == "-inf") return -HUGE_VAL;
            if (number_kind(token) == NumberKind::real) return std::strtod(token.c_str(), nullptr);
            errno = 0;
            const long long number = std::strtoll(token.c_str(), nullptr, 10);
            if (errno == 0) return number;
            return Value::text(Kind::big_integer, token);
        }
        case Kind::list:
            for (auto& item : value.items())
                item = unmark(std::move(item));
            return value;
        case Kind::dict:
            for (auto& pair : value.pairs())
                pair.value = unmark(std::move(pair.value));
            return value;
        default:
            return value;
    }
}

void append_json_string(std::string& out, std::string_view text) {
    out += '"';
    for (std::size_t i = 0; i < text.size();) {
        const auto [code, length] = next_utf8(text, i);
        switch (code) {
            case '"':
                out += "\\\"";
                break;
            case '\\':
                out += "\\\\";
                break;
            case '\n':
                out += "\\n";
                break;
            case '\r':
                out += "\\r";
                break;
            case '\t':
                out += "\\t";
                break;
            case '\b':
                out += "\\b";
                break;
            case '\f':
                out += "\\f";
                break;
            case Utf8::invalid:
                throw Error(Errc::usage, "a string is not UTF-8");
            default:
                if (code >= 0x20 && code < 0x7f)
                    out += static_cast<char>(code);
                else if (code < 0x10000)
                    out += fmt::format("\\u{:04x}", code);
                else
                    out += fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + ((code - 0x10000) >> 10),
                                       0xdc00 + ((code - 0x10000) & 0x3ff));
        }
        i += length;
    }
    out += '"';
}

void append_json(std::string& out, const Value& value, int depth) {
    if (depth > 250) throw Error(Errc::usage, "the value is nested too deeply");
    switch (value.kind()) {
        case Kind::none:
            out += "null";
            break;
        case Kind::boolean:
            out += value.as_bool() ? "true" : "false";
            break;
        case Kind::integer:
            out += std::to_string(value.as_integer());
            break;
        case Kind::big_integer:
            out += value.as_text();
            break;
        case Kind::real:
            out += python_float(value.as_real(), "NaN", "Infinity");
            break;
        case Kind::string:
            append_json_string(out, value.as_text());
            break;
        case Kind::list:
        case Kind::tuple: {
            out += '[';
            std::string_view separator;
            for (const auto& item : value.items()) {
                out += separator;
                append_json(out, item, depth + 1);
                separator = ", ";
            }
            out += ']';
            break;
        }
        case Kind::dict: {
            out += '{';
            std::string_view separator;
            for (const auto& [key, item] : value.pairs()) {
                out += separator;
                // As json.dumps: numbers, bools and None become their text.
                if (key.is_string())
                    append_json_string(out, key.as_text());
                else if (key.is_none() || key.kind() == Kind::boolean ||
                         key.kind() == Kind::integer || key.kind() == Kind::real) {
                    out += '"';
                    append_json(out, key, depth + 1);
                    out += '"';
                } else
                    throw Error(Errc::usage,
                                fmt::format("{} cannot be a key in JSON", repr(key, 40)));
                out += ": ";
                append_json(out, item, depth + 1);
                separator = ", ";
            }
            out += '}';
            break;
        }
        default:
            throw Error(Errc::usage, fmt::format("{} cannot be stored as JSON", repr(value, 60)));
    }
}

}  // namespace

Parsed<Value> decode_json(std::string_view bytes, const DecodeLimits& limits) noexcept {
    try {
        if (bytes.size() > limits.max_bytes) return ParseError("the JSON text is too large");
        const bool special = bytes.find("NaN") != std::string_view::npos ||
                             bytes.find("Infinity") != std::string_view::npos ||
                             bytes.find_first_of("0123456789") != std::string_view::npos;
        const std::string marked = special ? mark_special_tokens(bytes) : std::string(bytes);
        boost::json::parse_options options;
        options.max_depth = limits.max_depth;
        options.allow_invalid_utf8 = true;  // Python may have written lone surrogates.
        boost::json::stream_parser parser({}, options);
        boost::system::error_code error;
        const std::size_t used = parser.write_some(marked, error);
        if (!error && marked.find_first_not_of(" \t\r\n", used) != std::string::npos)
            return ParseError("something follows the JSON value", {}, used);
        if (error) return ParseError(error.message(), {}, used);
        parser.finish(error);
        if (error || !parser.done())
            return ParseError("the JSON text is incomplete", {}, marked.size());
        const auto json = parser.release();
        return unmark(from_json(json));
    } catch (const std::exception& error) {
        return ParseError(error.what());
    }
}

std::string encode_json(const Value& value) {
    std::string out;
    append_json(out, value, 0);
    return out;
}

}  // namespace rqxx
