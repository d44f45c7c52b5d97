#include <fmt/format.h>
#include <malloc.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>
#include <rqxx/application.hpp>
#include <rqxx/error.hpp>

#include "cli/commands.hpp"
#include "ops/lua_scripts.hpp"

namespace rqxx {
namespace {

using namespace cli;

constexpr int success = 0, failed = 1, usage = 2;

std::string environment_name(std::string flag) {
    std::string name = "RQXX_";
    for (char c : flag.substr(2))
        name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return name;
}

/// Every flag has its environment variable, and its default in the help.
CLI::Option* named(CLI::Option* option) {
    const std::string name =
        option->get_lnames().empty() ? "" : "--" + option->get_lnames().front();
    if (!name.empty()) option->envname(environment_name(name));
    return option;
}

template <class T>
CLI::Option* add_option(CLI::App& app, const std::string& flag, T& target,
                        const std::string& help) {
    return named(app.add_option(flag, target, help)->capture_default_str());
}

/// Makes bytes of what may have a unit, where KB is 1024.
CLI::Validator size_validator() {
    return {[](std::string& text) {
                const std::string given = text.substr(0, 40);
                try {
                    std::uint64_t size = 0;
                    if (!given.starts_with('-') && CLI::AsSizeValue(false)(text).empty() &&
                        CLI::detail::lexical_cast(text, size))
                        return std::string();
                } catch (const CLI::Error&) {
                    // As below.
                }
                return fmt::format("\"{}\" is not a size like 1048576, 512MB or 2GB", given);
            },
            ""};
}

/// Bytes, or with a unit such as 512MB.
CLI::Option* add_size(CLI::App& app, const std::string& flag, std::uint64_t& target,
                      const std::string& help) {
    return add_option(app, flag, target, help)->transform(size_validator())->type_name("SIZE");
}

CLI::Option* add_flag(CLI::App& app, const std::string& flag, bool& target,
                      const std::string& help) {
    return named(app.add_flag(flag, target, help));
}

void add_common(CLI::App& app, CommonOptions& common) {
    app.option_defaults()->group("Common");
    add_option(app, "--redis-url", common.redis_url,
               "redis://, rediss:// or unix:// URL. Default: the Redis of `rqxx serve` in the data "
               "directory, "
               "else redis://localhost:6379/0");
    add_option(app, "--redis-ca-file", common.redis_ca_file,
               "CA certificates for rediss://; default: the system's")
        ->check(CLI::ExistingFile);
    add_option(app, "--data-dir", common.data_dir, "where rqxx keeps its files");
    add_option(app, "--log-level", common.log_level, "what is logged to stderr")
        ->check(CLI::IsMember({"debug", "info", "warning", "error"}));
    add_option(app, "--log-format", common.log_format, "how")
        ->check(CLI::IsMember({"text", "json"}));
    app.option_defaults()->group("Options");
    add_option(app, "--config", common.config,
               "TOML file with the same names as the flags, also in a table [COMMAND]");
}

void add_webhooks(CLI::App& app, WebhookSettings& o) {
    add_flag(app, "--no-webhooks", o.off, "leave webhooks of ended jobs to other processes");
    add_option(app, "--webhook-secret-file", o.secret_file,
               "file with a secret per line that webhooks are signed with; or RQXX_WEBHOOK_SECRET")
        ->check(CLI::ExistingFile);
}

std::vector<const CLI::App*> subcommands(const CLI::App& app) {
    return app.get_subcommands([](const CLI::App*) { return true; });
}

const CLI::Option* find_flag(const CLI::App& command, const std::string& name) {
    return command.get_option_no_throw("--" + name);
}

bool takes_list(const CLI::Option& option) {
    return option.get_expected_max() > 1;
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
    CommonOptions common;
    ServeOptions serve;
    WorkerCommandOptions worker;
    EnqueueCommandOptions enqueue;
    InfoOptions info;
    JobShowOptions job_show;
    JobLogsOptions job_logs;
    JobActionOptions job_action;
    QueueActionOptions queue_action;
    QueueListOptions queue_list;
    CronCommandOptions cron;
    BenchCommandOptions bench;
    DoctorCommandOptions doctor;
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

CLI::App* add_serve(CLI::App& root, Commands& to) {
    auto& app = *root.add_subcommand(
        "serve",
        "Run the server: API, page, scheduler, worker, and a private Redis unless one is named");
    auto& o = to.serve;
    add_option(app, "--host", o.host, "address to listen on; others than loopback need a token");
    add_option(app, "--port", o.port, "port to listen on; 0 picks a free one");
    add_option(app, "--token", o.token,
               "bearer token that clients must send (visible in the process list: prefer a file)");
    add_option(app, "--token-file", o.token_file, "file that holds the token")
        ->check(CLI::ExistingFile);
    add_flag(app, "--no-worker", o.no_worker, "do not run jobs in this process");
    add_flag(app, "--no-sampler", o.no_sampler, "do not count what stock RQ workers end");
    add_flag(app, "--no-scheduler", o.no_scheduler,
             "leave jobs that were enqueued for later to other schedulers");
    add_flag(app, "--no-maintenance", o.no_maintenance,
             "do not recover jobs of dead workers, nor put queues in order");
    add_flag(app, "--demo", o.demo, "install sample sessions and evaluate one");
    add_option(app, "--concurrency", o.concurrency, "jobs at once")->check(CLI::Range(1, 1024));
    add_option(app, "--packages", o.packages,
               "folder of merge-request packages; default: mr_packages in the data directory");
    add_flag(app, "--no-legacy-evaluate", o.no_legacy_evaluate,
             "switch GET /api/sessions/{id}/evaluate off");
    add_flag(app, "--no-access-log", o.no_access_log, "do not log requests");
    add_option(app, "--grace", o.grace, "how long running jobs may take to end at shutdown");
    add_option(app, "--redis-server", o.redis_server, "program of the embedded Redis");
    add_webhooks(app, o.webhooks);
    return &app;
}

CLI::App* add_worker(CLI::App& root, Commands& to) {
    auto& app = *root.add_subcommand("worker", "Run jobs");
    auto& o = to.worker;
    app.add_option("QUEUE", o.queues,
                   "queues, the first has precedence; default: those of --queues");
    add_option(app, "--queues", o.queue_list, "the same as a list; default: high default low")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->type_name("QUEUE,…");
    add_option(app, "--concurrency", o.concurrency, "jobs at once")->check(CLI::Range(1, 1024));
    add_flag(app, "--burst", o.burst, "end when the queues are empty");
    add_flag(app, "--check", o.check,
             "only tell what it would do: start and end its interpreters, show settings and "
             "functions; needs no Redis");
    add_flag(app, "--json", o.json, "with --check: as JSON");
    add_flag(app, "--with-scheduler", o.with_scheduler,
             "also move jobs that were enqueued for later to these queues when they are due");
    add_option(app, "--name", o.name,
               "name of the worker; default: host, process and a random part");
    add_option(app, "--max-jobs", o.max_jobs, "end after that many jobs; 0: no limit");
    add_option(app, "--packages", o.packages,
               "folder of merge-request packages; default: mr_packages in the data directory");
    add_option(app, "--grace", o.grace, "how long running jobs may take to end at shutdown");
    add_option(app, "--recover", o.recover,
               "a job without retries whose worker died: run it once more, or fail it")
        ->check(CLI::IsMember({"requeue", "fail"}));
    add_option(app, "--serializer", o.serializer,
               "pickle or json, of results; default: each job's own. With --python also the dotted "
               "name of a class that reads jobs and writes results");
    add_option(app, "--strategy", o.strategy,
               "order of the queues: strict (as listed), round-robin or random");
    add_option(app, "--max-idle-time", o.max_idle_time, "end after so long without a job");
    add_option(app, "--callbacks", o.callbacks,
               "a job with a callback that is not registered here: fail it, or run it without")
        ->check(CLI::IsMember({"require", "skip"}));
    add_option(app, "--kill-after", o.kill_after,
               "how long a job may ignore that it is to stop before what runs it is replaced");
    add_option(app, "--python", o.python,
               "interpreter that runs Python functions, such as .venv/bin/python");
    add_option(app, "--isolation", o.isolation,
               "warm: processes run one Python job after the other; fork: one for each job")
        ->check(CLI::IsMember({"warm", "fork"}));
    add_option(app, "--path", o.path, "folder to import Python modules from; may be repeated")
        ->allow_extra_args(false);
    add_option(
        app, "--init", o.init,
        "MODULE:CALLABLE to call once, before --preload, such as django:setup; may be repeated")
        ->allow_extra_args(false);
    add_option(app, "--preload", o.preload,
               "Python module to import once, for all jobs; may be repeated")
        ->allow_extra_args(false);
    add_option(app, "--exception-handler", o.exception_handlers,
               "Python function called with a job and its exception, as RQ's; may be repeated")
        ->allow_extra_args(false);
    named(
        app.add_option("--command", o.command,
                       "FUNC=PROGRAM ARG...: run a function as a program; {name} and {0} stand for "
                       "arguments; may be repeated")
            ->type_name("FUNC=CMD")
            ->allow_extra_args(false));
    add_option(app, "--native-isolation", o.native_isolation,
               "native handlers run in threads of the worker, or in processes of their own")
        ->check(CLI::IsMember({"thread", "process"}));
    add_size(app, "--max-rss", o.max_rss,
             "resident memory that a job's process may have, with its children; 0: no limit");
    add_option(app, "--max-cpu", o.max_cpu, "CPU time that a job's process may use");
    add_option(app, "--recycle-jobs", o.recycle_jobs,
               "replace a process that runs one job after the other after so many; 0: never");
    add_option(app, "--recycle-age", o.recycle_age, "… after so long; 0: never");
    add_size(app, "--recycle-growth", o.recycle_growth,
             "… when its resident memory has grown by so much; 0: never");
    add_size(app, "--max-output", o.max_output,
             "what is kept of a job's stdout and stderr; 0: they go where the worker's go");
    add_flag(app, "--forward-output", o.forward_output,
             "what jobs write is kept, and also goes where the worker's output goes");
    named(app.add_option("--http", o.http,
                         "run jobs of this function by a POST; * stands for any text; may be "
                         "repeated, the first that fits counts")
              ->type_name("FUNC=URL")
              ->allow_extra_args(false));
    add_option(app, "--http-secret-file", o.http_secret_file,
               "file with a secret per line that these are signed with; or RQXX_HTTP_SECRET")
        ->check(CLI::ExistingFile);
    add_webhooks(app, o.webhooks);
    app.footer(
        "Lists in the environment: queues and names separated by commas or blanks, folders of "
        "RQXX_PATH by colons;\nRQXX_COMMAND and RQXX_HTTP hold one value. How a function runs can "
        "also stand in the file of --config,\nin a table [functions.\"NAME\"]: see "
        "docs/executors.md.");
    return &app;
}

CLI::App* add_enqueue(CLI::App& root, Commands& to) {
    auto& app = *root.add_subcommand("enqueue", "Put a job on a queue and print its id");
    auto& o = to.enqueue;
    app.add_option("FUNC", o.function, "dotted path of the function")->required();
    app.add_option("ARG", o.arguments,
                   "text; `:JSON` or `%PYTHON-LITERAL` for other types; `key=text`, `key:=JSON`, "
                   "`key%=LITERAL` for keywords; "
                   "`@FILE` after the mark reads a file")
        ->type_name("");
    add_option(app, "--queue", o.queue, "name of the queue");
    add_option(app, "--priority", o.priority, "use the optimized queue's policy instead of --queue")
        ->check(CLI::IsMember({"high", "normal", "low"}));
    add_option(app, "--timeout", o.timeout, "time limit: seconds, or 90s, 5m, 1h, 2d");
    add_option(app, "--result-ttl", o.result_ttl, "how long the result is kept");
    add_option(app, "--failure-ttl", o.failure_ttl, "how long a failed job is kept");
    add_option(app, "--ttl", o.ttl, "how long the job may wait before it is dropped");
    named(app.add_option("--retry", o.retry, "how often a failing job is run again"));
    named(app.add_option("--retry-interval", o.retry_intervals,
                         "wait before a retry; more of them for the next ones")
              ->type_name("DURATION")
              ->allow_extra_args(false));
    add_flag(app, "--retry-at-front", o.retry_at_front, "a retried job is next to be run");
    add_option(
        app, "--at", o.at,
        "not before this time: 2026-12-24T18:00:00Z, an offset for Z, or seconds since 1970");
    add_option(app, "--in", o.in, "not before so long from now");
    named(app.add_option("--depends-on", o.depends_on,
                         "not before the job of this id has finished; repeat for more")
              ->type_name("ID")
              ->allow_extra_args(false));
    add_flag(app, "--allow-failure", o.allow_failure, "… or has failed");
    add_option(app, "--on-success", o.on_success,
               "callback, NAME or NAME@DURATION with its time limit (default 60s)");
    add_option(app, "--on-failure", o.on_failure, "the same for a failure");
    add_option(app, "--on-stopped", o.on_stopped, "the same for a stopped job");
    named(app.add_option("--repeat", o.repeat, "run so many times more after a success"));
    named(app.add_option("--repeat-interval", o.repeat_intervals,
                         "wait before a repetition; more of them are used up from the end")
              ->type_name("DURATION")
              ->allow_extra_args(false));
    add_option(app, "--group", o.group, "name of a group to join");
    named(app.add_option("--webhook", o.webhooks,
                         "finished=URL or failed=URL: what is told (POST) when the job ends so")
              ->allow_extra_args(false));
    add_option(app, "--meta", o.meta, "a JSON object kept with the job");
    add_option(app, "--job-id", o.job_id, "id of the job; default: a new UUID");
    add_option(app, "--description", o.description, "shown by monitors; default: the call");
    add_option(app, "--serializer", o.serializer, "how the arguments are stored")
        ->check(CLI::IsMember({"pickle", "json"}));
    add_flag(app, "--json-args", o.json_args, "every argument is JSON");
    add_flag(app, "--at-front", o.at_front, "next to be run, instead of last");
    add_flag(app, "--unique", o.unique, "refuse when a job with this --job-id exists");
    add_flag(app, "--wait", o.wait, "wait for the end and print the result as JSON");
    return &app;
}

CLI::App* add_doctor(CLI::App& root, Commands& to) {
    auto& app = *root.add_subcommand(
        "doctor", "Find what crashes and other programs left inconsistent, and mend it");
    auto& o = to.doctor;
    add_flag(app, "--repair", o.repair, "mend what can be mended; without it nothing is changed");
    add_flag(app, "--json", o.json, "as JSON");
    add_option(app, "--queue", o.queue, "only what concerns this queue, and the server");
    add_option(app, "--limit", o.limit, "examples of each finding");
    add_option(app, "--recheck", o.recheck,
               "pause before the second look at what is suspected: what moves has moved by then");
    return &app;
}

CLI::App* add_job_logs(CLI::App& job, JobLogsOptions& o) {
    auto& app = *job.add_subcommand(
        "logs", "Print what a job wrote, stdout to stdout and stderr to stderr");
    app.add_option("ID", o.id, "id of the job")->required();
    add_option(app, "--execution", o.execution,
               "id of the execution, or its beginning; default: the newest");
    named(app.add_flag("-f,--follow", o.follow,
                       "go on until the job has ended, through its retries; with --execution "
                       "until that one has"));
    add_option(app, "--stream", o.stream, "only what was written to one of them")
        ->check(CLI::IsMember({"both", "stdout", "stderr"}));
    add_flag(app, "--json", o.json, "a JSON object a line for each piece, all on stdout");
    add_flag(app, "--timestamps", o.timestamps, "with the time before each line");
    return &app;
}

void add_filter(CLI::App& app, JobActionOptions& o) {
    app.add_option("ID", o.ids, "ids of jobs");
    add_option(app, "--queue", o.queue, "instead of ids: the jobs of this queue");
    add_option(app, "--status", o.status,
               "… that are queued, started, finished, failed, deferred, scheduled or canceled");
    add_option(app, "--func", o.func, "… that call this function; * stands for any text");
    add_option(app, "--error", o.error, "… whose last error line has this text in it");
    add_option(app, "--limit", o.limit, "… at most so many; 0: all");
}

void add_action_flags(CLI::App& app, bool& dry_run, bool& json) {
    add_flag(app, "--dry-run", dry_run, "only tell what would be done");
    add_flag(app, "--json", json, "as JSON");
}

/// `job cancel`, `delete`, `requeue`, `stop`: what each is called, and what carries it out.
using JobCommand = std::pair<CLI::App*, int (*)(const CommonOptions&, const JobActionOptions&)>;
std::vector<JobCommand> add_job_actions(CLI::App& job, JobActionOptions& o) {
    auto* cancel = job.add_subcommand("cancel", "Keep jobs from being run; stop those that run");
    auto* remove = job.add_subcommand("delete", "Delete jobs with all that is kept of them");
    auto* requeue =
        job.add_subcommand("requeue", "Put failed, stopped or canceled jobs back on their queues");
    auto* stop = job.add_subcommand("stop", "Stop running jobs; they end as stopped");
    for (auto* app : {cancel, remove, requeue}) {
        add_filter(*app, o);
        add_action_flags(*app, o.dry_run, o.json);
    }
    for (auto* app : {cancel, remove})
        add_option(*app, "--dependents", o.dependents,
                   "jobs that wait for them: leave them deferred, enqueue them, or do the same to "
                   "them (cascade)")
            ->check(CLI::IsMember({"leave", "enqueue", "cascade"}));
    add_flag(*cancel, "--remove-from-dependencies", o.remove_from_dependencies,
             "no longer list them with the jobs that they wait for");
    add_flag(*requeue, "--at-front", o.at_front, "next to be run, instead of last");
    stop->add_option("ID", o.ids, "ids of jobs")->required();
    add_flag(*stop, "--no-wait", o.no_wait, "do not wait until they have stopped");
    add_flag(*stop, "--json", o.json, "as JSON");
    return {
        {cancel, cancel_jobs}, {remove, delete_jobs}, {requeue, requeue_jobs}, {stop, stop_jobs}};
}

using QueueCommand = std::pair<CLI::App*, int (*)(const CommonOptions&, const QueueActionOptions&)>;
std::vector<QueueCommand> add_queue_actions(CLI::App& queue, QueueActionOptions& o) {
    auto* empty = queue.add_subcommand("empty", "Delete the jobs that wait on a queue");
    auto* requeue = queue.add_subcommand("requeue-failed", "Put a queue's failed jobs back on it");
    auto* compact = queue.add_subcommand("compact", "Take ids without a job off a queue");
    for (auto* app : {empty, requeue, compact}) {
        app->add_option("NAME", o.queue, "name of the queue")->required();
        add_action_flags(*app, o.dry_run, o.json);
    }
    for (auto* app : {empty, requeue})
        add_option(*app, "--func", o.func, "only jobs that call this function; * is any text");
    add_option(*requeue, "--error", o.error, "only jobs whose last error line has this text");
    return {{empty, empty_queue}, {requeue, requeue_failed}, {compact, compact_queue}};
}

/// All flags of a worker but those that are shown as functions, or say nothing of what it does.
std::vector<Setting> settings_of(const CLI::App& app,
                                 const std::map<std::string, std::string>& sources) {
    std::vector<Setting> settings;
    for (const auto* option : app.get_options()) {
        if (option->get_lnames().empty()) continue;
        const std::string& name = option->get_lnames().front();
        constexpr std::string_view left_out[] = {"help", "check", "json", "command", "http"};
        if (std::ranges::find(left_out, name) != std::end(left_out)) continue;
        const std::string type = option->get_type_name();
        Setting setting{name, Setting::Kind::text, option->results(), "default"};
        if (option->get_expected_max() == 0) {
            setting.kind = Setting::Kind::boolean;
            setting.values = {option->count() > 0 && option->as<bool>() ? "true" : "false"};
        } else if (takes_list(*option)) {
            setting.kind = Setting::Kind::list;
        } else {
            if (option->count() == 0) setting.values = {option->get_default_str()};
            if (type.starts_with("SIZE")) setting.kind = Setting::Kind::size;
            if (type.starts_with("UINT")) setting.kind = Setting::Kind::number;
        }
        if (const auto source = sources.find(name); source != sources.end())
            setting.from = source->second;
        if (name == "queues" && app.get_option("QUEUE")->count() > 0) setting.from = "argument";
        settings.push_back(std::move(setting));
    }
    return settings;
}

/// Every command with its flags, one per line: what the completion scripts offer.
void list_commands(const CLI::App& app, const std::string& path, std::string& out) {
    for (const auto* command : subcommands(app)) {
        const std::string name =
            path.empty() ? command->get_name() : path + " " + command->get_name();
        out += name + ":";
        for (const auto* option : command->get_options()) {
            for (const auto& flag : option->get_lnames())
                out += " --" + flag;
        }
        for (const auto* child : subcommands(*command))
            out += " " + child->get_name();
        out += "\n";
        list_commands(*command, name, out);
    }
}

/// A completion script. Words are matched against the longest command that has been typed.
void print_completion(const CLI::App& root, const std::string& shell) {
    std::string table;
    list_commands(root, "", table);
    std::string commands;
    for (const auto* command : subcommands(root))
        commands += command->get_name() + " ";
    if (shell == "fish") {
        fmt::print("complete -c rqxx -f\n");
        fmt::print("complete -c rqxx -n __fish_use_subcommand -a '{}'\n", commands);
        for (std::size_t at = 0; at < table.size();) {
            const auto line = table.substr(at, table.find('\n', at) - at);
            at += line.size() + 1;
            const auto colon = line.find(':');
            const std::string name = line.substr(0, colon);
            fmt::print("complete -c rqxx -n '__fish_seen_subcommand_from {}' -a '{}'\n",
                       name.substr(name.rfind(' ') + 1), line.substr(colon + 1));
        }
        return;
    }
    if (shell == "zsh") fmt::print("autoload -U +X bashcompinit && bashcompinit\n");
    fmt::print(R"(_rqxx() {{
    local table='{}'
    local current="${{COMP_WORDS[COMP_CWORD]}}" path="" word words="{}"
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        local next="${{path:+$path }}$word"
        local found
        found=$(grep "^$next:" <<<"$table") && path="$next" && words="${{found#*:}}"
    done
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _rqxx rqxx
)",
               table, commands);
}

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

