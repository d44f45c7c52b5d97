#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <rqxx/error.hpp>

#include "cli/commands.hpp"
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

/// The keys of one table, each with the rules for its value.
class FunctionTable {
public:
    FunctionTable(std::string function, std::string where)
        : function_(std::move(function)), where_(std::move(where)) {}
    [[nodiscard]] const std::string& function() const { return function_; }

    void add(TomlEntry entry) {
        static constexpr std::string_view known[] = {"command", "shell",   "result", "http",
                                                     "runs-in", "max-rss", "max-cpu"};
        if (std::ranges::find(known, entry.key) == std::end(known))
            refuse(entry.key, fmt::format("unknown key; known are {}", fmt::join(known, ", ")));
        entries_.insert_or_assign(entry.key, std::move(entry));
    }

    [[nodiscard]] ConfiguredFunction finish() const {
        if (entries_.empty()) throw Error(Errc::usage, where_ + ": says nothing of its function");
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
        if (path.size() > 2)
            refuse(fmt::format("[{}]", fmt::join(path, ".")),
                   "a function's name with dots needs quotes, such as [functions.\"app.tasks.f\"]");
        if (path[1].empty()) refuse("[functions.\"\"]", "the name of a function is missing");
        auto table = std::ranges::find(tables, path[1], &FunctionTable::function);
        if (table == tables.end()) {
            tables.emplace_back(
                path[1], fmt::format("--config: {}: [functions.\"{}\"]", file, printable(path[1])));
            table = std::prev(tables.end());
        }
        if (!entry.key.empty()) table->add(entry);
    }
    std::vector<ConfiguredFunction> functions;
    functions.reserve(tables.size());
    for (const auto& table : tables)
        functions.push_back(table.finish());
    return functions;
}

std::vector<ConfiguredFunction> configured_functions(const WorkerCommandOptions& options) {
    std::vector<ConfiguredFunction> functions;
    const auto add = [&](const std::string& flag, ConfiguredFunction one) {
        const auto source = options.sources.find(flag);
        one.from = source == options.sources.end() ? "flag" : source->second;
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
    const auto secrets =
        secrets_option("--http-secret-file", options.http_secret_file, "RQXX_HTTP_SECRET");
    for (auto& one : functions) {
        if (one.http) one.http->secrets = secrets;
        if (one.rule.place == Place::python && options.python.empty())
            throw Error(Errc::usage, one.where + " runs-in: python needs --python");
    }
    return functions;
}

}  // namespace rqxx::cli
