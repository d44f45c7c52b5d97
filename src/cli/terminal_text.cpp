#include "cli/terminal_text.hpp"

#include <utility>

#include "base/utf8.hpp"
#include "cli/commands.hpp"

namespace rqxx::cli {

namespace {

constexpr std::size_t longest_sequence = 40;

}  // namespace

std::size_t TerminalText::escape(std::string_view rest, std::string& out) {
    std::size_t at = 1;
    if (at < rest.size() && rest[at] == '[') {
        ++at;
        while (at < rest.size() && at < longest_sequence &&
               ((rest[at] >= '0' && rest[at] <= '9') || rest[at] == ';' || rest[at] == ':'))
            ++at;
    }
    if (at == rest.size() && at < longest_sequence) return 0;
    if (at < 2 || rest[at] != 'm') {
        out += printable(rest.substr(0, 1));
        return 1;
    }
    const std::string_view parameters = rest.substr(2, at - 2);
    if (colors_) {
        out += rest.substr(0, at + 1);
        colored_ = !parameters.empty() && parameters != "0";
    }
    return at + 1;
}

std::string TerminalText::feed(std::string_view bytes) {
    const std::string all = std::exchange(begun_, {}).append(bytes);
    std::string_view rest = all;
    std::string out;
    while (!rest.empty()) {
        const std::size_t plain = std::min(rest.find_first_of("\x1b\r"), rest.size());
        const bool at_end = plain == rest.size();
        const std::size_t whole = at_end ? whole_characters(rest) : plain;
        out += printable(rest.substr(0, whole));
        rest.remove_prefix(whole);
        if (at_end) break;
        if (rest.front() == '\x1b') {
            const std::size_t used = escape(rest, out);
            if (used == 0) break;
            rest.remove_prefix(used);
        } else {
            if (rest.size() == 1) break;
            if (rest[1] != '\n') out += '\n';
            rest.remove_prefix(1);
        }
    }
    begun_ = rest;
    return out;
}

std::string TerminalText::end() {
    std::string out = begun_ == "\r" ? "\n" : printable(begun_);
    begun_.clear();
    if (std::exchange(colored_, false)) out += "\x1b[0m";
    return out;
}

}  // namespace rqxx::cli
