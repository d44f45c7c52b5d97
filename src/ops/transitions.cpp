#include "ops/transitions.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/ip/host_name.hpp>
#include <random>

#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"

namespace rqxx::ops {
namespace {

std::string join(const std::vector<std::string>& parts) {
    std::string text;
    for (const auto& part : parts)
        text += (text.empty() ? "" : ",") + part;
    return text;
}

}  // namespace

WorkerOps::WorkerOps(RedisClient& redis, std::string name, const WorkerOptions& options)
    : redis_(&redis),
      name_(std::move(name)),
      queues_(options.queues),
      key_(keys::worker(name_)),
      executions_key_(keys::worker_executions(name_)),
      lease_(options.lease),
      slots_(options.concurrency),
      plan_(options) {}

asio::awaitable<WorkerOps::Birth> WorkerOps::register_birth() {
    std::vector<std::string> args{name_, std::to_string(lease_.count()),
                                  std::to_string(rq_heartbeat_ttl.count()), join(queues_),
                                  std::to_string(slots_)};
    const std::pair<std::string_view, std::string> fields[] = {
        {"pid", std::to_string(::getpid())},
        {"hostname", boost::asio::ip::host_name()},
        {"ip_address", "unknown"},
        {"version", RQXX_VERSION},
        {"python_version", "rqxx " RQXX_VERSION},
    };
    for (const auto& [field, value] : fields) {
        args.emplace_back(field);
        args.push_back(value);
    }
    const Reply reply =
        co_await redis_->eval(lua::register_worker, {key_, executions_key_}, std::move(args));
    const auto& parts = reply.as_array();
    Birth birth;
    birth.registered = parts.at(0).as_integer() == 1;
    if (!birth.registered) {
        birth.other_host = parts.at(1).as_text();
        birth.other_pid = parts.at(2).as_text();
    }
    co_return birth;
}

asio::awaitable<void> WorkerOps::expire_lease() {
    co_await redis_->command("ZADD", keys::leases, 0, name_);
}

namespace {

/// What lua/settle.lua writes beside a result; empty for nothing.
std::string account_of(const Settlement& one) {
    if (one.cause.empty() && !one.usage) return {};
    const Usage usage = one.usage.value_or(Usage{});
    return fmt::format("{} {:.6f} {}", usage.max_rss_kb, usage.cpu_seconds, one.cause);
}

}  // namespace

asio::awaitable<ClaimResult> WorkerOps::claim(std::size_t limit, std::size_t capacity,
                                              std::string current_job,
                                              const RunningByQueue& running) {
    auto [script_keys, args] = plan_.arguments(
        {name_, key_, executions_key_, limit, capacity, std::move(current_job), running});
    const auto asked_at = std::chrono::steady_clock::now();
    co_return plan_.digest(
        co_await redis_->eval(plan_.script(), std::move(script_keys), std::move(args)), asked_at);
}

asio::awaitable<void> WorkerOps::load_rules() {
    plan_.set_rules(RuleSet(co_await Rules(*redis_).list()));
}

asio::awaitable<void> WorkerOps::read_hashes(std::vector<Claimed>& jobs) {
    Pipeline pipeline;
    for (const auto& job : jobs)
        pipeline.add("HGETALL", keys::job(job.job_id));
    auto replies = co_await redis_->run(std::move(pipeline));
    for (std::size_t i = 0; i < jobs.size(); ++i)
        jobs[i].fields = hash_fields(std::move(replies[i]));
}

asio::awaitable<bool> WorkerOps::wait_for_job(RedisClient& blocking, std::string queue_key,
                                              std::chrono::seconds timeout, std::size_t limit,
                                              std::size_t capacity, ClaimResult& result) {
    Pipeline pipeline;
    pipeline.add("BLMOVE", queue_key, queue_key, "LEFT", "LEFT", timeout.count());
    if (limit > 0) {
        const RunningByQueue none;
        const auto [script_keys, args] =
            plan_.arguments({name_, key_, executions_key_, limit, capacity, {}, none});
        pipeline.eval(plan_.script(), script_keys, args);
    }
    auto replies = co_await blocking.run(std::move(pipeline), timeout + std::chrono::seconds(10));
    // Without the script (NOSCRIPT) the ordinary claim that follows does the work.
    if (limit > 0 && !replies[1].is_error()) {
        result = plan_.digest(std::move(replies[1]), std::chrono::steady_clock::now());
    }
    replies[0].throw_if_error();
    co_return !replies[0].is_nil();
}

asio::awaitable<void> WorkerOps::append_output(const std::string& job_id,
                                               const std::string& execution_id, std::int64_t ttl,
                                               OutputChunks chunks) {
    constexpr std::size_t most_at_once = 500;  // Many small pieces must not make a script long.
    std::size_t at = 0;
    do {
        std::vector<std::string> args{job_id, execution_id, std::to_string(ttl)};
        for (const auto end = std::min(chunks.size(), at + most_at_once); at < end; ++at) {
            args.emplace_back(1, static_cast<char>(chunks[at].stream));
            args.push_back(std::move(chunks[at].text));
        }
        co_await redis_->eval(lua::append_output,
                              {keys::outputs(job_id), keys::output(job_id, execution_id)},
                              std::move(args));
    } while (at < chunks.size());
}

asio::awaitable<std::vector<Settled>> WorkerOps::settle(std::vector<Settlement> batch,
                                                        std::string current_job,
                                                        std::chrono::seconds default_result_ttl) {
    std::vector<std::string> args{name_, std::move(current_job),
                                  std::to_string(default_result_ttl.count())};
    args.reserve(3 + batch.size() * 10);
    for (auto& one : batch) {
        args.push_back(std::move(one.job_id));
        args.push_back(std::move(one.execution_id));
        args.push_back(std::move(one.origin));
        args.emplace_back(1, static_cast<char>(one.outcome));
        args.push_back(std::move(one.payload));
        args.push_back(format_epoch(one.started_at));
        args.push_back(std::to_string(one.run_time.count()));
        args.push_back(one.queued_for
                           ? std::to_string(std::max<std::int64_t>(one.queued_for->count(), 0))
                           : "-1");
        args.push_back(std::move(one.known_result_ttl));
        args.push_back(account_of(one));
    }
    const Reply reply =
        co_await redis_->eval(lua::settle, {key_, executions_key_}, std::move(args));
    std::vector<Settled> results;
    for (const auto& row : reply.as_array()) {
        Settled settled;
        settled.code = static_cast<Settled::Code>(row.elements.at(0).as_integer());
        if (settled.code == Settled::Code::postponed)
            settled.next_in = std::chrono::seconds(row.elements.at(1).as_integer());
        if (settled.code == Settled::Code::retried) {
            settled.next_in = std::chrono::seconds(row.elements.at(1).as_integer());
            settled.attempt = row.elements.at(2).as_integer();
            settled.of = row.elements.at(3).as_integer();
        }
        results.push_back(settled);
    }
    if (results.size() != batch.size())
        throw Error(Errc::protocol, "the settle script gave an unexpected answer");
    co_return results;
}

asio::awaitable<HeartbeatResult> WorkerOps::heartbeat(std::vector<Running> running,
                                                      std::string oldest_job,
                                                      Seconds oldest_run_time) {
    std::vector<std::string> args{name_, std::to_string(lease_.count()),
                                  std::to_string(rq_heartbeat_ttl.count()), std::move(oldest_job),
                                  fmt::format("{:.3f}", oldest_run_time.count())};
    for (auto& job : running) {
        args.push_back(std::move(job.job_id));
        args.push_back(std::move(job.execution_id));
        args.push_back(std::move(job.origin));
        args.push_back(std::move(job.progress));
    }
    const Reply reply =
        co_await redis_->eval(lua::heartbeat, {key_, executions_key_}, std::move(args));
    HeartbeatResult result;
    const auto& parts = reply.as_array();
    result.lease_held = parts.at(0).as_integer() == 1;
    if (result.lease_held) {
        for (const auto& row : parts.at(1).as_array())
            result.notices.push_back(
                {row.elements.at(0).text,
                 static_cast<HeartbeatResult::Notice::Why>(row.elements.at(1).as_integer())});
        result.orphans = parts.at(2).as_integer();
    }
    co_return result;
}

asio::awaitable<void> WorkerOps::set_state(std::string state) {
    co_await redis_->command("HSET", key_, "state", state);
}

asio::awaitable<void> WorkerOps::note_shutdown() {
    co_await redis_->command("HSET", key_, "shutdown_requested_date", format_utc(utc_now()));
}

std::string WorkerOps::command_channel() const {
    return keys::command_channel(name_);
}

asio::awaitable<void> WorkerOps::register_death() {
    co_await redis_->eval(lua::retire_worker, {key_, executions_key_}, {name_, join(queues_)});
}

}  // namespace rqxx::ops
