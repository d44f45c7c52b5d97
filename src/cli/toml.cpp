#include <fmt/format.h>

#include <toml++/toml.h>
#include <algorithm>
#include <fstream>
#include <iterator>
#include <rqxx/error.hpp>
#include <utility>

#include "cli/commands.hpp"

namespace rqxx::cli {
namespace {

[[noreturn]] void refuse(const toml::source_region& where, std::string_view why) {
    throw Error(Errc::usage, fmt::format("line {}: {}", where.begin.line, why));
}

/// What settings need of TOML: tables, text, numbers, booleans and lists of these, in the order of
/// the file.
///
/// Not CLI11's own reader: that one tells neither a list from its only element nor text from
/// numbers, knows no escapes, and takes apart quoted keys with dots.
class TomlEntries {
public:
    std::vector<TomlEntry> of(const toml::table& root) {
        add_table({}, root);
        std::ranges::stable_sort(found_, {}, [](const auto& one) { return one.first; });
        std::vector<TomlEntry> entries;
        entries.reserve(found_.size());
        for (auto& [place, entry] : found_)
            entries.push_back(std::move(entry));
        return entries;
    }

private:
    using Place = std::pair<toml::source_index, toml::source_index>;

    static Place place_of(const toml::node& node) {
        return {node.source().begin.line, node.source().begin.column};
    }

    void add_table(const std::vector<std::string>& path, const toml::table& table) {
        const bool has_own = std::ranges::any_of(table, [](const auto& one) {
            return !one.second.is_table() || one.second.as_table()->is_inline();
        });
        if (!path.empty() && (table.empty() || has_own))
            found_.push_back({place_of(table), {path, "", {}}});
        for (const auto& [key, node] : table) {
            const std::string name(key.str());
            if (name.empty()) refuse(key.source(), "a name is missing");
            // What belongs to one function may be a table of its own, in either form.
            if (const auto* inner = node.as_table();
                inner != nullptr && (!inner->is_inline() || path.size() == 2)) {
                auto deeper = path;
                deeper.push_back(name);
                add_table(deeper, *inner);
                continue;
            }
            TomlEntry entry{path, name, {}};
            if (const auto* list = node.as_array()) {
                entry.list = true;
                for (const auto& one : *list)
                    add_value(entry, one);
            } else {
                add_value(entry, node);
            }
            // The value's place: a table that is written as dotted keys has none of its own.
            found_.push_back({place_of(node), std::move(entry)});
        }
    }

    static void add_value(TomlEntry& entry, const toml::node& node) {
        auto kind = TomlEntry::Kind::text;
        std::string text;
        if (const auto* string = node.as_string()) {
            text = string->get();
        } else if (const auto* integer = node.as_integer()) {
            kind = TomlEntry::Kind::number;
            text = std::to_string(integer->get());
        } else if (const auto* number = node.as_floating_point()) {
            kind = TomlEntry::Kind::number;
            text = fmt::format("{}", number->get());
        } else if (const auto* boolean = node.as_boolean()) {
            kind = TomlEntry::Kind::boolean;
            text = boolean->get() ? "true" : "false";
        } else {
            refuse(node.source(), node.is_table()   ? "a table cannot be a value here"
                                  : node.is_array() ? "a list in a list cannot be read"
                                                    : "a date or time needs quotes");
        }
        if (!entry.values.empty() && entry.kind != kind)
            refuse(node.source(), "a list of different kinds of values");
        if (text.find('\0') != std::string::npos) refuse(node.source(), "a NUL in text");
        entry.kind = kind;
        entry.values.push_back(std::move(text));
    }

    std::vector<std::pair<Place, TomlEntry>> found_;
};

}  // namespace

std::vector<TomlEntry> read_toml(const std::string& file, std::string_view flag) {
    std::ifstream in(file);
    in.peek();  // A folder can be opened, and not be read.
    if (!in) throw Error(Errc::usage, fmt::format("{}: cannot read {}", flag, file));
    const auto fail = [&](std::string_view why) {
        throw Error(Errc::usage, printable(fmt::format("{}: {}: {}", flag, file, why)));
    };
    try {
        const std::string text(std::istreambuf_iterator<char>(in), {});
        return TomlEntries().of(toml::parse(text));
    } catch (const toml::parse_error& error) {
        fail(fmt::format("line {}: {}", error.source().begin.line, error.description()));
    } catch (const Error& error) {
        fail(error.message());
    }
    return {};
}

}  // namespace rqxx::cli
