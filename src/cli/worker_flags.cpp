#include "cli/flags.hpp"

#include <algorithm>

namespace rqxx::cli {
namespace {

/// All flags of a worker but those that are shown as functions, or say nothing of what it does.
std::vector<Setting> settings_of(const CLI::App& app,
                                 const std::map<std::string, std::string>& sources) {
    std::vector<Setting> settings;
    for (const auto* option : app.get_options()) {
        if (option->get_lnames().empty()) continue;
        const std::string& name = option->get_lnames().front();
        constexpr std::string_view left_out[] = {"help",    "check", "json",
                                                 "command", "http",  "aggregate"};
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

}  // namespace

Command add_worker(CLI::App& root, const CommonOptions& common, WorkerCommandOptions& o,
                   const ApplicationFactory& make_application) {
    auto& app = *root.add_subcommand("worker", "Run jobs");
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
               "order of the queues: strict (as listed), weighted, round-robin or random");
    add_option(
        app, "--weights", o.weights,
        "with --strategy weighted: jobs of each queue in turn, such as high:6,default:3,low:1")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->type_name("QUEUE:N,…");
    add_option(
        app, "--ageing", o.ageing,
        "a job that has waited for so long is served as if its queue stood one place higher; "
        "0: never");
    add_option(app, "--queue-slots", o.queue_slots,
               "how many jobs of a queue may run here at once; may be repeated")
        ->allow_extra_args(false)
        ->type_name("QUEUE=N");
    add_option(app, "--fair-by", o.fair_by,
               "let jobs take turns by a key such as args[0]; of one queue: QUEUE=KEY; for all "
               "workers, as rqxx queue fair; may be repeated")
        ->allow_extra_args(false)
        ->type_name("[QUEUE=]KEY");
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
    named(app.add_option("--aggregate", o.aggregate,
                         "FUNC=SIZE,WAIT: call a Python function with a list of up to SIZE jobs, "
                         "the first of which has waited for others for at most WAIT (50,500ms or "
                         "50,2s); may be repeated")
              ->type_name("FUNC=SIZE,WAIT")
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
    named(app.add_option("--metrics-port", o.metrics_port,
                         "serve /metrics of this process there; 0 picks a free port"));
    add_option(app, "--metrics-host", o.metrics_host,
               "address for it; others than loopback need a token");
    add_option(app, "--metrics-token-file", o.metrics_token_file,
               "file with the bearer token that a scrape must send")
        ->check(CLI::ExistingFile);
    add_flag(app, "--metrics-functions", o.metrics_functions,
             "also count the runs of each function there");
    add_webhooks(app, o.webhooks);
    app.footer(
        "Lists in the environment: queues and names separated by commas or blanks, folders of "
        "RQXX_PATH by colons;\nRQXX_COMMAND and RQXX_HTTP hold one value. How a function runs can "
        "also stand in the file of --config,\nin a table [functions.\"NAME\"]: see "
        "docs/executors.md.");
    app.callback([&] { o.settings = settings_of(app, o.sources); });
    return {&app, [&] { return work(common, o, make_application); }};
}

}  // namespace rqxx::cli
