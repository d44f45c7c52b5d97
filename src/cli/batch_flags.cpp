#include "cli/flags.hpp"

namespace rqxx::cli {

std::vector<Command> add_batch(CLI::App& root, const CommonOptions& common,
                               BatchCommandOptions& o) {
    auto& app =
        *root.add_subcommand("batch", "Look at batches, and act on them")->require_subcommand(1);
    auto* list = app.add_subcommand("list", "Show the newest batches");
    add_option(*list, "--limit", o.limit, "how many")->check(CLI::Range(1, 10000));
    auto* show = app.add_subcommand("show", "Show how a batch stands");
    add_flag(*show, "--follow", o.follow,
             "until it is complete; exit status 1 if not all finished");
    auto* cancel = app.add_subcommand("cancel", "Cancel the jobs of a batch that have not ended");
    auto* retry = app.add_subcommand("retry-failed",
                                     "Put a batch's failed and stopped jobs back on their queues");
    for (auto* one : {show, cancel, retry})
        one->add_option("ID", o.id, "id of the batch")->required();
    for (auto* any : {list, show, cancel, retry})
        add_flag(*any, "--json", o.json, "as JSON");
    return {{list, [&] { return list_batches(common, o); }},
            {show, [&] { return show_batch(common, o); }},
            {cancel, [&] { return cancel_batch(common, o); }},
            {retry, [&] { return retry_batch(common, o); }}};
}

}  // namespace rqxx::cli
