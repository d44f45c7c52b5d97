#include <fmt/format.h>

#include <cstdio>

#include "ops/doctor_examination.hpp"
#include "ops/doctor_fields.hpp"
#include "ops/doctor_walks.hpp"
#include "ops/keys.hpp"

namespace rqxx::ops::doctor {

namespace {

/// Source: rq/worker/base.py BaseWorker.refresh (RQ 2.10).
constexpr std::array<Field, 7> worker_fields{{
    {"birth", Reading::time},
    {"last_heartbeat", Reading::time},
    {"pid", Reading::number_or_empty},
    {"successful_job_count", Reading::number_or_empty},
    {"failed_job_count", Reading::number_or_empty},
    {"total_working_time", Reading::real},
    {"current_job_working_time", Reading::real},
}};

/// A field of INFO; empty if there is none.
std::string info_field(std::string_view info, std::string_view name) {
    const auto at = info.find("\n" + std::string(name) + ":");
    if (at == std::string_view::npos) return {};
    info.remove_prefix(at + name.size() + 2);
    return std::string(info.substr(0, info.find_first_of("\r\n")));
}

}  // namespace

asio::awaitable<void> Examination::read_clock() {
    const Reply time = co_await redis_->command("TIME");
    now_ = static_cast<double>(time.as_array().at(0).as_integer());
    Pipeline pipeline;
    pipeline.add("ZRANGEBYSCORE", keys::leases, "-inf", fmt::format("{:.0f}", (now_ - 30) * 1e6));
    const auto replies = co_await redis_->run(std::move(pipeline));
    for (const auto& worker : replies.at(0).elements)
        lapsed_leases_.insert(worker.text);
}

asio::awaitable<void> Examination::read_server() {
    Pipeline pipeline;
    pipeline.add("INFO");
    pipeline.add("CONFIG", "GET", "save");
    pipeline.add("EXISTS", keys::suspended);
    const auto replies = co_await redis_->run(std::move(pipeline));
    const std::string& info = replies[0].text;
    const std::string version = info_field(info, "redis_version");
    int major = 0, minor = 0;
    if (std::sscanf(version.c_str(), "%d.%d", &major, &minor) == 2 &&
        (major < 6 || (major == 6 && minor < 2)))
        evidence_->add_fact("old-redis", 1, version, {});
    const std::string policy = info_field(info, "maxmemory_policy");
    if (!policy.empty() && policy != "noeviction")
        evidence_->add_fact("eviction-policy", 1, policy, "CONFIG SET maxmemory-policy noeviction");
    const bool snapshots = replies[1].is_error() || replies[1].elements.size() < 2 ||
                           !replies[1].elements[1].text.empty();
    if (info_field(info, "aof_enabled") == "0" && !snapshots)
        evidence_->add_fact("no-persistence", 1, "appendonly no, save \"\"", {});
    if (replies[2].integer == 1)
        evidence_->add_fact("suspended", 1, std::string(keys::suspended), {});
}

asio::awaitable<void> Examination::read_workers() {
    auto sets = worker_sets_;
    sets.insert(std::string(keys::workers));
    sets.insert(std::string(keys::queues));
    std::set<std::string> members;
    co_await for_each(
        *redis_, sets, [](Pipeline& to, const std::string& key) { to.add("SMEMBERS", key); },
        [&](const std::string& key, const Reply& reply) {
            const bool of_queues = key == keys::queues;
            if (reply.is_error()) return evidence_->add("wrong-type", options_->queue, key, "set");
            for (const auto& member : reply.elements) {
                if (!member.text.starts_with(of_queues ? keys::queue_prefix : keys::worker_prefix))
                    evidence_->add("foreign-member", options_->queue, key, member.text);
                else if (of_queues)
                    registered_.insert(member.text);
                else if (!worker_records_.contains(member.text))
                    evidence_->add("gone-worker", options_->queue, key, member.text);
            }
        });
    co_await for_each(
        *redis_, worker_records_,
        [](Pipeline& to, const std::string& key) {
            to.begin(2 + worker_fields.size());
            to.argument("HMGET");
            to.argument(key);
            for (const auto& field : worker_fields)
                to.argument(field.name);
        },
        [this](const std::string& key, const Reply& reply) {
            if (reply.is_error()) return evidence_->add("wrong-type", options_->queue, key, "hash");
            for (std::size_t i = 0; i < worker_fields.size(); ++i) {
                const auto& value = reply.elements.at(i);
                if (!value.is_nil() && !readable(worker_fields[i].reading, value.text))
                    evidence_->add("bad-worker", options_->queue, value.text, key,
                                   std::string(worker_fields[i].name));
            }
        });
    co_await for_each(
        *redis_, lists_,
        [](Pipeline& to, const std::string& key) {
            to.add("SCARD", keys::queue_workers(behind(key, keys::queue_prefix)));
        },
        [this](const std::string& key, const Reply& reply) {
            const std::string queue = behind(key, keys::queue_prefix);
            if (!registered_.contains(key)) evidence_->add("unregistered-queue", queue, key, {});
            if (reply.type == Reply::Type::integer && reply.integer == 0 &&
                options_->concerns(queue))
                evidence_->add_fact("no-worker", 1, queue, {});
        });
}

asio::awaitable<void> Examination::read_locks() {
    for (const auto& key : maintenance_locks_)
        evidence_->add("stale-lock", behind(key, "rq:clean_registries:"), key, {});
    co_await for_each(
        *redis_, scheduler_locks_, [](Pipeline& to, const std::string& key) { to.add("GET", key); },
        [this](const std::string& key, const Reply& owner) {
            const std::string queue = behind(key, "rq:scheduler-lock:");
            if (owner.is_error())
                evidence_->add("wrong-type", queue, key, "string");
            else if (!owner.is_nil())
                evidence_->add("dead-scheduler", queue, key, owner.text);
        });
}

}  // namespace rqxx::ops::doctor
