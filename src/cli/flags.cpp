#include "cli/flags.hpp"

#include <fmt/format.h>

#include <cctype>
#include <cstdint>
#include <rqxx/error.hpp>

namespace rqxx::cli {
namespace {

std::string environment_name(std::string flag) {
    std::string name = "RQXX_";
    for (char c : flag.substr(2))
        name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return name;
}

/// Makes bytes of what may have a unit, where KB is 1024.
CLI::Validator size_validator() {
    return {[](std::string& text) {
                const std::string given = text.substr(0, 40);
                try {
                    std::uint64_t size = 0;
                    if (!given.starts_with('-') && CLI::AsSizeValue(false)(text).empty() &&
                        CLI::detail::lexical_cast(text, size))
                        return std::string();
                } catch (const CLI::Error&) {
                    // As below.
                }
                return fmt::format("\"{}\" is not a size like 1048576, 512MB or 2GB", given);
            },
            ""};
}

}  // namespace

CLI::Option* named(CLI::Option* option) {
    const std::string name =
        option->get_lnames().empty() ? "" : "--" + option->get_lnames().front();
    if (!name.empty()) option->envname(environment_name(name));
    return option;
}

CLI::Option* add_size(CLI::App& app, const std::string& flag, std::uint64_t& target,
                      const std::string& help) {
    return add_option(app, flag, target, help)->transform(size_validator())->type_name("SIZE");
}

CLI::Option* add_flag(CLI::App& app, const std::string& flag, bool& target,
                      const std::string& help) {
    return named(app.add_flag(flag, target, help));
}

void add_common(CLI::App& app, CommonOptions& common) {
    app.option_defaults()->group("Common");
    add_option(app, "--redis-url", common.redis_url,
               "redis://, rediss:// or unix:// URL. Default: the Redis of `rqxx serve` in the data "
               "directory, "
               "else redis://localhost:6379/0");
    add_option(app, "--redis-ca-file", common.redis_ca_file,
               "CA certificates for rediss://; default: the system's")
        ->check(CLI::ExistingFile);
    add_option(app, "--data-dir", common.data_dir, "where rqxx keeps its files");
    add_option(app, "--log-level", common.log_level, "what is logged to stderr")
        ->check(CLI::IsMember({"debug", "info", "warning", "error"}));
    add_option(app, "--log-format", common.log_format, "how")
        ->check(CLI::IsMember({"text", "json"}));
    app.option_defaults()->group("Options");
    add_option(app, "--config", common.config,
               "TOML file with the same names as the flags, also in a table [COMMAND]");
}

void add_webhooks(CLI::App& app, WebhookSettings& o) {
    add_flag(app, "--no-webhooks", o.off, "leave webhooks of ended jobs to other processes");
    add_option(app, "--webhook-secret-file", o.secret_file,
               "file with a secret per line that webhooks are signed with; or RQXX_WEBHOOK_SECRET")
        ->check(CLI::ExistingFile);
}

void add_action_flags(CLI::App& app, bool& dry_run, bool& json) {
    add_flag(app, "--dry-run", dry_run, "only tell what would be done");
    add_flag(app, "--json", json, "as JSON");
}

std::vector<const CLI::App*> subcommands(const CLI::App& app) {
    return app.get_subcommands([](const CLI::App*) { return true; });
}

bool takes_list(const CLI::Option& option) {
    return option.get_expected_max() > 1;
}

std::uint64_t size_option(const std::string& where, const std::string& text) {
    std::string bytes = text;
    if (const auto trouble = size_validator()(bytes); !trouble.empty())
        throw Error(Errc::usage, printable(fmt::format("{}: {}", where, trouble)));
    std::uint64_t size = 0;
    CLI::detail::lexical_cast(bytes, size);
    return size;
}

}  // namespace rqxx::cli
