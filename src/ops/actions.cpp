#include <fmt/format.h>

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <rqxx/actions.hpp>
#include <rqxx/codec.hpp>
#include <rqxx/job.hpp>

#include "base/utf8.hpp"
#include "base/wildcard.hpp"
#include "ops/batch_size.hpp"
#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"

namespace rqxx {

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

/// Where jobs of one status and queue stand.
struct Place {
    std::string key;
    bool is_list = false;
    std::string lane;  ///< Of a queue whose jobs wait apart; see lua/includes/lanes.lua.
};

asio::awaitable<std::vector<Place>> places_of(RedisClient& redis, const JobFilter& filter) {
    if (filter.status != status::queued)
        co_return std::vector<Place>{{keys::registry(filter.status, filter.queue), false, {}}};
    std::vector<Place> places{{keys::queue(filter.queue), true, {}}};
    const Reply lanes = co_await redis.command("SMEMBERS", keys::lanes(filter.queue));
    for (const auto& lane : lanes.as_array())
        places.push_back({keys::lane(lane.text, filter.queue), false, lane.text});
    co_return places;
}

asio::awaitable<std::uint64_t> count_of(RedisClient& redis, const std::vector<Place>& places) {
    std::uint64_t count = 0;
    for (std::size_t begin = 0; begin < places.size(); begin += 1000) {
        Pipeline pipeline;
        for (std::size_t i = begin; i < std::min(begin + 1000, places.size()); ++i)
            pipeline.add(places[i].is_list ? "LLEN" : "ZCARD", places[i].key);
        for (const auto& reply : co_await redis.run(std::move(pipeline)))
            count += static_cast<std::uint64_t>(reply.as_integer());
    }
    co_return count;
}

bool function_matches(const std::string& pattern, const Reply& data) {
    const auto call = decode_call(data.text);
    return call && matches_wildcard(pattern, call->func_name);
}

/// @param part  in lower case.
bool error_matches(const std::string& part, const Reply& newest_result) {
    if (!newest_result.is_array() || newest_result.elements.empty()) return false;
    const auto& entry = newest_result.elements.front();
    if (entry.elements.size() != 2) return false;
    const auto result = parse_result(entry.elements[0].text, entry.elements[1].as_pairs());
    if (!result) return false;
    std::string_view text = result->exc_string;
    while (text.ends_with('\n'))
        text.remove_suffix(1);
    text.remove_prefix(text.rfind('\n') + 1);
    return lower_ascii(text).find(part) != std::string::npos;
}

/// Those of `ids` that the filter means.
asio::awaitable<std::vector<std::string>> meant(RedisClient& redis, JobFilter filter,
                                                std::vector<std::string> ids) {
    if (filter.func.empty() && filter.error.empty() && !filter.own_status) co_return ids;
    const std::string error = lower_ascii(filter.error);
    Pipeline pipeline;
    for (const auto& id : ids) {
        if (filter.own_status) pipeline.add("HGET", keys::job(id), "status");
        if (!filter.func.empty()) pipeline.add("HGET", keys::job(id), "data");
        if (!error.empty()) pipeline.add("XREVRANGE", keys::results(id), "+", "-", "COUNT", 1);
    }
    const auto replies = co_await redis.run(std::move(pipeline));
    std::vector<std::string> result;
    auto reply = replies.begin();
    for (auto& id : ids) {
        bool fits = true;
        if (filter.own_status) fits = (reply++)->text == filter.status;
        if (!filter.func.empty()) fits = function_matches(filter.func, *reply++) && fits;
        if (!error.empty()) fits = error_matches(error, *reply++) && fits;
        if (fits) result.push_back(std::move(id));
    }
    co_return result;
}

}  // namespace

Parsed<Dependents> parse_dependents(std::string_view text) noexcept {
    if (text == "leave") return Dependents::leave;
    if (text == "enqueue") return Dependents::enqueue;
    if (text == "cascade") return Dependents::cascade;
    return ParseError(
        fmt::format("\"{}\" is not one of leave, enqueue, cascade", text.substr(0, 40)),
        "dependents");
}

static std::string word(Dependents dependents) {
    return dependents == Dependents::leave     ? "leave"
           : dependents == Dependents::enqueue ? "enqueue"
                                               : "cascade";
}

asio::awaitable<std::vector<ActionResult>> JobActions::run(const Script& script,
                                                           std::vector<std::string> head,
                                                           std::vector<std::string> ids) {
    std::vector<ActionResult> results;
    results.reserve(ids.size());
    ops::BatchSize batch;
    while (results.size() < ids.size()) {
        const std::size_t begin = results.size();
        const std::size_t end = std::min(begin + batch.get(), ids.size());
        auto args = head;
        args.insert(args.end(), ids.begin() + static_cast<std::ptrdiff_t>(begin),
                    ids.begin() + static_cast<std::ptrdiff_t>(end));
        const auto before = std::chrono::steady_clock::now();
        const Reply reply = co_await redis_->eval(script, {}, std::move(args));
        batch.took(std::chrono::steady_clock::now() - before);
        const auto& rows = reply.as_array();
        if (rows.size() != end - begin)
            throw Error(Errc::protocol,
                        fmt::format("the {} script gave an unexpected answer", script.name));
        for (const auto& row : rows) {
            const auto& cells = row.as_array();
            results.push_back({ids[results.size()],
                               static_cast<ActionResult::Code>(cells.at(0).as_integer()),
                               cells.at(1).as_text(), cells.at(2).as_integer()});
        }
    }
    co_return results;
}

asio::awaitable<std::vector<ActionResult>> JobActions::cancel(std::vector<std::string> ids,
                                                              CancelOptions options) {
    return run(lua::cancel,
               {word(options.dependents), options.remove_from_dependencies ? "1" : "0",
                options.dry_run ? "1" : "0", by_},
               std::move(ids));
}

