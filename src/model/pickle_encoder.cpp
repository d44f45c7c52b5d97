#include <fmt/format.h>

#include <boost/multiprecision/cpp_int.hpp>
#include <cstring>
#include <rqxx/codec.hpp>

namespace rqxx {
namespace {

using boost::multiprecision::cpp_int;
using Kind = Value::Kind;

class Encoder {
public:
    std::string run(const Value& value) {
        out_ = "\x80\x04";
        put(value, 0);
        out_ += '.';
        return std::move(out_);
    }

private:
    void little_endian(std::uint64_t value, std::size_t width) {
        for (std::size_t i = 0; i < width; ++i)
            out_ += static_cast<char>(value >> (8 * i) & 0xff);
    }

    void integer(std::int64_t value) {
        if (value >= 0 && value < 256) {
            out_ += 'K';
            little_endian(static_cast<std::uint64_t>(value), 1);
        } else if (value >= 0 && value < 65536) {
            out_ += 'M';
            little_endian(static_cast<std::uint64_t>(value), 2);
        } else if (std::in_range<std::int32_t>(value)) {
            out_ += 'J';
            little_endian(static_cast<std::uint64_t>(value), 4);
        } else {
            out_ += '\x8a';
            out_ += '\x08';
            little_endian(static_cast<std::uint64_t>(value), 8);
        }
    }

    void big_integer(const std::string& text) {
        cpp_int number;
        try {
            number = cpp_int(text);
        } catch (const std::exception&) {
            throw Error(Errc::usage, fmt::format("\"{}\" is not an integer", text.substr(0, 40)));
        }
        // Two's complement of the smallest width that keeps the sign.
        std::size_t width = 1;
        while (number >= cpp_int(1) << static_cast<unsigned>(8 * width - 1) ||
               number < -(cpp_int(1) << static_cast<unsigned>(8 * width - 1)))
            ++width;
        if (width > 255)
            throw Error(Errc::usage, "an integer of more than 255 bytes cannot be stored");
        cpp_int bits =
            number < 0 ? number + (cpp_int(1) << static_cast<unsigned>(8 * width)) : number;
        out_ += '\x8a';
        out_ += static_cast<char>(width);
        for (std::size_t i = 0; i < width; ++i) {
            out_ += static_cast<char>(static_cast<unsigned>(bits & 0xff));
            bits >>= 8;
        }
    }

    void string(std::string_view text) {
        if (text.size() < 256) {
            out_ += '\x8c';
            little_endian(text.size(), 1);
        } else if (text.size() <= 0xffffffff) {
            out_ += 'X';
            little_endian(text.size(), 4);
        } else {
            out_ += '\x8d';
            little_endian(text.size(), 8);
        }
        out_ += text;
    }

    void bytes(std::string_view raw) {
        if (raw.size() < 256) {
            out_ += 'C';
            little_endian(raw.size(), 1);
        } else if (raw.size() <= 0xffffffff) {
            out_ += 'B';
            little_endian(raw.size(), 4);
        } else {
            out_ += '\x8e';
            little_endian(raw.size(), 8);
        }
        out_ += raw;
    }

    void global(std::string_view module, std::string_view name) {
        string(module);
        string(name);
        out_ += '\x93';
    }

    void marked(const Value::Items& items, std::string_view close, int depth) {
        out_ += '(';
        for (const auto& item : items)
            put(item, depth + 1);
        out_ += close;
    }

