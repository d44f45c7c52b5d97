#include <fmt/format.h>
#include <link.h>
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <rqxx/application.hpp>
#include <rqxx/error.hpp>
#include <span>

#include "cli/flags.hpp"
#include "ops/lua_scripts.hpp"

namespace rqxx {
namespace {

using namespace cli;

constexpr int success = 0, failed = 1, usage = 2;

const CLI::Option* find_flag(const CLI::App& command, const std::string& name) {
    return command.get_option_no_throw("--" + name);
}

bool known_anywhere(const CLI::App& app, const std::string& name) {
    if (find_flag(app, name) != nullptr) return true;
    const auto children = subcommands(app);
    return std::any_of(children.begin(), children.end(),
                       [&](const CLI::App* child) { return known_anywhere(*child, name); });
}

bool names_command(const CLI::App& app, const std::string& name) {
    return std::ranges::any_of(subcommands(app), [&](const CLI::App* child) {
        return child->get_name() == name || names_command(*child, name);
    });
}

struct ConfigFile {
    std::map<std::string, std::vector<std::string>> settings;
    std::vector<ConfiguredFunction> functions;
};

/// What a configuration file says of this command. A file may serve several commands: a key that no
/// command knows is an error, one of another command is passed over.
ConfigFile read_config(const std::string& file, const CLI::App& root, const CLI::App& command) {
    if (file.empty()) return {};
    const auto entries = read_toml(file, "--config");
    ConfigFile config;
    config.functions = read_functions(entries, file);
    for (const auto& entry : entries) {
        const auto refuse = [&, &entry = entry](std::string_view why) {
            const std::string table = fmt::format("{}", fmt::join(entry.table, "."));
            throw Error(
                Errc::usage,
                printable(fmt::format("--config: {}: {}{}{}{}", file, why, table,
                                      table.empty() || entry.key.empty() ? "" : ".", entry.key)));
        };
        if (!entry.table.empty() && entry.table.front() == "functions") continue;
        if (entry.table.size() > 1 ||
            (!entry.table.empty() && !names_command(root, entry.table.front())))
            refuse("there is no such command: ");
        if (entry.key.empty()) continue;
        if (!known_anywhere(root, entry.key)) refuse("unknown key ");
        if (!entry.table.empty() && entry.table.front() != command.get_name()) continue;
        const CLI::Option* option = find_flag(command, entry.key);
        if (option == nullptr) continue;
        const bool is_switch = option->get_expected_max() == 0;
        if (entry.list && !takes_list(*option)) refuse("one value is needed for ");
        if (is_switch && entry.kind != TomlEntry::Kind::boolean)
            refuse("true or false is needed for ");
        if (!is_switch && entry.kind == TomlEntry::Kind::boolean && !entry.values.empty())
            refuse("neither true nor false can be ");
        config.settings[entry.key] = entry.values;
    }
    return config;
}

/// What separates the values of a list in an environment variable: as in PATH for folders, nothing
/// for what may hold any of these itself, else commas or blanks.
std::string_view separators_of(const std::string& name) {
    if (name == "path") return ":";
    if (name == "command" || name == "http" || name == "webhook") return "";
    if (name == "aggregate") return " \t\n";
    return ", \t\n";
}

std::vector<std::string> split_list(std::string_view text, std::string_view separators) {
    std::vector<std::string> values;
    for (std::size_t at = 0; at <= text.size();) {
        const auto end = std::min(text.find_first_of(separators, at), text.size());
        if (end > at) values.emplace_back(text.substr(at, end - at));
        at = end + 1;
    }
    return values;
}

struct Commands {
    PauseOptions function;
    LimitOptions limit;
    SuspendOptions suspend;
    CommonOptions common;
    ServeOptions serve;
    WorkerCommandOptions worker;
    EnqueueCommandOptions enqueue;
    InfoOptions info;
    JobOptions job;
    QueueOptions queue;
    BatchCommandOptions batch;
    CronCommandOptions cron;
    TokenOptions token;
    BenchCommandOptions bench;
    DoctorCommandOptions doctor;
    TopOptions top;
};

/// What the environment and the configuration file set, as flags before those of the user: a flag
/// beats the environment, which beats the file. (CLI11 by itself lets the file beat the
/// environment.)
std::vector<std::string> with_settings(const CLI::App& root, const CLI::App& command,
                                       const std::vector<std::string>& args, Commands& to) {
    const auto value_on_line = [&](const std::string& flag) -> std::optional<std::string> {
        for (std::size_t i = 0; i < args.size(); ++i) {
            if (args[i].starts_with(flag + "=")) return args[i].substr(flag.size() + 1);
            if (args[i] == flag) return i + 1 < args.size() ? args[i + 1] : std::string();
        }
        return std::nullopt;
    };
    const auto from_environment = [](const CLI::Option& option) -> const char* {
        const char* value =
            option.get_envname().empty() ? nullptr : std::getenv(option.get_envname().c_str());
        return value != nullptr && *value != '\0' ? value : nullptr;
    };
    std::string file;
    if (const auto* config = find_flag(command, "config")) {
        const char* environment = from_environment(*config);
        file = value_on_line("--config").value_or(environment != nullptr ? environment : "");
    }
    auto config = read_config(file, root, command);
    to.worker.functions = std::move(config.functions);
    auto& sources = to.worker.sources;
    std::vector<std::string> result;
    for (const CLI::Option* option : command.get_options()) {
        if (option->get_lnames().empty()) continue;
        const std::string& name = option->get_lnames().front();
        const std::string flag = "--" + name;
        std::vector<std::string> values;
        if (value_on_line(flag)) {
            sources[name] = "flag";
        } else if (const char* value = from_environment(*option)) {
            sources[name] = "environment";
            values = takes_list(*option) ? split_list(value, separators_of(name))
                                         : std::vector<std::string>{value};
        } else if (const auto found = config.settings.find(name); found != config.settings.end()) {
            sources[name] = "file";
            values = found->second;
        }
        for (const auto& input : values)
            result.push_back(fmt::format("{}={}", flag, input));
    }
    result.insert(result.end(), args.begin(), args.end());
    return result;
}

/// `job cancel`, `delete`, `requeue`, `stop`: what each is called, and what carries it out.
using JobCommand = std::pair<CLI::App*, int (*)(const CommonOptions&, const JobActionOptions&)>;
using QueueCommand = std::pair<CLI::App*, int (*)(const CommonOptions&, const QueueActionOptions&)>;
/// The words that follow the program, with the sub-command's environment put after its name.
std::vector<std::string> arguments(int argc, char** argv, const CLI::App& root, Commands& to) {
    std::vector<std::string> words(argv + 1, argv + argc);
    const CLI::App* command = &root;
    std::vector<std::string> path;
    std::size_t at = 0;
    for (; at < words.size(); ++at) {
        const auto commands = command->get_subcommands(
            [&](const CLI::App* app) { return app->check_name(words[at]); });
        if (commands.empty()) break;
        const CLI::App* next = commands.front();
        command = next;
        path.push_back(words[at]);
    }
    if (!subcommands(*command).empty() && (at == words.size() || !words[at].starts_with('-'))) {
        std::string typed;
        for (const auto& word : path)
            typed += word + " ";
        throw Error(Errc::usage,
                    at < words.size()
                        ? fmt::format("there is no command \"{}{}\"; see rqxx {}--help", typed,
                                      words[at], typed)
                        : fmt::format("a command is needed; see rqxx {}--help", typed));
    }
    auto rest = with_settings(root, *command,
                              {words.begin() + static_cast<std::ptrdiff_t>(at), words.end()}, to);
    path.insert(path.end(), rest.begin(), rest.end());
    std::reverse(path.begin(), path.end());  // CLI11 takes them last first.
    return path;
}

/// What the command line asks for. `to` and `make_application` outlive it.
std::function<int()> parse(int argc, char** argv, Commands& to,
                           const ApplicationFactory& make_application) {
    CLI::App root("rqxx: background jobs on Redis, compatible with Python RQ", "rqxx");
    root.set_version_flag("--version", "rqxx " RQXX_VERSION);
    root.require_subcommand(1);
    root.get_formatter()->column_width(34);

    std::vector<Command> commands{add_serve(root, to.common, to.serve, make_application),
                                  add_worker(root, to.common, to.worker, make_application),
                                  add_enqueue(root, to.common, to.enqueue),
                                  add_info(root, to.common, to.info)};
    std::ranges::move(add_job(root, to.common, to.job), std::back_inserter(commands));
    std::ranges::move(add_queue(root, to.common, to.queue), std::back_inserter(commands));
    std::ranges::move(add_function(root, to.common, to.function), std::back_inserter(commands));
    std::ranges::move(add_limit(root, to.common, to.limit), std::back_inserter(commands));
    std::ranges::move(add_suspension(root, to.common, to.suspend), std::back_inserter(commands));
    std::ranges::move(add_batch(root, to.common, to.batch), std::back_inserter(commands));
    commands.push_back(add_cron(root, to.common, to.cron));
    std::ranges::move(add_token(root, to.common, to.token), std::back_inserter(commands));
    commands.push_back(add_bench(root, to.common, to.bench));
    commands.push_back(add_doctor(root, to.common, to.doctor));
    commands.push_back(add_top(root, to.common, to.top));
    for (const auto& command : commands)
        add_common(*command.app, to.common);
    auto* completion_app = root.add_subcommand(
        "completion", "Print a completion script: source <(rqxx completion bash)");
    std::string shell = "bash";
    completion_app->add_option("shell", shell, "bash, zsh or fish")
        ->check(CLI::IsMember({"bash", "zsh", "fish"}));

    const auto exit_code = [](int code) { return [code] { return code; }; };
    try {
        root.parse(arguments(argc, argv, root, to));
    } catch (const CLI::CallForHelp&) {
        // The help of the command that was asked about.
        fmt::print("{}", root.help());
        return exit_code(success);
    } catch (const CLI::CallForVersion& version) {
        fmt::print("{}\n", version.what());
        return exit_code(success);
    } catch (const CLI::ParseError& error) {
        fmt::print(stderr, "rqxx: {}\n", error.what());
        return exit_code(usage);
    }
    if (*completion_app) {
        print_completion(root, shell);
        return exit_code(success);
    }
    return std::ranges::find_if(commands,
                                [](const Command& command) { return command.app->parsed(); })
        ->run;
}

bool is_debugged() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.starts_with("TracerPid:")) return line != "TracerPid:\t0";
    return false;
}

