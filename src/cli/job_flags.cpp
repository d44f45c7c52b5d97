#include "cli/flags.hpp"

#include <algorithm>
#include <iterator>

namespace rqxx::cli {
namespace {

void add_filter(CLI::App& app, JobActionOptions& o) {
    app.add_option("ID", o.ids, "ids of jobs");
    add_option(app, "--queue", o.queue, "instead of ids: the jobs of this queue");
    add_option(app, "--status", o.status,
               "… that are queued, started, finished, failed, deferred, scheduled or canceled");
    add_option(app, "--func", o.func, "… that call this function; * stands for any text");
    add_option(app, "--error", o.error, "… whose last error line has this text in it");
    add_option(app, "--limit", o.limit, "… at most so many; 0: all");
}

Command add_logs(CLI::App& job, const CommonOptions& common, JobLogsOptions& o) {
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
    return {&app, [&] { return job_logs(common, o); }};
}

/// `job cancel`, `delete`, `requeue`, `stop`.
std::vector<Command> add_actions(CLI::App& job, const CommonOptions& common, JobActionOptions& o) {
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
    return {{cancel, [&] { return cancel_jobs(common, o); }},
            {remove, [&] { return delete_jobs(common, o); }},
            {requeue, [&] { return requeue_jobs(common, o); }},
            {stop, [&] { return stop_jobs(common, o); }}};
}

}  // namespace

std::vector<Command> add_job(CLI::App& root, const CommonOptions& common, JobOptions& o) {
    auto& app = *root.add_subcommand("job", "Look at jobs, and act on them")->require_subcommand(1);
    auto* show = app.add_subcommand("show", "Show all that is known of jobs");
    show->add_option("ID", o.show.ids, "ids of jobs")->required();
    add_flag(*show, "--json", o.show.json, "as JSON");
    std::vector<Command> commands{{show, [&] { return show_jobs(common, o.show); }}};
    auto* why = app.add_subcommand("why", "Say why a job does not run just now");
    why->add_option("ID", o.why.id, "id of the job")->required();
    add_flag(*why, "--json", o.why.json, "as JSON");
    commands.push_back({why, [&] { return explain_job(common, o.why); }});
    commands.push_back(add_logs(app, common, o.logs));
    std::ranges::move(add_actions(app, common, o.action), std::back_inserter(commands));
    return commands;
}

}  // namespace rqxx::cli
