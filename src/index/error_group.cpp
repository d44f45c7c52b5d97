#include "index/error_group.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/utf8.hpp"
#include "ops/deduplication.hpp"

namespace rqxx::index {
namespace {

constexpr std::size_t longest_message = 400;
constexpr std::size_t longest_name = 160;

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
bool is_hex(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}
bool is_word(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

std::size_t run_of(std::string_view text, std::size_t at, bool (*is)(char)) {
    std::size_t end = at;
    while (end < text.size() && is(text[end]))
        ++end;
    return end - at;
}

/// Eight, four, four, four and twelve hex digits.
bool is_uuid(std::string_view text) {
    if (text.size() < 36) return false;
    for (std::size_t i = 0; i < 36; ++i) {
        const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text[i] != '-' : !is_hex(text[i])) return false;
    }
    return text.size() == 36 || !is_word(text[36]);
}

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0)
        text.remove_prefix(1);
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0)
        text.remove_suffix(1);
    return text;
}

std::string shortened(std::string_view text, std::size_t most) {
    if (text.size() > most) text = text.substr(0, whole_characters(text.substr(0, most)));
    return to_valid_utf8(text);
}

/// `name` of `name: message` where it can be that of a type.
std::size_t type_name_length(std::string_view line) {
    std::size_t end = 0;
    while (end < line.size() &&
           (is_word(line[end]) || line[end] == '.' ||
            (line.substr(end, 2) == "::" && end + 2 < line.size() && is_word(line[end + 2])))) {
        end += line[end] == ':' ? 2 : 1;
    }
    if (end == 0 || is_digit(line[0])) return 0;
    if (end < line.size() && line.substr(end, 2) != ": " && line.substr(end) != ":") return 0;
    return end;
}

/// Whether a file belongs to the interpreter or its packages, and not to the application.
bool is_foreign(std::string_view path) {
    for (const std::string_view part :
         {"/site-packages/", "/dist-packages/", "/lib/python3", "/lib/python2", "<frozen "})
        if (path.find(part) != std::string_view::npos) return true;
    return path.starts_with("<string>");
}

/// `jobs.py:charge` of `File "/app/jobs.py", line 12, in charge`; empty for other lines.
std::string frame_of(std::string_view line, bool& foreign) {
    line = trimmed(line);
    if (!line.starts_with("File \"")) return {};
    line.remove_prefix(6);
    const auto quote = line.find("\", line ");
    const auto in = line.find(", in ", quote == std::string_view::npos ? 0 : quote);
    if (quote == std::string_view::npos || in == std::string_view::npos) return {};
    std::string_view path = line.substr(0, quote);
    foreign = is_foreign(path);
    const auto slash = path.rfind('/');
    if (slash != std::string_view::npos) path.remove_prefix(slash + 1);
    return fmt::format("{}:{}", shortened(path, longest_name),
                       shortened(line.substr(in + 5), longest_name));
}

}  // namespace

std::string normalised_message(std::string_view message) {
    message = message.substr(0, std::min(message.size(), longest_message));
    std::string out;
    for (std::size_t at = 0; at < message.size();) {
        const char c = message[at];
        const bool word_before = at > 0 && is_word(message[at - 1]);
        if ((c == '\'' || c == '"') && !word_before) {
            const auto end = message.find(c, at + 1);
            if (end != std::string_view::npos) {
                out += "<str>";
                at = end + 1;
                continue;
            }
        }
        if (word_before || !is_word(c)) {
            out += c;
            ++at;
            continue;
        }
        if (is_uuid(message.substr(at))) {
            out += "<uuid>";
            at += 36;
            continue;
        }
        const std::size_t length = run_of(message, at, is_word);
        const std::string_view word = message.substr(at, length);
        const bool has_digit = std::ranges::any_of(word, is_digit);
        if (word.size() > 2 && word[0] == '0' && (word[1] == 'x' || word[1] == 'X')) {
            out += "<hex>";
        } else if (std::ranges::all_of(word, is_digit)) {
            out += "<n>";
        } else if (word.size() >= 8 && has_digit && std::ranges::all_of(word, is_hex)) {
            out += "<hex>";
        } else if (is_digit(word[0])) {
            // `10s`, `3rd`: the number differs, the unit does not.
            out += "<n>";
            out += word.substr(run_of(word, 0, is_digit));
        } else {
            // `worker12` and `worker13` are alike.
            for (std::size_t i = 0; i < word.size();) {
                const std::size_t digits = run_of(word, i, is_digit);
                if (digits > 0)
                    out += "<n>";
                else
                    out += word[i];
                i += std::max<std::size_t>(digits, 1);
            }
        }
        at += length;
    }
    return to_valid_utf8(out);
}

ErrorGroup group_error(std::string_view error) {
    // The last traceback counts: it is the one that was not handled.
    constexpr std::string_view head = "Traceback (most recent call last):";
    ErrorGroup group;
    std::string_view line;
    const auto traceback = error.rfind(head);
    std::string_view rest = error;
    if (traceback != std::string_view::npos) {
        rest.remove_prefix(traceback + head.size());
        std::string any;
        while (!rest.empty()) {
            const auto end = rest.find('\n');
            const std::string_view next = rest.substr(0, end);
            rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
            if (next.empty()) continue;
            if (next.front() != ' ' && next.front() != '\t') {
                line = next;
                break;
            }
            bool foreign = false;
            std::string frame = frame_of(next, foreign);
            if (frame.empty()) continue;
            if (!foreign) group.frame = frame;
            any = std::move(frame);
        }
        if (group.frame.empty()) group.frame = std::move(any);
    }
    if (line.empty()) {
        std::string_view text = traceback == std::string_view::npos ? error : std::string_view();
        while (line.empty() && !text.empty()) {
            const auto end = text.find('\n');
            line = trimmed(text.substr(0, end));
            text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
        }
    }
    line = trimmed(line);
    const std::size_t name = type_name_length(line);
    if (name > 0 && (name < line.size() || traceback != std::string_view::npos)) {
        group.exception = shortened(line.substr(0, name), longest_name);
        line.remove_prefix(std::min(line.size(), name + 1));
    }
    group.message = normalised_message(trimmed(line));
    group.id =
        ops::sha256_hex(fmt::format("{}\n{}\n{}", group.exception, group.message, group.frame))
            .substr(0, 16);
    return group;
}

std::string last_line(std::string_view error, std::size_t most) {
    error = trimmed(error);
    const auto end = error.rfind('\n');
    if (end != std::string_view::npos) error.remove_prefix(end + 1);
    return shortened(trimmed(error), most);
}

}  // namespace rqxx::index
