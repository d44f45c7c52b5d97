#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <map>
#include <rqxx/error.hpp>

#include "cli/commands.hpp"
#include "runtime/aggregation.hpp"
#include "runtime/command_line.hpp"
#include "runtime/http_client.hpp"

namespace rqxx::cli {
namespace {

using Place = FunctionRule::Place;

/// FUNC=REST of a flag.
std::pair<std::string, std::string> function_and_rest(std::string_view flag,
                                                      const std::string& text) {
    const auto at = text.find('=');
    if (at == std::string::npos || at == 0 || at + 1 == text.size())
        throw Error(Errc::usage, fmt::format("{}: \"{}\" is not FUNC=…", flag, text));
    return {text.substr(0, at), text.substr(at + 1)};
}

/// @throws Error that begins with `where`.
std::vector<std::string> words_of(const std::string& line, const std::string& where) {
    auto words = split_command(line);
    if (!words) throw Error(Errc::usage, fmt::format("{}: {}", where, words.error().describe()));
    return std::move(*words);
}

void check_command(const CommandFunction& command, const std::string& where) {
    try {
        runtime::check_placeholders(command);
    } catch (const Error& error) {
        throw Error(Errc::usage, fmt::format("{}: {}", where, error.message()));
    }
}

/// Without the URL, which may hold a password.
void check_url(const std::string& url, const std::string& where) {
    if (const auto parsed = runtime::parse_http_url(url); !parsed)
        throw Error(Errc::usage, fmt::format("{}: url: {}", where, parsed.error().message));
}

ConfiguredFunction command_of_flag(const std::string& text) {
    auto [function, line] = function_and_rest("--command", text);
    const std::string where = fmt::format("--command: {}", function);
    ConfiguredFunction result{{function, Place::command, {}}, {}, {}, where, {}};
    result.command = CommandFunction{.function = function, .words = words_of(line, where)};
    check_command(*result.command, where);
    return result;
}

ConfiguredFunction http_of_flag(const std::string& text) {
    const auto equals = text.find('=');
    const std::string function = text.substr(0, equals);
    if (equals == std::string::npos || function.empty() ||
        function.find("://") != std::string::npos)
        throw Error(Errc::usage, "--http: FUNC=URL is needed, such as pkg.*=https://host/path");
    const std::string url = text.substr(equals + 1);
    const std::string where = fmt::format("--http: {}", function);
    check_url(url, where);
    ConfiguredFunction result{{function, Place::http, {}}, {}, {}, where, {}};
    result.http = HttpFunction{.function = function, .url = url};
    return result;
}

std::size_t number_in(const std::string& where, std::string_view text) {
    std::size_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size())
        throw Error(Errc::usage, printable(fmt::format("{}: \"{}\" is not a number", where,
                                                       text.substr(0, 40))));
    return number;
}

/// A duration, also in milliseconds such as 500ms.
std::chrono::milliseconds wait_in(const std::string& where, const std::string& text) {
    if (text.size() > 2 && text.ends_with("ms"))
        return std::chrono::milliseconds(
            number_in(where, std::string_view(text).substr(0, text.size() - 2)));
    return duration_option(where, text);
}

/// SIZE,WAIT. @throws Error that begins with `where`
Aggregation aggregation_in(const std::string& where, const std::string& text) {
    const auto comma = text.find(',');
    if (comma == std::string::npos)
        throw Error(Errc::usage, printable(fmt::format("{}: \"{}\" is not SIZE,WAIT such as 50,2s",
                                                       where, text.substr(0, 40))));
    const Aggregation most{number_in(where + " max_size", text.substr(0, comma)),
                           wait_in(where + " max_wait", text.substr(comma + 1))};
    runtime::check_aggregation(most, where);
    return most;
}

/// The keys of one table, each with the rules for its value.
class FunctionTable {
public:
    FunctionTable(std::string function, std::string where)
        : function_(std::move(function)), where_(std::move(where)) {}
    [[nodiscard]] const std::string& function() const { return function_; }

    void add(TomlEntry entry) {
        static constexpr std::string_view known[] = {"command", "shell",   "result",  "http",
                                                     "runs-in", "max-rss", "max-cpu", "aggregate"};
        if (std::ranges::find(known, entry.key) == std::end(known))
            refuse(entry.key, fmt::format("unknown key; known are {}", fmt::join(known, ", ")));
        entries_.insert_or_assign(entry.key, std::move(entry));
    }

    /// Its table `aggregate`, or a key of it.
    void add_aggregate(TomlEntry entry) {
        has_aggregate_ = true;
        if (entry.key.empty()) return;
        std::ranges::replace(entry.key, '-', '_');
        if (entry.key != "max_size" && entry.key != "max_wait")
            refuse("aggregate", "unknown key " + entry.key + "; known are max_size, max_wait");
        const std::string name = "aggregate " + entry.key;
        entries_.insert_or_assign(name, std::move(entry));
    }