/// Parsing took more than an idle worker needs: heap, and pages of code. Those that are needed
/// again are in the system's cache.
void forget_parsing() {
    ::malloc_trim(0);
    if (is_debugged()) return;  // Breakpoints would go with the pages.
    ::dl_iterate_phdr(
        [](dl_phdr_info* object, std::size_t, void*) {
            if (std::string_view(object->dlpi_name).starts_with("linux-vdso")) return 0;
            const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
            for (const auto& segment : std::span(object->dlpi_phdr, object->dlpi_phnum)) {
                if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
                const auto begin = (object->dlpi_addr + segment.p_vaddr) & ~(page - 1);
                const auto end = object->dlpi_addr + segment.p_vaddr + segment.p_memsz;
                // The linker's addresses are numbers. NOLINTNEXTLINE(performance-no-int-to-ptr)
                ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
            }
            return 0;
        },
        nullptr);
}

}  // namespace

int run_command_line(int argc, char** argv, const ApplicationFactory& make_application) {
    ::signal(SIGPIPE, SIG_IGN);
    register_scripts(lua::all());
    try {
        Commands commands;
        const auto run = parse(argc, argv, commands, make_application);
        forget_parsing();
        return run();
    } catch (const Error& error) {
        fmt::print(stderr, "rqxx: {}\n", error.message());
        return error.code() == Errc::usage ? usage : failed;
    } catch (const Cancelled&) {
        return failed;
    } catch (const std::exception& error) {
        fmt::print(stderr, "rqxx: {}\n", error.what());
        return failed;
    }
}

}  // namespace rqxx