asio::awaitable<std::vector<ActionResult>> JobActions::remove(std::vector<std::string> ids,
                                                              RemoveOptions options) {
    return run(lua::delete_jobs, {word(options.dependents), options.dry_run ? "1" : "0"},
               std::move(ids));
}

asio::awaitable<std::vector<ActionResult>> JobActions::requeue(std::vector<std::string> ids,
                                                               RequeueOptions options) {
    return run(lua::requeue, {options.at_front ? "L" : "R", options.dry_run ? "1" : "0", by_},
               std::move(ids));
}

asio::awaitable<std::vector<ActionResult>> JobActions::run_now(std::vector<std::string> ids,
                                                               bool dry_run) {
    return run(lua::run_now, {dry_run ? "1" : "0", by_}, std::move(ids));
}

asio::awaitable<StopResult> JobActions::stop(std::string id, bool dry_run) {
    StopResult result;
    const boost::json::object command{{"command", "stop-job"}, {"job_id", id}};
    const Reply reply = co_await redis_->eval(
        lua::stop, {keys::job(id), keys::executions(id)},
        std::vector<std::string>{id, boost::json::serialize(command), dry_run ? "1" : "0", by_});
    const auto& cells = reply.as_array();
    const auto code = cells.at(0).as_integer();
    result.listens = code != 3;
    result.code = code == 3 ? ActionResult::Code::refused : static_cast<ActionResult::Code>(code);
    result.status = cells.at(1).as_text();
    result.acknowledges = cells.at(2).as_integer() == 1;
    result.job_id = std::move(id);
    co_return result;
}

asio::awaitable<ActionProgress> JobActions::for_each(
    JobFilter filter, bool stays, Action action,
    std::function<void(const ActionProgress&)> report) {
    static constexpr std::string_view words[] = {
        status::queued,   status::started,   status::finished, status::failed,
        status::deferred, status::scheduled, status::canceled};
    if (std::ranges::find(words, filter.status) == std::end(words))
        throw Error(Errc::usage, fmt::format("status: \"{}\" is not one of {}", filter.status,
                                             fmt::join(words, ", ")));
    ActionProgress progress;
    const auto places = co_await places_of(*redis_, filter);
    progress.total = co_await count_of(*redis_, places);
    for (const auto& place : places) {
        std::size_t passed = 0;  // Entries at the beginning that have been looked at and stay.
        while (progress.looked_at < progress.total) {
            const auto last =
                passed + std::min<std::size_t>(500, progress.total - progress.looked_at) - 1;
            const Reply entries = co_await redis_->command(place.is_list ? "LRANGE" : "ZRANGE",
                                                           place.key, passed, last);
            if (entries.as_array().empty()) break;
            std::vector<std::string> ids;
            ids.reserve(entries.elements.size());
            for (const auto& entry : entries.elements)
                ids.push_back(entry.text.substr(0, entry.text.find(':')));
            const std::size_t here = ids.size();
            auto wanted = co_await meant(*redis_, filter, std::move(ids));
            if (filter.limit > 0)
                wanted.resize(
                    std::min<std::size_t>(wanted.size(), filter.limit - progress.matched));
            progress.looked_at += here;
            progress.matched += wanted.size();
            std::vector<std::string> done;
            if (!wanted.empty()) {
                for (auto& result : co_await action(std::move(wanted))) {
                    if (result.code == ActionResult::Code::done)
                        done.push_back(std::move(result.job_id));
                    else
                        ++progress.refused;
                }
            }
            progress.done += done.size();
            passed += stays ? here : here - std::min(done.size(), here);
            if (!stays && !place.lane.empty() && !done.empty()) {
                done.insert(done.begin(), {filter.queue, place.lane});
                co_await redis_->eval(lua::leave_lane, {}, std::move(done));
            }
            if (report) report(progress);
            if (filter.limit > 0 && progress.matched >= filter.limit) co_return progress;
            if (filter.most_looked_at > 0 && progress.looked_at >= filter.most_looked_at)
                co_return progress;
        }
    }
    co_return progress;
}

asio::awaitable<std::vector<std::string>> JobActions::of_queues(std::vector<std::string> ids,
                                                                std::vector<std::string> queues) {
    std::vector<std::string> kept;
    if (ids.empty()) co_return kept;
    Pipeline pipeline;
    for (const auto& id : ids)
        pipeline.add("HGET", keys::job(id), "origin");
    const auto origins = co_await redis_->run(std::move(pipeline));
    for (std::size_t i = 0; i < ids.size(); ++i)
        if (origins[i].is_string() && std::ranges::any_of(queues, [&](const std::string& pattern) {
                return matches_wildcard(pattern, origins[i].text);
            }))
            kept.push_back(std::move(ids[i]));
    co_return kept;
}

asio::awaitable<std::uint64_t> JobActions::compact(std::string queue, bool dry_run) {
    std::uint64_t removed = 0;
    std::uint64_t at = 0;
    ops::BatchSize batch;
    for (;;) {
        std::vector<std::string> args{std::to_string(at), std::to_string(batch.get()),
                                      dry_run ? "1" : "0"};
        const auto before = std::chrono::steady_clock::now();
        const Reply reply =
            co_await redis_->eval(lua::compact, {keys::queue(queue)}, std::move(args));
        batch.took(std::chrono::steady_clock::now() - before);
        const auto looked_at = static_cast<std::uint64_t>(reply.as_array().at(0).as_integer());
        const auto gone = static_cast<std::uint64_t>(reply.as_array().at(1).as_integer());
        if (looked_at == 0) co_return removed;
        removed += gone;
        at += dry_run ? looked_at : looked_at - gone;
    }
}

}  // namespace rqxx
