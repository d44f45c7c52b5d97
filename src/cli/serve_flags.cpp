#include "cli/flags.hpp"

namespace rqxx::cli {

Command add_serve(CLI::App& root, const CommonOptions& common, ServeOptions& o,
                  const ApplicationFactory& make_application) {
    auto& app = *root.add_subcommand(
        "serve",
        "Run the server: API, page, scheduler, worker, and a private Redis unless one is named");
    add_option(app, "--host", o.host,
               "address to listen on; others than loopback need --auth or a token");
    add_option(app, "--port", o.port, "port to listen on; 0 picks a free one");
    add_option(app, "--token", o.token,
               "an administrator's token (visible in the process list: prefer a file); as --auth");
    add_option(app, "--token-file", o.token_file, "file that holds that token")
        ->check(CLI::ExistingFile);
    add_flag(app, "--auth", o.auth,
             "let nobody in without a token of `rqxx token create`, or a session begun with one");
    add_flag(app, "--read-only", o.read_only,
             "change nothing in Redis, whoever asks; runs no worker, scheduler or maintenance");
    add_option(app, "--redact", o.redact,
               "hide values under this name in arguments, results and meta data, such as "
               "'*password*'; may be repeated")
        ->allow_extra_args(false);
    add_flag(app, "--redact-all", o.redact_all,
             "hide all arguments, results, meta data, descriptions and output of jobs");
    add_option(app, "--tls-cert", o.tls_cert,
               "PEM file of the certificate and its chain: the port speaks TLS; read again when it "
               "changes")
        ->check(CLI::ExistingFile);
    add_option(app, "--tls-key", o.tls_key, "PEM file of the certificate's key")
        ->check(CLI::ExistingFile);
    add_option(app, "--path-prefix", o.path_prefix, "where a proxy has this server, such as /rqxx");
    add_flag(app, "--trust-proxy", o.trust_proxy,
             "believe X-Forwarded-For and X-Forwarded-Proto: a proxy in front sets them");
    add_flag(app, "--no-worker", o.no_worker, "do not run jobs in this process");
    add_flag(app, "--no-sampler", o.no_sampler,
             "do not count what stock RQ workers end, nor keep history for charts");
    add_flag(app, "--no-scheduler", o.no_scheduler,
             "leave jobs that were enqueued for later to other schedulers");
    add_flag(app, "--no-cron", o.no_cron,
             "do not fire the cron jobs that are kept in Redis (POST /api/v1/cron)");
    add_flag(app, "--no-maintenance", o.no_maintenance,
             "do not recover jobs of dead workers, nor put queues in order");
    add_flag(app, "--no-index", o.no_index,
             "keep no index of jobs in the data directory: no lists, no search, no failures by "
             "group");
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
    add_flag(app, "--metrics-functions", o.metrics_functions,
             "also count, in /metrics, the runs of each function in this process");
    add_flag(app, "--metrics-rq-exporter", o.metrics_rq_exporter,
             "also show /metrics under the names of rq-exporter");
    add_option(app, "--grace", o.grace, "how long running jobs may take to end at shutdown");
    add_option(app, "--redis-server", o.redis_server, "program of the embedded Redis");
    add_webhooks(app, o.webhooks);
    return {&app, [&] { return serve(common, o, make_application); }};
}

}  // namespace rqxx::cli
