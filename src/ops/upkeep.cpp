#include "ops/upkeep.hpp"

#include <fmt/format.h>

#include "ops/batch_actions.hpp"
#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"

namespace rqxx::ops {

std::string abandoned_exc_string() {
    // RQ's text, down to the clock's offset.
    std::string time = format_utc(utc_now());
    time[10] = ' ';
    time.replace(time.size() - 1, 1, "+00:00");
    return encode_exc_string(
        fmt::format("Moved to FailedJobRegistry, due to AbandonedJobError, at {}", time));
}

asio::awaitable<RecoverResult> recover(RedisClient& redis, std::vector<std::string> queues,
                                       RecoverPolicy policy) {
    std::vector<std::string> args{policy == RecoverPolicy::requeue ? "requeue" : "fail",
                                  abandoned_exc_string(), "200"};
    args.insert(args.end(), queues.begin(), queues.end());
    const Reply reply = co_await redis.eval(
        lua::recover, {std::string(keys::leases), std::string(keys::sweeper)}, std::move(args));
    const auto& parts = reply.as_array();
    RecoverResult result;
    result.more = parts.at(0).as_integer() == 1;
    for (const auto& row : parts.at(1).as_array()) {
        result.jobs.push_back({row.elements.at(0).text, row.elements.at(1).text,
                               row.elements.at(2).text, row.elements.at(3).text,
                               row.elements.at(4).as_integer(), row.elements.at(5).as_integer()});
    }
    co_return result;
}

asio::awaitable<std::map<std::string, std::int64_t>> maintain(RedisClient& redis,
                                                              std::string queue) {
    const Reply reply =
        co_await redis.eval(lua::maintain, {keys::maintained(queue)}, {queue, "10", "200"});
    std::map<std::string, std::int64_t> counts;
    for (const auto& row : reply.as_array())
        counts[row.elements.at(0).text] = row.elements.at(1).as_integer();
    co_return counts;
}

asio::awaitable<void> tend_limits(RedisClient& redis) {
    co_await redis.eval(lua::tend_limits, {}, {"200", ""});
}

asio::awaitable<void> maintain_groups(RedisClient& redis) {
    co_await redis.eval(lua::maintain_groups, {keys::maintained("*groups")}, {"60", "20", "100"});
}

asio::awaitable<std::int64_t> maintain_rate_limits(RedisClient& redis) {
    co_return (co_await redis.eval(lua::maintain_rate_limits, {keys::maintained("*rate_limits")},
                                   {"10", "100", "100"}))
        .as_integer();
}

asio::awaitable<std::int64_t> maintain_dedups(RedisClient& redis) {
    constexpr int most_rounds = 20;
    const std::vector<std::string> keys{keys::maintained("*dedups"), std::string(keys::dedups)};
    std::int64_t forgotten = 0;
    for (int round = 0; round < most_rounds; ++round) {
        const Reply reply =
            co_await redis.eval(lua::maintain_dedups, keys, {round == 0 ? "10" : "", "500"});
        forgotten += reply.as_array().at(0).as_integer();
        if (reply.as_array().at(1).as_integer() == 0) break;
    }
    co_return forgotten;
}

asio::awaitable<void> maintain_batches(RedisClient& redis) {
    // Where stock workers do the work there is much to count: then one pass takes more.
    for (int part = 0; part < 50; ++part) {
        const Reply reply =
            co_await redis.eval(lua::maintain_batches, {std::string(keys::batches_seen)},
                                {"2", "1000", part > 0 ? "1" : "0"});
        const auto& parts = reply.as_array();
        if (part == 0) {
            for (const auto& row : parts.at(2).as_array()) {
                const std::string& id = row.elements.at(0).text;
                const bool cancels = row.elements.at(1).text == "cancel";
                co_await act_on_batch(redis, cancels ? BatchAction::cancel : BatchAction::retry, id,
                                      false, {});
            }
        }
        if (parts.at(1).as_integer() * 4 < parts.at(0).as_integer() ||
            parts.at(1).as_integer() == 0)
            co_return;
    }
}

asio::awaitable<std::vector<std::string>> known_queues(RedisClient& redis) {
    const Reply members = co_await redis.command("SMEMBERS", keys::queues);
    std::vector<std::string> names;
    for (const auto& member : members.as_array()) {
        if (member.text.starts_with(keys::queue_prefix))
            names.push_back(member.text.substr(keys::queue_prefix.size()));
    }
    co_return names;
}

}  // namespace rqxx::ops
