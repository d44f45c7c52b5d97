#include <fmt/format.h>

#include <charconv>
#include <fstream>
#include <iterator>
#include <rqxx/error.hpp>
#include <set>

#include "base/utf8.hpp"
#include "cli/commands.hpp"

namespace rqxx::cli {
namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

bool is_bare(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
}

/// Whether it is a decimal number, as TOML writes them without underscores.
bool is_number(std::string_view text) {
    std::size_t at = 0;
    const auto digits = [&] {
        const auto begin = at;
        while (at < text.size() && is_digit(text[at]))
            ++at;
        return at > begin;
    };
    if (text.starts_with('+') || text.starts_with('-')) ++at;
    if (!digits()) return false;
    if (at < text.size() && text[at] == '.') {
        ++at;
        if (!digits()) return false;
    }
    if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
        ++at;
        if (at < text.size() && (text[at] == '+' || text[at] == '-')) ++at;
        if (!digits()) return false;
    }
    return at == text.size();
}

/// What settings need of TOML 1.0: tables, keys with dots and quotes, text, numbers, booleans, and
/// lists of these. Dates, tables in braces, lists of tables and text of several lines are refused.
///
/// Not CLI11's own reader: that one tells neither a list from its only element nor text from
/// numbers, knows no escapes, and takes apart quoted keys with dots.
class TomlReader {
public:
    explicit TomlReader(std::string text) : text_(std::move(text)) {
        if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;
    }

    std::vector<TomlEntry> read() {
        for (skip_lines(); !at_end(); skip_lines()) {
            if (peek() == '[')
                read_header();
            else
                read_setting();
        }
        return std::move(entries_);
    }

private:
    [[noreturn]] void refuse(const std::string& why) const {
        throw Error(Errc::usage, fmt::format("line {}: {}", line_, why));
    }

    [[nodiscard]] bool at_end() const { return at_ >= text_.size(); }
    [[nodiscard]] char peek() const { return at_end() ? '\n' : text_[at_]; }
    [[nodiscard]] bool next_is(std::string_view text) const {
        return std::string_view(text_).substr(at_).starts_with(text);
    }

    void skip_blanks() {
        while (!at_end() && (peek() == ' ' || peek() == '\t' || next_is("\r\n")))
            ++at_;
    }

    /// Blanks, comments and ends of lines.
    void skip_lines() {
        for (skip_blanks(); !at_end(); skip_blanks()) {
            if (peek() == '#') {
                while (!at_end() && peek() != '\n')
                    ++at_;
            } else if (peek() == '\n') {
                ++at_;
                ++line_;
            } else {
                return;
            }
        }
    }

    void expect_end_of_line() {
        skip_blanks();
        if (peek() != '\n' && peek() != '#')
            refuse(fmt::format("\"{}\" is not expected here", word()));
    }

    /// What stands here, for a message.
    [[nodiscard]] std::string word() const {
        const auto end = text_.find_first_of(" \t\r\n,]#", at_);
        return printable(text_.substr(at_, std::min<std::size_t>(end - at_, 40)));
    }

    std::string quoted() {
        const char quote = text_[at_];
        if (next_is(std::string(3, quote))) refuse("text of several lines cannot be read");
        std::string result;
        for (++at_; peek() != quote; ++at_) {
            if (peek() == '\n') refuse("a quote is not closed");
            if (peek() == '\\' && quote == '"') {
                ++at_;
                result += escaped();
            } else if (static_cast<unsigned char>(peek()) < 0x20 && peek() != '\t') {
                refuse("a control character in text");
            } else {
                result += peek();
            }
        }
        ++at_;
        return result;
    }