    void datetime(const Value& value) {
        int year = 0, month = 0, day = 0;
        const std::string& text = value.as_text();
        std::size_t at = 0;
        std::string raw;
        if (value.kind() != Kind::time) {
            int used = 0;
            if (std::sscanf(text.c_str(), "%4d-%2d-%2d%n", &year, &month, &day, &used) != 3 ||
                year < 1 || year > 9999 || month < 1 || month > 12 || day < 1 || day > 31)
                bad(value);
            at = static_cast<std::size_t>(used);
            for (const int part : {year / 256, year % 256, month, day})
                raw += static_cast<char>(part);
        }
        if (value.kind() == Kind::date) {
            global("datetime", "date");
            bytes(raw);
            out_ += "\x85R";
            return;
        }
        if (value.kind() == Kind::datetime) ++at;  // the T
        int hour = 0, minute = 0, second = 0, used = 0;
        if (at >= text.size() ||
            std::sscanf(text.c_str() + at, "%2d:%2d:%2d%n", &hour, &minute, &second, &used) != 3 ||
            hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59)
            bad(value);
        at += static_cast<std::size_t>(used);
        unsigned micros = 0;
        if (at < text.size() && text[at] == '.') {
            unsigned digits = 0;
            for (++at; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at, ++digits) {
                if (digits < 6) micros = micros * 10 + static_cast<unsigned>(text[at] - '0');
            }
            for (; digits < 6; ++digits)
                micros *= 10;
        }
        for (const int part : {hour, minute, second})
            raw += static_cast<char>(part);
        for (const unsigned part : {micros >> 16, micros >> 8 & 0xff, micros & 0xff})
            raw += static_cast<char>(part);
        global("datetime", value.kind() == Kind::time ? "time" : "datetime");
        bytes(raw);
        if (at == text.size()) {
            out_ += "\x85R";
            return;
        }
        int seconds = 0;
        if (text.substr(at) != "Z") {
            int hours = 0, minutes = 0, rest = 0;
            const char sign = text[at];
            const int count =
                std::sscanf(text.c_str() + at + 1, "%2d:%2d:%2d", &hours, &minutes, &rest);
            if ((sign != '+' && sign != '-') || count < 2) bad(value);
            seconds = (hours * 3600 + minutes * 60 + rest) * (sign == '-' ? -1 : 1);
            if (std::abs(seconds) >= 86400) bad(value);
        }
        global("datetime", "timezone");
        global("datetime", "timedelta");
        integer(seconds < 0 ? -1 : 0);
        integer(seconds < 0 ? seconds + 86400 : seconds);
        integer(0);
        out_ += "\x87R\x85R\x86R";
    }

    void timedelta(const Value& value) {
        long days = 0, seconds = 0;
        unsigned micros = 0;
        char dot = 0;
        const int count =
            std::sscanf(value.as_text().c_str(), "P%ldDT%ld%c%6u", &days, &seconds, &dot, &micros);
        if (count < 2) bad(value);
        global("datetime", "timedelta");
        integer(days);
        integer(seconds);
        integer(dot == '.' ? micros : 0);
        out_ += "\x87R";
    }

    [[noreturn]] static void bad(const Value& value) {
        throw Error(Errc::usage,
                    fmt::format("\"{}\" cannot be stored as a Python value", repr(value, 60)));
    }

    void put(const Value& value, int depth) {
        if (depth > 250) throw Error(Errc::usage, "the value is nested too deeply");
        switch (value.kind()) {
            case Kind::none:
                out_ += 'N';
                break;
            case Kind::boolean:
                out_ += value.as_bool() ? '\x88' : '\x89';
                break;
            case Kind::integer:
                integer(value.as_integer());
                break;
            case Kind::big_integer:
                big_integer(value.as_text());
                break;
            case Kind::real: {
                std::uint64_t bits = 0;
                const double real = value.as_real();
                std::memcpy(&bits, &real, sizeof bits);
                out_ += 'G';
                for (int i = 7; i >= 0; --i)
                    out_ += static_cast<char>(bits >> (8 * i) & 0xff);
                break;
            }
            case Kind::string:
                string(value.as_text());
                break;
            case Kind::bytes:
                bytes(value.as_text());
                break;
            case Kind::list:
                out_ += ']';
                if (!value.items().empty()) marked(value.items(), "e", depth);
                break;
            case Kind::tuple:
                if (value.items().empty()) {
                    out_ += ')';
                } else if (value.items().size() <= 3) {
                    for (const auto& item : value.items())
                        put(item, depth + 1);
                    out_ += static_cast<char>(0x84 + static_cast<int>(value.items().size()));
                } else {
                    marked(value.items(), "t", depth);
                }
                break;
            case Kind::set:
                out_ += '\x8f';
                if (!value.items().empty()) marked(value.items(), "\x90", depth);
                break;
            case Kind::frozenset:
                marked(value.items(), "\x91", depth);
                break;
            case Kind::dict:
                out_ += '}';
                if (value.pairs().empty()) break;
                out_ += '(';
                for (const auto& [key, item] : value.pairs()) {
                    put(key, depth + 1);
                    put(item, depth + 1);
                }
                out_ += 'u';
                break;
            case Kind::datetime:
            case Kind::date:
            case Kind::time:
                datetime(value);
                break;
            case Kind::timedelta:
                timedelta(value);
                break;
            case Kind::uuid:
                global("uuid", "UUID");
                string(value.as_text());
                out_ += "\x85R";
                break;
            case Kind::decimal:
                global("decimal", "Decimal");
                string(value.as_text());
                out_ += "\x85R";
                break;
            case Kind::opaque:
                throw Error(Errc::usage,
                            fmt::format("a {} cannot be stored: rqxx does not make Python objects",
                                        value.as_text()));
        }
    }

    std::string out_;
};

}  // namespace

std::string encode_pickle(const Value& value) {
    return Encoder().run(value);
}

}  // namespace rqxx
