#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <charconv>
#include <cstdlib>
#include <rqxx/json.hpp>

#include "base/wildcard.hpp"
#include "cli/commands.hpp"
#include "runtime/executors.hpp"
#include "runtime/http_client.hpp"

namespace rqxx::cli {
namespace {

namespace json = boost::json;
using Place = FunctionRule::Place;

bool is_executable(const std::filesystem::path& path) {
    std::error_code ignored;
    return std::filesystem::is_regular_file(path, ignored) && ::access(path.c_str(), X_OK) == 0;
}

/// As execvp looks for it.
bool can_be_started(const std::string& program) {
    if (program.find('/') != std::string::npos) return is_executable(program);
    const char* variable = std::getenv("PATH");
    std::string_view rest = variable != nullptr ? variable : "/bin:/usr/bin";
    for (;;) {
        const auto colon = rest.find(':');
        const std::string_view folder = rest.substr(0, colon);
        if (is_executable(std::filesystem::path(folder.empty() ? "." : folder) / program))
            return true;
        if (colon == std::string_view::npos) return false;
        rest.remove_prefix(colon + 1);
    }
}

/// Bytes with the largest unit that divides them, as flags take them.
std::string size_text(std::uint64_t bytes) {
    constexpr const char* units[] = {"", "KB", "MB", "GB", "TB"};
    std::size_t unit = 0;
    for (; bytes > 0 && bytes % 1024 == 0 && unit + 1 < std::size(units); ++unit)
        bytes /= 1024;
    return fmt::format("{}{}", bytes, units[unit]);
}

/// A command line as one would type it.
std::string shell_text(const std::vector<std::string>& words) {
    std::string text;
    for (const auto& word : words) {
        if (!text.empty()) text += ' ';
        const bool plain = !word.empty() && word.find_first_of(" \t\n'\"\\") == std::string::npos;
        if (plain) {
            text += word;
            continue;
        }
        text += '\'';
        for (const char c : word)
            text += c == '\'' ? std::string("'\\''") : std::string(1, c);
        text += '\'';
    }
    return text;
}

struct Row {
    std::string function;
    std::string runs_in;
    std::string with;  ///< Command line, URL, interpreter, or what is to be known.
    ResourceLimits limits;
    std::string from;
    const CommandFunction* command = nullptr;
    std::optional<Aggregation> aggregate{};
};

class Rows {
public:
    Rows(const WorkerOptions& options, const HandlerRegistry& handlers,
         const std::vector<ConfiguredFunction>& functions)
        : options_(options), handlers_(handlers), functions_(functions) {}

    [[nodiscard]] std::vector<Row> all() const {
        std::vector<Row> rows;
        for (const auto& one : functions_)
            rows.push_back(only_python() ? Row{one.rule.function,
                                               "never",
                                               "--serializer: all run in Python",
                                               {},
                                               one.from}
                                         : row(one.rule.function, &one));
        if (only_python()) return rows;
        const auto names = handlers_.names();
        for (const auto& name : names) {
            if (std::ranges::none_of(functions_, [&](const ConfiguredFunction& one) {
                    return one.rule.function == name;
                }))
                rows.push_back(row(name, nullptr));
        }
        return rows;
    }

    /// Of functions that nothing else names.
    [[nodiscard]] Row others() const {
        Row row{"all others", "python", "", options_.limits, "default"};
        if (options_.python)
            row.with = options_.python->interpreter;
        else
            row = {"all others", "fails", "there is no --python", {}, "default"};
        return row;
    }

private:
    /// Nobody else can tell which function a job calls.
    [[nodiscard]] bool only_python() const {
        return options_.python && !options_.python->serializer.empty();
    }

    [[nodiscard]] Row row(const std::string& function, const ConfiguredFunction* table) const {
        Call call;
        call.func_name = function;  // A pattern fits itself.
        const runtime::Way way = runtime::way_of(call, options_, handlers_);
        const ConfiguredFunction* used =
            way.rule == nullptr
                ? nullptr
                : &functions_[static_cast<std::size_t>(way.rule - options_.functions.data())];
        if (table != nullptr && used != table)
            return {function,
                    "never",
                    fmt::format("\"{}\" comes before it", way.rule->function),
                    {},
                    table->from};
        Row result{function, "", "", {}, used != nullptr ? used->from : "registered"};
        describe(result, way, used);
        return result;
    }

    void describe(Row& row, const runtime::Way& way, const ConfiguredFunction* used) const {
        const bool pattern = row.function.find('*') != std::string::npos;
        row.limits = way.limits;
        row.aggregate = way.aggregate;
        if (pattern && used != nullptr && used->rule.place == Place::any) {
            row.runs_in = "as others";
            return;
        }
        switch (way.place) {
            case Place::command:
                row.command = &*used->command;
                row.runs_in = row.command->shell ? "shell" : "command";
                row.with = row.command->shell ? row.command->words.front()
                                              : shell_text(row.command->words);
                return;
            case Place::http:
                row.runs_in = "http";
                row.with = runtime::shown_url(*runtime::parse_http_url(used->http->url));
                row.limits = {};
                return;
            case Place::python:
                row.runs_in = "python";
                row.with = options_.python->interpreter;
                return;
            case Place::process:
                row.runs_in = "process";
                break;
            case Place::thread:
            case Place::any:
                row.runs_in = "thread";
                row.limits = {};
        }
        const auto names = handlers_.names();
        if (std::ranges::none_of(names, [&](const std::string& name) {
                return matches_wildcard(row.function, name);
            }))
            row.with = "fails: no handler of this name is registered";
    }

