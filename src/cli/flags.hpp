#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "cli/commands.hpp"

/// How the settings of the commands are bound to flags, environment and configuration file.
///
/// Each group of commands has a file, `<group>_flags.cpp`, with all that CLI11 needs to know of
/// them.
namespace rqxx::cli {

/// A command as it is typed, and what carries it out once the line has been read.
struct Command {
    CLI::App* app = nullptr;
    std::function<int()> run;
};

// The settings and `common` outlive the commands. Their order is that of the help.
Command add_serve(CLI::App& root, const CommonOptions& common, ServeOptions& o,
                  const ApplicationFactory& make_application);
Command add_worker(CLI::App& root, const CommonOptions& common, WorkerCommandOptions& o,
                   const ApplicationFactory& make_application);
Command add_enqueue(CLI::App& root, const CommonOptions& common, EnqueueCommandOptions& o);
Command add_info(CLI::App& root, const CommonOptions& common, InfoOptions& o);
std::vector<Command> add_job(CLI::App& root, const CommonOptions& common, JobOptions& o);
std::vector<Command> add_queue(CLI::App& root, const CommonOptions& common, QueueOptions& o);
/// The commands of `queue` that say how its jobs are taken.
std::vector<Command> add_queue_rules(CLI::App& queue, const CommonOptions& common, QueueOptions& o);
std::vector<Command> add_function(CLI::App& root, const CommonOptions& common, PauseOptions& o);
std::vector<Command> add_limit(CLI::App& root, const CommonOptions& common, LimitOptions& o);
std::vector<Command> add_suspension(CLI::App& root, const CommonOptions& common, SuspendOptions& o);
std::vector<Command> add_batch(CLI::App& root, const CommonOptions& common, BatchCommandOptions& o);
Command add_cron(CLI::App& root, const CommonOptions& common, CronCommandOptions& o);
std::vector<Command> add_token(CLI::App& root, const CommonOptions& common, TokenOptions& o);
Command add_bench(CLI::App& root, const CommonOptions& common, BenchCommandOptions& o);
Command add_top(CLI::App& root, const CommonOptions& common, TopOptions& o);
Command add_doctor(CLI::App& root, const CommonOptions& common, DoctorCommandOptions& o);

/// Every flag has its environment variable, and its default in the help.
CLI::Option* named(CLI::Option* option);

template <class T>
CLI::Option* add_option(CLI::App& app, const std::string& flag, T& target,
                        const std::string& help) {
    return named(app.add_option(flag, target, help)->capture_default_str());
}

CLI::Option* add_flag(CLI::App& app, const std::string& flag, bool& target,
                      const std::string& help);
/// Bytes, or with a unit such as 512MB.
CLI::Option* add_size(CLI::App& app, const std::string& flag, std::uint64_t& target,
                      const std::string& help);

/// What all commands have, after their own.
void add_common(CLI::App& app, CommonOptions& common);
void add_webhooks(CLI::App& app, WebhookSettings& o);
void add_action_flags(CLI::App& app, bool& dry_run, bool& json);

[[nodiscard]] std::vector<const CLI::App*> subcommands(const CLI::App& app);
[[nodiscard]] bool takes_list(const CLI::Option& option);

/// A completion script for bash, zsh or fish, to stdout. Words are matched against the longest
/// command that has been typed.
void print_completion(const CLI::App& root, const std::string& shell);

}  // namespace rqxx::cli