    [[nodiscard]] ConfiguredFunction finish() const {
        if (entries_.empty() && !has_aggregate_)
            throw Error(Errc::usage, where_ + ": says nothing of its function");
        const std::vector<std::string> ways = given({"command", "http", "runs-in"});
        if (ways.size() > 1) refuse(ways[1], fmt::format("does not go with {}", ways[0]));
        if (!entries_.contains("command"))
            for (const auto& key : given({"shell", "result"}))
                refuse(key, "needs command");
        ConfiguredFunction result{{function_, Place::any, {}}, {}, {}, where_, "file"};
        if (entries_.contains("command")) {
            result.rule.place = Place::command;
            result.command = command();
        } else if (entries_.contains("http")) {
            result.rule.place = Place::http;
            const std::string url = text("http");
            check_url(url, where_ + " http");
            result.http = HttpFunction{.function = function_, .url = url};
        } else if (entries_.contains("runs-in")) {
            result.rule.place = one_of<Place>("runs-in", {{"thread", Place::thread},
                                                          {"process", Place::process},
                                                          {"python", Place::python}});
        }
        for (const auto& key : given({"max-rss", "max-cpu"})) {
            if (result.rule.place == Place::http)
                refuse(key, "does not go with http: the server has its own limits");
            if (result.rule.place == Place::thread)
                refuse(key, "does not go with runs-in = \"thread\": only a process can be limited");
        }
        if (entries_.contains("max-rss"))
            result.rule.limits.max_rss = size_option(where_ + " max-rss", amount("max-rss"));
        if (entries_.contains("max-cpu"))
            result.rule.limits.max_cpu = duration_option(where_ + " max-cpu", amount("max-cpu"));
        result.rule.aggregate = aggregate();
        return result;
    }

private:
    [[noreturn]] void refuse(const std::string& key, const std::string& why) const {
        throw Error(Errc::usage, fmt::format("{} {}: {}", where_, printable(key), why));
    }

    [[nodiscard]] std::vector<std::string> given(std::initializer_list<const char*> keys) const {
        std::vector<std::string> result;
        for (const char* key : keys)
            if (entries_.contains(key)) result.emplace_back(key);
        return result;
    }

    [[nodiscard]] const std::string& text(const std::string& key) const {
        const TomlEntry& entry = entries_.at(key);
        if (entry.list || entry.kind != TomlEntry::Kind::text) refuse(key, "text is needed");
        return entry.values.front();
    }

    [[nodiscard]] const std::string& amount(const std::string& key) const {
        const TomlEntry& entry = entries_.at(key);
        if (entry.list || entry.kind == TomlEntry::Kind::boolean)
            refuse(key, "a number, or text with a number and a unit is needed");
        return entry.values.front();
    }

    template <class T>
    [[nodiscard]] T one_of(const std::string& key,
                           std::initializer_list<std::pair<std::string_view, T>> choices) const {
        const std::string& chosen = text(key);
        std::string names;
        for (const auto& [name, value] : choices) {
            if (chosen == name) return value;
            names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
        }
        refuse(key, printable(fmt::format("\"{}\" is not one of {}", chosen.substr(0, 40), names)));
    }

    [[nodiscard]] std::optional<Aggregation> aggregate() const {
        if (entries_.contains("aggregate"))
            return aggregation_in(where_ + " aggregate", text("aggregate"));
        const auto parts = given({"aggregate max_size", "aggregate max_wait"});
        if (!has_aggregate_) return std::nullopt;
        if (parts.size() < 2) refuse("aggregate", "needs both max_size and max_wait");
        return aggregation_in(where_ + " aggregate", amount(parts[0]) + "," + amount(parts[1]));
    }

    [[nodiscard]] CommandFunction command() const {
        using Result = CommandFunction::Result;
        CommandFunction result{.function = function_};
        if (entries_.contains("shell")) {
            const TomlEntry& shell = entries_.at("shell");
            if (shell.list || shell.kind != TomlEntry::Kind::boolean)
                refuse("shell", "true or false is needed");
            result.shell = shell.values.front() == "true";
        }
        if (entries_.contains("result"))
            result.result = one_of<Result>(
                "result", {{"json", Result::json}, {"text", Result::text}, {"none", Result::none}});
        const TomlEntry& entry = entries_.at("command");
        if (entry.kind != TomlEntry::Kind::text)
            refuse("command", "text, or a list of it is needed");
        if (result.shell && entry.list)
            refuse("command", "a list does not go with shell: that takes one line");
        const std::string where = where_ + " command";
        result.words =
            entry.list || result.shell ? entry.values : words_of(entry.values.front(), where);
        check_command(result, where);
        return result;
    }

