#include "runtime/command_line.hpp"

#include <fmt/format.h>

#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <charconv>
#include <functional>
#include <rqxx/codec.hpp>
#include <rqxx/json.hpp>
#include <string_view>

namespace rqxx {

Parsed<std::vector<std::string>> split_command(std::string_view line) {
    std::vector<std::string> words;
    bool in_word = false;
    char quote = 0;
    const auto word = [&]() -> std::string& {
        if (!in_word) words.emplace_back();
        in_word = true;
        return words.back();
    };
    for (std::size_t i = 0; i < line.size(); ++i) {
        const char c = line[i];
        const bool has_next = i + 1 < line.size();
        if (quote == 0 && (c == ' ' || c == '\t' || c == '\n')) {
            in_word = false;
        } else if (c == quote && quote != 0) {
            quote = 0;
        } else if (quote == 0 && (c == '\'' || c == '"')) {
            quote = c;
            word();
        } else if (c == '\\' && quote == 0) {
            if (!has_next) return ParseError("a backslash at the end escapes nothing");
            word() += line[++i];
        } else if (c == '\\' && quote == '"' && has_next &&
                   std::string_view("$`\"\\").find(line[i + 1]) != std::string_view::npos) {
            word() += line[++i];
        } else {
            word() += c;
        }
    }
    if (quote != 0) return ParseError(fmt::format("a quote {} is not closed", quote));
    return words;
}

namespace runtime {
namespace {

/// For a POSIX shell.
std::string quoted(std::string_view text) {
    std::string result = "'";
    for (const char c : text) {
        if (c == '\'')
            result += "'\\''";
        else
            result += c;
    }
    return result + "'";
}

std::string text_of(const Value& value) {
    return value.is_string() ? value.as_text() : boost::json::serialize(to_json(value));
}

const Value* argument_of(const Call& call, std::string_view name) {
    std::size_t index = 0;
    const char* end = name.data() + name.size();
    if (std::from_chars(name.data(), end, index).ptr == end && !name.empty()) {
        const auto& items = call.args.items();
        return index < items.size() ? &items[index] : nullptr;
    }
    return call.kwargs.find(name);
}

/// A word with each placeholder given to `replace`. @throws Error `Errc::usage`
std::string expanded(std::string_view word,
                     const std::function<std::string(std::string_view)>& replace) {
    std::string result;
    for (std::size_t i = 0; i < word.size(); ++i) {
        const char c = word[i];
        if ((c == '{' || c == '}') && i + 1 < word.size() && word[i + 1] == c) {
            result += c;
            ++i;
        } else if (c == '{') {
            const auto end = word.find('}', i);
            if (end == std::string_view::npos || end == i + 1)
                throw Error(Errc::usage, fmt::format("\"{}\": {{ needs a name and }}", word));
            result += replace(word.substr(i + 1, end - i - 1));
            i = end;
        } else {
            result += c;
        }
    }
    return result;
}

}  // namespace

std::vector<std::string> command_words(const CommandFunction& command, const std::string& job_id,
                                       const Call& call) {
    const auto replace = [&](std::string_view name) {
        std::string text;
        if (name == "job_id") {
            text = job_id;
        } else {
            const Value* value = argument_of(call, name);
            if (value == nullptr)
                throw Error(Errc::usage, fmt::format("the job has no argument {}", name));
            text = text_of(*value);
        }
        if (text.find('\0') != std::string::npos)
            throw Error(Errc::usage,
                        fmt::format("argument {} has a NUL in it, which no word can have", name));
        return command.shell ? quoted(text) : text;
    };
    std::vector<std::string> words;
    words.reserve(command.words.size() + 2);
    for (const auto& word : command.words)
        words.push_back(expanded(word, replace));
    if (command.shell) words.insert(words.begin(), {"/bin/sh", "-c"});
    return words;
}

void check_placeholders(const CommandFunction& command) {
    if (command.words.empty() || command.words.front().empty())
        throw Error(Errc::usage, "a command is missing");
    for (const auto& word : command.words)
        expanded(word, [](std::string_view) { return std::string(); });
}

}  // namespace runtime
}  // namespace rqxx