    auto* serve_app = add_serve(root, to);
    auto* worker_app = add_worker(root, to);
    auto* enqueue_app = add_enqueue(root, to);
    auto* info_app = root.add_subcommand("info", "Show queues and workers");
    add_flag(*info_app, "--json", to.info.json, "as JSON");
    add_option(*info_app, "--interval", to.info.interval, "show again every so many seconds")
        ->check(CLI::NonNegativeNumber);
    auto* job_app =
        root.add_subcommand("job", "Look at jobs, and act on them")->require_subcommand(1);
    auto* show_app = job_app->add_subcommand("show", "Show all that is known of jobs");
    show_app->add_option("ID", to.job_show.ids, "ids of jobs")->required();
    add_flag(*show_app, "--json", to.job_show.json, "as JSON");
    auto* logs_app = add_job_logs(*job_app, to.job_logs);
    auto* queue_app =
        root.add_subcommand("queue", "Look at queues, and act on them")->require_subcommand(1);
    auto* list_app =
        queue_app->add_subcommand("list", "Show the queues and how many jobs are where");
    add_flag(*list_app, "--json", to.queue_list.json, "as JSON");
    const auto job_actions = add_job_actions(*job_app, to.job_action);
    const auto queue_actions = add_queue_actions(*queue_app, to.queue_action);
    auto* cron_app =
        root.add_subcommand("cron", "Enqueue jobs on schedules, once however many of it run");
    cron_app->add_option("FILE", to.cron.file, "TOML file with a table for each schedule")
        ->required();
    add_flag(*cron_app, "--check", to.cron.check,
             "show the schedules with their next runs, and end");
    add_flag(*cron_app, "--json", to.cron.json, "with --check: as JSON");
    auto* bench_app =
        root.add_subcommand("bench", "Measure throughput and latency on this machine");
    add_option(*bench_app, "--jobs", to.bench.jobs, "jobs per measurement")
        ->check(CLI::Range(100, 10'000'000));
    add_option(*bench_app, "--repetitions", to.bench.repetitions, "of which the median is shown")
        ->check(CLI::Range(1, 100));
    add_option(*bench_app, "--concurrency", to.bench.concurrency, "jobs at once")
        ->check(CLI::Range(1, 1024));
    add_flag(*bench_app, "--json", to.bench.json, "as JSON");
    add_option(*bench_app, "--redis-server", to.bench.redis_server,
               "program of the private Redis used without --redis-url");
    auto* doctor_app = add_doctor(root, to);
    auto* completion_app = root.add_subcommand(
        "completion", "Print a completion script: source <(rqxx completion bash)");
    std::string shell = "bash";
    completion_app->add_option("shell", shell, "bash, zsh or fish")
        ->check(CLI::IsMember({"bash", "zsh", "fish"}));
    for (auto* app : {serve_app, worker_app, enqueue_app, info_app, show_app, logs_app, list_app,
                      cron_app, bench_app, doctor_app})
        add_common(*app, to.common);
    for (const auto& [app, run] : job_actions)
        add_common(*app, to.common);
    for (const auto& [app, run] : queue_actions)
        add_common(*app, to.common);

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
    if (*serve_app) return [&] { return serve(to.common, to.serve, make_application); };
    if (*worker_app) to.worker.settings = settings_of(*worker_app, to.worker.sources);
    if (*worker_app) return [&] { return work(to.common, to.worker, make_application); };
    if (*enqueue_app) return [&] { return enqueue(to.common, to.enqueue); };
    if (*info_app) return [&] { return info(to.common, to.info); };
    if (*show_app) return [&] { return show_jobs(to.common, to.job_show); };
    if (*logs_app) return [&] { return job_logs(to.common, to.job_logs); };
    for (const auto& [app, run] : job_actions)
        if (*app) return [&, run = run] { return run(to.common, to.job_action); };
    for (const auto& [app, run] : queue_actions)
        if (*app) return [&, run = run] { return run(to.common, to.queue_action); };
    if (*list_app) return [&] { return list_queues(to.common, to.queue_list); };
    if (*cron_app) return [&] { return cron(to.common, to.cron); };
    if (*doctor_app) return [&] { return doctor(to.common, to.doctor); };
    return [&] { return bench(to.common, to.bench); };
}

}  // namespace

namespace cli {

std::uint64_t size_option(const std::string& where, const std::string& text) {
    std::string bytes = text;
    if (const auto trouble = size_validator()(bytes); !trouble.empty())
        throw Error(Errc::usage, printable(fmt::format("{}: {}", where, trouble)));
    std::uint64_t size = 0;
    CLI::detail::lexical_cast(bytes, size);
    return size;
}

}  // namespace cli

int run_command_line(int argc, char** argv, const ApplicationFactory& make_application) {
    ::signal(SIGPIPE, SIG_IGN);
    register_scripts(lua::all());
    try {
        Commands commands;
        const auto run = parse(argc, argv, commands, make_application);
        ::malloc_trim(0);  // Parsing took more than an idle worker needs.
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
