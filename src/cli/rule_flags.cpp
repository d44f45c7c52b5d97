#include "cli/flags.hpp"

namespace rqxx::cli {
namespace {

/// `pause`, `resume` and `drain` of a queue or a function.
std::vector<Command> add_pauses(CLI::App& app, const CommonOptions& common, PauseOptions& o,
                                const std::string& what,
                                int (*pause)(const CommonOptions&, const PauseOptions&),
                                int (*resume)(const CommonOptions&, const PauseOptions&),
                                int (*drain)(const CommonOptions&, const PauseOptions&)) {
    auto* pausing = app.add_subcommand(
        "pause", "Start no more jobs of a " + what + " (stock RQ workers know nothing of it)");
    auto* resuming = app.add_subcommand("resume", "Go on with a " + what + " that was paused");
    auto* draining = app.add_subcommand(
        "drain", "Pause a " + what + ", and wait until its running jobs have ended");
    for (auto* command : {pausing, resuming, draining}) {
        command->add_option("NAME", o.name, "name of the " + what)->required();
        add_flag(*command, "--json", o.json, "as JSON");
    }
    add_option(*draining, "--wait", o.wait, "how long; then the exit status is 1");
    return {{pausing, [&, pause] { return pause(common, o); }},
            {resuming, [&, resume] { return resume(common, o); }},
            {draining, [&, drain] { return drain(common, o); }}};
}

}  // namespace

std::vector<Command> add_queue_rules(CLI::App& queue, const CommonOptions& common,
                                     QueueOptions& o) {
    auto commands =
        add_pauses(queue, common, o.pause, "queue", pause_queue, resume_queue, drain_queue);
    auto* fair = queue.add_subcommand(
        "fair", "Let the jobs of a queue take turns by a key, such as args[0] or meta.tenant");
    fair->add_option("NAME", o.fair.queue, "name of the queue; * stands for any text")->required();
    fair->add_option("KEY", o.fair.key,
                     "args[N], kwargs.NAME, meta.NAME, function; deeper: kwargs.user.id");
    add_flag(*fair, "--off", o.fair.off, "serve it in the order of its jobs again");
    commands.push_back({fair, [&] { return share_queue(common, o.fair); }});
    return commands;
}

std::vector<Command> add_function(CLI::App& root, const CommonOptions& common, PauseOptions& o) {
    auto& app = *root.add_subcommand("function", "Pause and resume the jobs of a function")
                     ->require_subcommand(1);
    return add_pauses(app, common, o, "function", pause_function, resume_function, drain_function);
}

std::vector<Command> add_limit(CLI::App& root, const CommonOptions& common, LimitOptions& o) {
    auto& app =
        *root.add_subcommand("limit", "Limit how many jobs start or run, across all workers")
             ->require_subcommand(1);
    auto* set = app.add_subcommand("set", "Add or change a limit; it holds at once");
    set->add_option("NAME", o.name, "its name: letters, digits, _, . and -")->required();
    add_option(*set, "--kind", o.kind,
               "token-bucket, leaky-bucket, fixed-window, sliding-window or concurrency")
        ->required();
    add_option(*set, "--limit", o.limit, "points in each period; with concurrency: at once")
        ->required();
    add_option(*set, "--per", o.per, "the period, such as 500ms, 1s, 10m");
    add_option(*set, "--burst", o.burst, "of a token bucket: points at once; 0: as --limit");
    add_option(*set, "--queue", o.queue, "only jobs of this queue; * stands for any text");
    add_option(*set, "--function", o.function, "only jobs of this function; * stands for any text");
    add_option(
        *set, "--key", o.key,
        "each value has a limit of its own: args[N], kwargs.NAME, meta.NAME, queue, function");
    add_option(*set, "--points", o.points, "what a job counts: a number, or as --key");
    add_option(*set, "--scope", o.scope,
               "with concurrency: all workers together, or each by itself")
        ->check(CLI::IsMember({"cluster", "worker"}));
    auto* list = app.add_subcommand("list", "Show limits, pauses and shared queues");
    add_flag(*list, "--json", o.json, "as JSON, with each limiter's state");
    auto* remove = app.add_subcommand("remove", "Take a limit away");
    remove->add_option("NAME", o.name, "name of the limit")->required();
    auto* push_back =
        app.add_subcommand("push-back", "Let nothing pass a limit for a while, as after a 429");
    push_back->add_option("NAME", o.name, "name of the limit; of one key: NAME:KEY")->required();
    push_back->add_option("FOR", o.delay, "how long, such as 30s; 0: no longer")->required();
    return {{set, [&] { return set_limit(common, o); }},
            {list, [&] { return list_limits(common, o); }},
            {remove, [&] { return remove_limit(common, o); }},
            {push_back, [&] { return push_back_limit(common, o); }}};
}

std::vector<Command> add_suspension(CLI::App& root, const CommonOptions& common,
                                    SuspendOptions& o) {
    auto* suspending =
        root.add_subcommand("suspend", "Let no worker start a job, RQ's workers included");
    add_option(*suspending, "--duration", o.duration, "only for so long, such as 10m");
    auto* resuming = root.add_subcommand("resume", "Let suspended workers go on");
    return {{suspending, [&] { return suspend(common, o); }},
            {resuming, [&] { return resume(common); }}};
}

}  // namespace rqxx::cli
