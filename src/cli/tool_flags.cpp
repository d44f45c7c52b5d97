#include "cli/flags.hpp"

namespace rqxx::cli {

Command add_info(CLI::App& root, const CommonOptions& common, InfoOptions& o) {
    auto& app = *root.add_subcommand("info", "Show queues and workers");
    add_flag(app, "--json", o.json, "as JSON");
    add_option(app, "--interval", o.interval, "show again every so many seconds")
        ->check(CLI::NonNegativeNumber);
    return {&app, [&] { return info(common, o); }};
}

Command add_cron(CLI::App& root, const CommonOptions& common, CronCommandOptions& o) {
    auto& app =
        *root.add_subcommand("cron", "Enqueue jobs on schedules, once however many of it run");
    app.add_option("FILE", o.file, "TOML file with a table for each schedule")->required();
    add_flag(app, "--check", o.check, "show the schedules with their next runs, and end");
    add_flag(app, "--json", o.json, "with --check: as JSON");
    return {&app, [&] { return cron(common, o); }};
}

Command add_bench(CLI::App& root, const CommonOptions& common, BenchCommandOptions& o) {
    auto& app = *root.add_subcommand("bench", "Measure throughput and latency on this machine");
    add_option(app, "--jobs", o.jobs, "jobs per measurement")->check(CLI::Range(100, 10'000'000));
    add_option(app, "--repetitions", o.repetitions, "of which the median is shown")
        ->check(CLI::Range(1, 100));
    add_option(app, "--concurrency", o.concurrency, "jobs at once")->check(CLI::Range(1, 1024));
    add_flag(app, "--json", o.json, "as JSON");
    add_option(app, "--redis-server", o.redis_server,
               "program of the private Redis used without --redis-url");
    return {&app, [&] { return bench(common, o); }};
}

Command add_top(CLI::App& root, const CommonOptions& common, TopOptions& o) {
    auto& app = *root.add_subcommand("top", "Show what is going on, live, in the terminal");
    add_option(app, "--url", o.url,
               "server whose API is asked; default: http://127.0.0.1:8000, or Redis itself with "
               "--redis-url");
    add_option(app, "--token-file", o.token_file,
               "file that holds the server's token; or RQXX_TOKEN")
        ->check(CLI::ExistingFile);
    add_option(app, "--interval", o.interval, "seconds between looks")
        ->check(CLI::Range(0.1, 3600.0));
    add_flag(app, "--once", o.once, "print it once and end, as where there is no terminal");
    add_flag(app, "--no-color", o.no_color, "no colours, as with NO_COLOR");
    return {&app, [&] { return top(common, o); }};
}

Command add_doctor(CLI::App& root, const CommonOptions& common, DoctorCommandOptions& o) {
    auto& app = *root.add_subcommand(
        "doctor", "Find what crashes and other programs left inconsistent, and mend it");
    add_flag(app, "--repair", o.repair, "mend what can be mended; without it nothing is changed");
    add_flag(app, "--json", o.json, "as JSON");
    add_option(app, "--queue", o.queue, "only what concerns this queue, and the server");
    add_option(app, "--limit", o.limit, "examples of each finding");
    add_option(app, "--recheck", o.recheck,
               "pause before the second look at what is suspected: what moves has moved by then");
    return {&app, [&] { return doctor(common, o); }};
}

}  // namespace rqxx::cli
