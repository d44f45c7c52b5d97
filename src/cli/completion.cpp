#include "cli/flags.hpp"

#include <fmt/format.h>

namespace rqxx::cli {
namespace {

/// Every command with its flags, one per line: what the completion scripts offer.
void list_commands(const CLI::App& app, const std::string& path, std::string& out) {
    for (const auto* command : subcommands(app)) {
        const std::string name =
            path.empty() ? command->get_name() : path + " " + command->get_name();
        out += name + ":";
        for (const auto* option : command->get_options()) {
            for (const auto& flag : option->get_lnames())
                out += " --" + flag;
        }
        for (const auto* child : subcommands(*command))
            out += " " + child->get_name();
        out += "\n";
        list_commands(*command, name, out);
    }
}

}  // namespace

void print_completion(const CLI::App& root, const std::string& shell) {
    std::string table;
    list_commands(root, "", table);
    std::string commands;
    for (const auto* command : subcommands(root))
        commands += command->get_name() + " ";
    if (shell == "fish") {
        fmt::print("complete -c rqxx -f\n");
        fmt::print("complete -c rqxx -n __fish_use_subcommand -a '{}'\n", commands);
        for (std::size_t at = 0; at < table.size();) {
            const auto line = table.substr(at, table.find('\n', at) - at);
            at += line.size() + 1;
            const auto colon = line.find(':');
            const std::string name = line.substr(0, colon);
            fmt::print("complete -c rqxx -n '__fish_seen_subcommand_from {}' -a '{}'\n",
                       name.substr(name.rfind(' ') + 1), line.substr(colon + 1));
        }
        return;
    }
    if (shell == "zsh") fmt::print("autoload -U +X bashcompinit && bashcompinit\n");
    fmt::print(R"(_rqxx() {{
    local table='{}'
    local current="${{COMP_WORDS[COMP_CWORD]}}" path="" word words="{}"
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        local next="${{path:+$path }}$word"
        local found
        found=$(grep "^$next:" <<<"$table") && path="$next" && words="${{found#*:}}"
    done
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _rqxx rqxx
)",
               table, commands);
}

}  // namespace rqxx::cli
