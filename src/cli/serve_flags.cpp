#include "cli/flags.hpp"

namespace rqxx::cli {

Command add_serve(CLI::App& root, const CommonOptions& common, ServeOptions& o,
                  const ApplicationFactory& make_application) {
    auto& app = *root.add_subcommand(
        "serve",
        "Run the server: API, page, scheduler, worker, and a private Redis unless one is named");
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
    add_flag(app, "--no-cron", o.no_cron,
             "do not fire the cron jobs that are kept in Redis (POST /api/v1/cron)");
    add_flag(app, "--no-maintenance", o.no_maintenance,
             "do not recover jobs of dead workers, nor put queues in order");
    add_flag(app, "--demo", o.demo, "install sample sessions and evaluate one");
    add_option(app, "--concurrency", o.concurrency, "jobs at once")->check(CLI::Range(1, 1024));
    add_option(app, "--packages", o.packages,
               "folder of merge-request packages; default: mr_packages in the data directory");
    add_option(app, "--allow-func", o.allow_func,
               "function that may be enqueued over HTTP, such as 'app.tasks.*'; may be repeated; "
               "default: any")
        ->allow_extra_args(false);
    add_flag(app, "--no-enqueue", o.no_enqueue, "switch POST /api/v1/jobs off");
    add_flag(app, "--no-legacy-evaluate", o.no_legacy_evaluate,
             "switch GET /api/sessions/{id}/evaluate off");
    add_flag(app, "--no-access-log", o.no_access_log, "do not log requests");
    add_option(app, "--grace", o.grace, "how long running jobs may take to end at shutdown");
    add_option(app, "--redis-server", o.redis_server, "program of the embedded Redis");
    add_webhooks(app, o.webhooks);
    return {&app, [&] { return serve(common, o, make_application); }};
}

}  // namespace rqxx::cli