    std::string function_, where_;
    bool has_aggregate_ = false;
    std::map<std::string, TomlEntry, std::less<>> entries_;
};

}  // namespace

std::vector<ConfiguredFunction> read_functions(const std::vector<TomlEntry>& entries,
                                               const std::string& file) {
    std::vector<FunctionTable> tables;
    for (const auto& entry : entries) {
        const auto& path = entry.table;
        const auto refuse = [&](const std::string& where, const std::string& why) {
            throw Error(Errc::usage,
                        fmt::format("--config: {}: {}: {}", file, printable(where), why));
        };
        if (path.empty() && entry.key == "functions")
            refuse("functions", "must be tables, such as [functions.\"app.tasks.f\"]");
        if (path.empty() || path[0] != "functions") continue;
        if (path.size() == 1 && entry.key.empty()) continue;
        if (path.size() == 1)
            refuse("[functions] " + entry.key,
                   "must stand in the table of a function, such as [functions.\"app.tasks.f\"]");
        const bool aggregates = path.size() == 3 && path[2] == "aggregate";
        if (path.size() > 2 && !aggregates)
            refuse(fmt::format("[{}]", fmt::join(path, ".")),
                   "a function's name with dots needs quotes, such as [functions.\"app.tasks.f\"]");
        if (path[1].empty()) refuse("[functions.\"\"]", "the name of a function is missing");
        auto table = std::ranges::find(tables, path[1], &FunctionTable::function);
        if (table == tables.end()) {
            tables.emplace_back(
                path[1], fmt::format("--config: {}: [functions.\"{}\"]", file, printable(path[1])));
            table = std::prev(tables.end());
        }
        if (aggregates)
            table->add_aggregate(entry);
        else if (!entry.key.empty())
            table->add(entry);
    }
    std::vector<ConfiguredFunction> functions;
    functions.reserve(tables.size());
    for (const auto& table : tables)
        functions.push_back(table.finish());
    return functions;
}

namespace {

/// A flag says this of a function whatever else is said of it, and how it runs.
void add_aggregate(std::vector<ConfiguredFunction>& functions, const std::string& text,
                   const std::string& source) {
    auto [function, most] = function_and_rest("--aggregate", text);
    const std::string where = fmt::format("--aggregate: {}", function);
    const auto aggregate = aggregation_in(where, most);
    auto named = std::ranges::find_if(
        functions, [&](const ConfiguredFunction& one) { return one.rule.function == function; });
    if (named == functions.end()) {
        // Before tables, as other flags.
        named = std::ranges::find_if(functions, [](const auto& one) { return one.from == "file"; });
        named = functions.insert(named, {{function, Place::any, {}}, {}, {}, where, source});
    } else {
        named->from = fmt::format("{}, {}", source, named->from);
    }
    named->rule.aggregate = aggregate;
}

}  // namespace

std::vector<ConfiguredFunction> configured_functions(const WorkerCommandOptions& options) {
    std::vector<ConfiguredFunction> functions;
    const auto source_of = [&](const std::string& flag) {
        const auto source = options.sources.find(flag);
        return source == options.sources.end() ? std::string("flag") : source->second;
    };
    const auto add = [&](const std::string& flag, ConfiguredFunction one) {
        one.from = source_of(flag);
        functions.push_back(std::move(one));
    };
    for (const auto& text : options.command)
        add("command", command_of_flag(text));
    for (const auto& text : options.http)
        add("http", http_of_flag(text));
    for (const auto& table : options.functions) {
        const auto flag = std::ranges::find_if(functions, [&](const ConfiguredFunction& one) {
            return one.rule.function == table.rule.function;
        });
        if (flag == functions.end()) {
            functions.push_back(table);
            continue;
        }
        // The flag says how it runs; what else the table says goes on to hold.
        flag->rule.limits = table.rule.limits;
        if (flag->command && table.command) flag->command->result = table.command->result;
        flag->from += ", file";
    }
    for (const auto& text : options.aggregate)
        add_aggregate(functions, text, source_of("aggregate"));
    const auto secrets =
        secrets_option("--http-secret-file", options.http_secret_file, "RQXX_HTTP_SECRET");
    for (auto& one : functions) {
        if (one.http) one.http->secrets = secrets;
        if (one.rule.aggregate && (one.command || one.http))
            throw Error(Errc::usage, one.where +
                                         ": aggregate: a command or server takes one job "
                                         "at a time");
        if (one.rule.place == Place::python && options.python.empty())
            throw Error(Errc::usage, one.where + " runs-in: python needs --python");
    }
    return functions;
}

}  // namespace rqxx::cli
