#include <algorithm>
#include <iterator>

#include "cli/flags.hpp"

namespace rqxx::cli {

std::vector<Command> add_queue(CLI::App& root, const CommonOptions& common, QueueOptions& o) {
    auto& app =
        *root.add_subcommand("queue", "Look at queues, and act on them")->require_subcommand(1);
    auto* list = app.add_subcommand("list", "Show the queues and how many jobs are where");
    add_flag(*list, "--json", o.list.json, "as JSON");
    auto* empty = app.add_subcommand("empty", "Delete the jobs that wait on a queue");
    auto* requeue = app.add_subcommand("requeue-failed", "Put a queue's failed jobs back on it");
    auto* compact = app.add_subcommand("compact", "Take ids without a job off a queue");
    for (auto* action : {empty, requeue, compact}) {
        action->add_option("NAME", o.action.queue, "name of the queue")->required();
        add_action_flags(*action, o.action.dry_run, o.action.json);
    }
    for (auto* action : {empty, requeue})
        add_option(*action, "--func", o.action.func,
                   "only jobs that call this function; * is any text");
    add_option(*requeue, "--error", o.action.error,
               "only jobs whose last error line has this text");
    std::vector<Command> commands{{list, [&] { return list_queues(common, o.list); }},
                                  {empty, [&] { return empty_queue(common, o.action); }},
                                  {requeue, [&] { return requeue_failed(common, o.action); }},
                                  {compact, [&] { return compact_queue(common, o.action); }}};
    std::ranges::move(add_queue_rules(app, common, o), std::back_inserter(commands));
    return commands;
}

}  // namespace rqxx::cli
