#include "cli/arguments.hpp"

#include <fmt/format.h>

#include <charconv>
#include <fstream>
#include <iterator>
#include <rqxx/error.hpp>

namespace rqxx::cli {
namespace {

[[noreturn]] void refuse(std::size_t index, std::string_view why) {
    throw Error(Errc::usage, fmt::format("argument {}: {}", index + 1, why));
}

Value json_value(std::size_t index, std::string_view text) {
    auto value = decode_json(text);
    if (!value) refuse(index, fmt::format("not JSON: {}", value.error().describe()));
    return std::move(*value);
}

/// Python's simple literals: None, True, False, numbers, quoted strings; and what is also JSON.
Value literal(std::size_t index, std::string_view text) {
    if (text == "None") return {};
    if (text == "True") return true;
    if (text == "False") return false;
    if (text.size() >= 2 && (text.front() == '\'' || text.front() == '"') &&
        text.back() == text.front() && text.find('\\') == std::string_view::npos &&
        text.find(text.front(), 1) == text.size() - 1)
        return Value(text.substr(1, text.size() - 2));
    auto value = decode_json(text);
    if (!value)
        refuse(index, fmt::format("\"{}\" is not a literal that rqxx reads (None, True, False, "
                                  "numbers, strings, lists and "
                                  "dicts with double quotes); use :JSON",
                                  text.substr(0, 40)));
    return std::move(*value);
}

std::string file_or_text(std::size_t index, std::string_view text) {
    if (!text.starts_with('@')) return std::string(text);
    const std::string path(text.substr(1));
    std::ifstream in(path, std::ios::binary);
    if (!in) refuse(index, fmt::format("cannot read the file {}", path));
    return {std::istreambuf_iterator<char>(in), {}};
}

Value parse(std::size_t index, char mark, std::string_view text) {
    const std::string content = file_or_text(index, text);
    if (mark == ':') return json_value(index, content);
    if (mark == '%') return literal(index, content);
    return Value(content);
}

}  // namespace

Call parse_call(std::string function, const std::vector<std::string>& arguments, bool json_args) {
    Call call;
    call.func_name = std::move(function);
    auto& args = call.args.items();
    auto& kwargs = call.kwargs.pairs();
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        const std::string_view text = arguments[i];
        if (json_args) {
            args.push_back(json_value(i, text));
            continue;
        }
        if (text.starts_with(':') || text.starts_with('%')) {
            args.push_back(parse(i, text.front(), text.substr(1)));
            continue;
        }
        const auto equals = text.find('=');
        if (text.starts_with('@') || equals == std::string_view::npos || equals == 0) {
            args.push_back(parse(i, 0, text));
            continue;
        }
        std::string_view key = text.substr(0, equals);
        char mark = 0;
        if (key.ends_with(':') || key.ends_with('%')) {
            mark = key.back();
            key.remove_suffix(1);
        }
        if (key.empty()) refuse(i, "the keyword before = is missing");
        if (call.kwargs.find(key) != nullptr)
            refuse(i, fmt::format("keyword {} is given twice", key));
        kwargs.push_back({Value(key), parse(i, mark, text.substr(equals + 1))});
    }
    return call;
}

}  // namespace rqxx::cli
