#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <rqxx/json.hpp>

#include "cli/commands.hpp"
#include "cli/flags.hpp"
#include "ops/access.hpp"

namespace rqxx::cli {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

}  // namespace

std::vector<Command> add_token(CLI::App& root, const CommonOptions& common, TokenOptions& o) {
    auto& app = *root.add_subcommand("token", "Say who may use the server's API and page")
                     ->require_subcommand(1);
    auto* create = app.add_subcommand("create", "Make a token and print it: nobody tells it again");
    create->add_option("NAME", o.name, "whose it is")->required();
    add_option(*create, "--scope", o.scope, "read, operate or admin; each includes those before it")
        ->check(CLI::IsMember({"read", "operate", "admin"}));
    add_option(*create, "--queue", o.queues,
               "only what is of this queue, * stands for any text; may be repeated; default: all")
        ->allow_extra_args(false);
    add_option(*create, "--expires-in", o.expires_in, "how long it holds, such as 30d");
    add_flag(*create, "--redact", o.redact,
             "hide arguments, results, meta data, descriptions and output of jobs");
    add_flag(*create, "--json", o.json, "as JSON");
    auto* list = app.add_subcommand("list", "Show tokens, without their secrets");
    add_flag(*list, "--json", o.json, "as JSON");
    auto* revoke =
        app.add_subcommand("revoke", "Take a token and its sessions out of use within 2 s");
    revoke->add_option("ID", o.id, "id of the token, as `token list` shows it")->required();
    return {{create, [&] { return create_token(common, o); }},
            {list, [&] { return list_tokens(common, o); }},
            {revoke, [&] { return revoke_token(common, o); }}};
}

int create_token(const CommonOptions& common, const TokenOptions& options) {
    std::optional<std::chrono::seconds> expires_in;
    if (!options.expires_in.empty())
        expires_in = duration_option("--expires-in", options.expires_in);
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        ops::AccessToken wanted;
        wanted.name = options.name;
        wanted.scope = options.scope;
        if (!options.queues.empty()) wanted.queues = options.queues;
        wanted.redact = options.redact;
        const auto made = co_await ops::create_access_token(redis, std::move(wanted), expires_in);
        co_await note_action(redis, "token.create", made.token.id,
                             to_text(ops::to_json(made.token)));
        if (options.json) {
            json::object out = ops::to_json(made.token);
            out["token"] = made.text;
            fmt::print("{}\n", to_text(out));
        } else {
            fmt::print("{}\n", made.text);
        }
        co_return 0;
    });
}

int list_tokens(const CommonOptions& common, const TokenOptions& options) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        const auto tokens = co_await ops::list_access_tokens(redis);
        if (options.json) {
            json::array out;
            for (const auto& token : tokens)
                out.push_back(ops::to_json(token));
            fmt::print("{}\n", to_text(out));
            co_return 0;
        }
        if (tokens.empty()) {
            fmt::print("There are no tokens. Make one with: rqxx token create NAME\n");
            co_return 0;
        }
        Table table({"id", "name", "scope", "queues", "redact", "created", "expires"});
        for (const auto& token : tokens)
            table.add({token.id, printable(token.name), token.scope,
                       printable(fmt::format("{}", fmt::join(token.queues, " "))),
                       token.redact ? "yes" : "no", format_utc(token.created_at),
                       token.expires_at ? format_utc(*token.expires_at) : "never"});
        table.print(stdout);
        co_return 0;
    });
}

int revoke_token(const CommonOptions& common, const TokenOptions& options) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        if (!co_await ops::revoke_access_token(redis, options.id))
            throw Error(Errc::not_found,
                        fmt::format("there is no token with the id {}", printable(options.id)));
        co_await note_action(redis, "token.revoke", options.id);
        fmt::print("token {} is revoked\n", options.id);
        co_return 0;
    });
}

}  // namespace rqxx::cli
