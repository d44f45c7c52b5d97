#include "cli/flags.hpp"

namespace rqxx::cli {

Command add_enqueue(CLI::App& root, const CommonOptions& common, EnqueueCommandOptions& o) {
    auto& app = *root.add_subcommand("enqueue", "Put a job on a queue and print its id");
    app.add_option("FUNC", o.function, "dotted path of the function; not with --batch");
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
               "callback, NAME or NAME@DURATION with its time limit (default 60s); with --batch as "
               "--on-complete, when all jobs have finished");
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
    add_option(app, "--rate-limit", o.rate_limit,
               "at most N jobs with this key are queued or running; the others wait (RQ 3.0)")
        ->type_name("KEY=N");
    add_option(app, "--meta", o.meta, "a JSON object kept with the job");
    add_option(app, "--job-id", o.job_id, "id of the job; default: a new UUID");
    add_option(app, "--description", o.description, "shown by monitors; default: the call");
    add_option(app, "--serializer", o.serializer, "how the arguments are stored")
        ->check(CLI::IsMember({"pickle", "json"}));
    add_flag(app, "--json-args", o.json_args, "every argument is JSON");
    add_flag(app, "--at-front", o.at_front, "next to be run, instead of last");
    add_flag(app, "--unique", o.unique, "refuse when a job with this --job-id exists");
    add_flag(app, "--unique-call", o.unique_call,
             "refuse while a job of the same --dedup-key waits or runs");
    add_option(app, "--throttle", o.throttle,
               "refuse within so long after the last job of the same --dedup-key");
    add_option(
        app, "--debounce", o.debounce,
        "start when no job of the same --dedup-key came for so long; only the last one runs");
    add_option(app, "--debounce-max", o.debounce_max,
               "… but so long after the first at the latest");
    add_flag(app, "--replace", o.replace,
             "take the place of a waiting job of the same --dedup-key");
    add_option(app, "--dedup-key", o.dedup_key,
               "which jobs are the same; default: those of equal function and arguments");
    add_flag(app, "--json", o.json, "print id, status and what became of duplicates as JSON");
    add_flag(app, "--wait", o.wait, "wait for the end and print the result as JSON");
    add_option(app, "--batch", o.batch,
               "enqueue the jobs of this file as a batch and print its id; a JSON object per line, "
               "- for stdin");
    add_flag(app, "--partial", o.partial, "with --batch: take the good lines where some are bad");
    add_option(app, "--batch-name", o.batch_name, "id of the batch; default: a new UUID");
    add_option(app, "--parent", o.parent, "batch that is not complete before this one is");
    add_option(app, "--on-complete", o.on_complete,
               "function that is enqueued with the batch's id when all its jobs have ended");
    add_option(app, "--on-first-failure", o.on_first_failure,
               "the same when the first job has failed");
    add_option(app, "--follow-queue", o.follow_queue,
               "queue of these functions; default: that of the jobs");
    return {&app, [&] { return o.batch.empty() ? enqueue(common, o) : enqueue_batch(common, o); }};
}

}  // namespace rqxx::cli