    /// The character that an escape stands for; ends on its last character.
    std::string escaped() {
        constexpr std::string_view letters = "btnfr\"\\", characters = "\b\t\n\f\r\"\\";
        if (const auto index = letters.find(peek()); index != std::string_view::npos)
            return std::string(1, characters[index]);
        const std::size_t length = peek() == 'u' ? 4 : peek() == 'U' ? 8 : 0;
        std::uint32_t code = 0;
        const char* digits = text_.data() + at_ + 1;
        if (length == 0 || at_ + length >= text_.size() ||
            std::from_chars(digits, digits + length, code, 16).ptr != digits + length ||
            code == 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
            refuse(R"(a backslash that escapes nothing; in '…' it is just a character)");
        at_ += length;
        std::string result;
        if (code < 0x80) {
            result += static_cast<char>(code);
            return result;
        }
        const int rest = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        constexpr std::uint32_t marks[] = {0, 0xc0, 0xe0, 0xf0};
        result += static_cast<char>(marks[rest] | (code >> (6 * rest)));
        for (int i = rest - 1; i >= 0; --i)
            result += static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3f));
        return result;
    }

    /// A key, or the name of a table: its parts.
    std::vector<std::string> path() {
        std::vector<std::string> parts;
        for (;;) {
            skip_blanks();
            if (peek() == '"' || peek() == '\'') {
                parts.push_back(quoted());
            } else {
                const auto begin = at_;
                while (is_bare(peek()))
                    ++at_;
                if (at_ == begin)
                    refuse(word().empty()
                               ? "a name is missing"
                               : fmt::format("\"{}\": a name with other characters than letters, "
                                             "digits, _ and - needs quotes",
                                             word()));
                parts.push_back(text_.substr(begin, at_ - begin));
            }
            skip_blanks();
            if (peek() != '.') return parts;
            ++at_;
        }
    }

    void read_header() {
        ++at_;
        if (peek() == '[') refuse("a list of tables ([[…]]) cannot be read");
        table_ = path();
        if (peek() != ']') refuse("] is missing");
        ++at_;
        expect_end_of_line();
        if (!known_.insert({table_, ""}).second)
            refuse(fmt::format("there are two tables [{}]", fmt::join(table_, ".")));
        entries_.push_back({table_, "", {}});
    }

    void read_setting() {
        TomlEntry entry{table_, "", {}};
        auto keys = path();
        entry.key = std::move(keys.back());
        if (entry.key.empty()) refuse("a name is missing");
        keys.pop_back();
        entry.table.insert(entry.table.end(), keys.begin(), keys.end());
        if (peek() != '=') refuse(fmt::format("{}: = is missing", printable(entry.key)));
        ++at_;
        skip_blanks();
        if (peek() == '[')
            read_list(entry);
        else
            read_value(entry);
        expect_end_of_line();
        if (!known_.insert({entry.table, entry.key}).second)
            refuse(printable(
                fmt::format("[{}] {} is there twice", fmt::join(entry.table, "."), entry.key)));
        entries_.push_back(std::move(entry));
    }

    void read_list(TomlEntry& entry) {
        entry.list = true;
        ++at_;
        for (;;) {
            skip_lines();
            if (at_end()) refuse("a list is not closed");
            if (peek() == ']') break;
            if (peek() == '[') refuse("a list in a list cannot be read");
            const auto kind = entry.kind;
            read_value(entry);
            if (entry.values.size() > 1 && entry.kind != kind)
                refuse("a list of different kinds of values");
            skip_lines();
            if (at_end()) refuse("a list is not closed");
            if (peek() == ',')
                ++at_;
            else if (peek() != ']')
                refuse("a , or ] is missing in a list");
        }
        ++at_;
    }

    void read_value(TomlEntry& entry) {
        if (peek() == '"' || peek() == '\'') {
            entry.kind = TomlEntry::Kind::text;
            entry.values.push_back(quoted());
            return;
        }
        if (peek() == '{') refuse("a table in braces cannot be read");
        const std::string shown = word();
        const auto end = text_.find_first_of(" \t\r\n,]#", at_);
        std::string text = text_.substr(at_, end - at_);
        at_ += text.size();
        if (text == "true" || text == "false") {
            entry.kind = TomlEntry::Kind::boolean;
        } else {
            std::erase(text, '_');
            if (shown.empty()) refuse("a value is missing");
            if (!is_number(text))
                refuse(fmt::format("{} is no number, and text needs quotes", shown));
            if (text.starts_with('+')) text.erase(0, 1);
            entry.kind = TomlEntry::Kind::number;
        }
        entry.values.push_back(std::move(text));
    }

    const std::string text_;
    std::size_t at_ = 0;
    int line_ = 1;
    std::vector<std::string> table_;
    std::vector<TomlEntry> entries_;
    std::set<std::pair<std::vector<std::string>, std::string>> known_;
};

}  // namespace

std::vector<TomlEntry> read_toml(const std::string& file, std::string_view flag) {
    std::ifstream in(file);
    in.peek();  // A folder can be opened, and not be read.
    if (!in) throw Error(Errc::usage, fmt::format("{}: cannot read {}", flag, file));
    try {
        return TomlReader({std::istreambuf_iterator<char>(in), {}}).read();
    } catch (const Error& error) {
        throw Error(Errc::usage, fmt::format("{}: {}: {}", flag, file, error.message()));
    }
}

}  // namespace rqxx::cli
