#include "ops/sorting.hpp"

#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"

namespace rqxx::ops {
namespace asio = boost::asio;

namespace {

/// Their calls are in memory at once.
constexpr std::size_t jobs_at_once = 128;
/// Longer than sorting takes; should the worker die, others go on then.
constexpr std::string_view lock_ms = "2000";

struct Waiting {
    std::string id;
    std::string lane;  ///< Where it stands; empty: on the list.
};

asio::awaitable<SortResult> move(RedisClient& redis, std::string queue, const QueueRules& rules,
                                 std::string version, std::vector<Waiting> jobs) {
    Pipeline pipeline;
    for (const auto& job : jobs)
        pipeline.add("HMGET", keys::job(job.id), "data", "meta");
    const auto calls = co_await redis.run(std::move(pipeline));
    std::size_t on_list = 0;
    std::vector<std::string> args{queue, std::move(version), ""};
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        if (jobs[i].lane.empty()) ++on_list;
        args.push_back(jobs[i].id);
        args.push_back(jobs[i].lane);
        const bool sound = !calls[i].is_error() && calls[i].elements.size() == 2;
        args.push_back(lane_for(rules, queue, sound ? calls[i].elements[0].text : std::string(),
                                sound ? calls[i].elements[1].text : std::string()));
    }
    args[2] = std::to_string(on_list);
    const Reply reply = co_await redis.eval(lua::sort, {keys::queue(queue)}, std::move(args));
    SortResult result;
    result.rules_changed = reply.as_integer() < 0;
    if (!result.rules_changed) result.moved = static_cast<std::size_t>(reply.as_integer());
    co_return result;
}

}  // namespace

std::string lane_for(const QueueRules& rules, const std::string& queue, std::string_view data,
                     std::string_view meta) {
    if (rules.epoch.empty()) return {};
    const auto call = decode_call(data);
    if (!call) return lane_without_call(rules);
    Value decoded_meta;
    if (rules.needs_meta && !meta.empty()) {
        if (auto decoded = decode(meta)) decoded_meta = std::move(*decoded);
    }
    return lane_of(rules, queue, *call, decoded_meta);
}

asio::awaitable<SortResult> sort_some(RedisClient& redis, std::string queue,
                                      const QueueRules& rules, std::string version) {
    Pipeline pipeline;
    pipeline.add("SET", keys::sorting(queue), "1", "NX", "PX", lock_ms);
    pipeline.add("LRANGE", keys::queue(queue), 0, jobs_at_once - 1);
    const auto replies = co_await redis.run(std::move(pipeline));
    if (replies[0].is_nil()) co_return SortResult{.busy = true};
    std::vector<Waiting> jobs;
    if (!replies[1].is_error()) {
        for (const auto& id : replies[1].elements)
            jobs.push_back({id.text, {}});
    }
    if (jobs.empty()) {
        co_await redis.command("DEL", keys::sorting(queue));
        co_return SortResult{};
    }
    co_return co_await move(redis, std::move(queue), rules, std::move(version), std::move(jobs));
}

asio::awaitable<SortResult> sort_some_again(RedisClient& redis, std::string queue,
                                            const QueueRules& rules, std::string version) {
    const Reply locked =
        co_await redis.command("SET", keys::sorting(queue), "1", "NX", "PX", lock_ms);
    if (locked.is_nil()) co_return SortResult{.busy = true};
    const auto current = rules.epoch + '|';
    std::vector<Waiting> jobs;
    std::string cursor = "0";
    do {
        const Reply page =
            co_await redis.command("SSCAN", keys::lanes(queue), cursor, "COUNT", 1000);
        cursor = page.as_array().at(0).as_text();
        Pipeline pipeline;
        std::vector<std::string> lanes;
        for (const auto& lane : page.as_array().at(1).elements) {
            if (!rules.epoch.empty() && lane.text.starts_with(current)) continue;
            if (jobs.size() + lanes.size() >= jobs_at_once) break;
            lanes.push_back(lane.text);
            pipeline.add("ZRANGE", keys::lane(lane.text, queue), 0, jobs_at_once - 1);
        }
        if (lanes.empty()) continue;
        const auto replies = co_await redis.run(std::move(pipeline));
        for (std::size_t i = 0; i < lanes.size(); ++i) {
            for (const auto& id : replies[i].elements) {
                if (jobs.size() < jobs_at_once) jobs.push_back({id.text, lanes[i]});
            }
        }
    } while (cursor != "0" && jobs.size() < jobs_at_once);
    if (jobs.empty()) {
        co_await redis.command("DEL", keys::sorting(queue));
        co_return SortResult{};
    }
    co_return co_await move(redis, std::move(queue), rules, std::move(version), std::move(jobs));
}

}  // namespace rqxx::ops