    const WorkerOptions& options_;
    const HandlerRegistry& handlers_;
    const std::vector<ConfiguredFunction>& functions_;
};

std::string limits_text(const ResourceLimits& limits) {
    std::string text;
    if (limits.max_rss) text = "max-rss " + size_text(*limits.max_rss);
    if (limits.max_cpu)
        text += fmt::format("{}max-cpu {}s", text.empty() ? "" : ", ", limits.max_cpu->count());
    return text;
}

constexpr std::string_view result_name(CommandFunction::Result result) {
    return result == CommandFunction::Result::json   ? "json"
           : result == CommandFunction::Result::text ? "text"
                                                     : "none";
}

std::string value_text(const Setting& setting) {
    if (setting.values.empty() || setting.values.front().empty()) return "-";
    std::uint64_t bytes = 0;
    const std::string& first = setting.values.front();
    if (setting.kind == Setting::Kind::size &&
        std::from_chars(first.data(), first.data() + first.size(), bytes).ec == std::errc())
        return size_text(bytes);
    return fmt::format("{}", fmt::join(setting.values, " "));
}

json::value value_json(const Setting& setting) {
    if (setting.kind == Setting::Kind::list)
        return json::array(setting.values.begin(), setting.values.end());
    if (setting.values.empty() || setting.values.front().empty()) return nullptr;
    const std::string& text = setting.values.front();
    if (setting.kind == Setting::Kind::boolean) return text == "true";
    if (setting.kind != Setting::Kind::text) {
        std::uint64_t number = 0;
        if (std::from_chars(text.data(), text.data() + text.size(), number).ec == std::errc())
            return number;
    }
    return json::value(text);
}

json::object row_json(const Row& row) {
    json::object object{{"function", row.function}, {"runs_in", row.runs_in}};
    if (row.command != nullptr) {
        object["command"] = json::array(row.command->words.begin(), row.command->words.end());
        object["result"] = result_name(row.command->result);
    } else if (!row.with.empty()) {
        object["with"] = row.with;
    }
    if (row.aggregate)
        object["aggregate"] = json::object{{"max_size", row.aggregate->max_size},
                                           {"max_wait", Seconds(row.aggregate->max_wait).count()}};
    object["max_rss"] = row.limits.max_rss ? json::value(*row.limits.max_rss) : json::value();
    object["max_cpu"] =
        row.limits.max_cpu ? json::value(row.limits.max_cpu->count()) : json::value();
    object["from"] = row.from;
    return object;
}

void print_json(const std::vector<Setting>& settings, const std::vector<Row>& rows,
                const Row& others) {
    json::object values;
    for (const auto& setting : settings)
        values[setting.name] = json::object{{"value", value_json(setting)}, {"from", setting.from}};
    json::array functions;
    for (const auto& row : rows)
        functions.push_back(row_json(row));
    auto rest = row_json(others);
    rest.erase("function");
    fmt::print("{}\n", to_text(json::object{{"settings", std::move(values)},
                                            {"functions", std::move(functions)},
                                            {"others", std::move(rest)}}));
}

void print_tables(const std::vector<Setting>& settings, const std::vector<Row>& rows,
                  const Row& others) {
    Table values({"SETTING", "VALUE", "FROM"});
    for (const auto& setting : settings)
        values.add({setting.name, printable(value_text(setting)), setting.from});
    values.print(stdout);
    fmt::print("\n");
    Table functions({"FUNCTION", "RUNS IN", "WITH", "LIMITS", "FROM"});
    const auto add = [&](const Row& row) {
        std::string with = row.with;
        if (row.command != nullptr && row.command->result != CommandFunction::Result::json)
            with += fmt::format("  (result: {})", result_name(row.command->result));
        if (row.aggregate)
            with += fmt::format("  (up to {} jobs in a call, waiting for {}s)",
                                row.aggregate->max_size, format_seconds(row.aggregate->max_wait));
        std::ranges::replace(with, '\n', ' ');
        functions.add({printable(row.function), row.runs_in, printable(with),
                       limits_text(row.limits), row.from});
    };
    std::ranges::for_each(rows, add);
    add(others);
    functions.print(stdout);
}

}  // namespace

void check_programs(const std::vector<ConfiguredFunction>& functions) {
    for (const auto& one : functions) {
        if (!one.command || one.command->shell) continue;
        const std::string& program = one.command->words.front();
        // One that arguments decide on cannot be known.
        if (program.find('{') != std::string::npos || can_be_started(program)) continue;
        throw Error(Errc::usage, fmt::format("{}{}: there is no program {}", one.where,
                                             one.where.starts_with("--config") ? " command" : "",
                                             printable(program)));
    }
}

void print_worker(const std::vector<Setting>& settings, const WorkerOptions& options,
                  const HandlerRegistry& handlers, const std::vector<ConfiguredFunction>& functions,
                  bool as_json) {
    const Rows rows(options, handlers, functions);
    as_json ? print_json(settings, rows.all(), rows.others())
            : print_tables(settings, rows.all(), rows.others());
}

}  // namespace rqxx::cli
