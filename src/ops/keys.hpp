#pragma once

#include <string>
#include <string_view>

/// RQ's keys, and ours beside them. The one place in C++ that knows their names.
namespace rqxx::keys {

inline constexpr std::string_view queues = "rq:queues";
inline constexpr std::string_view workers = "rq:workers";
inline constexpr std::string_view suspended = "rq:suspended";
inline constexpr std::string_view leases = "rqxx:leases";
inline constexpr std::string_view schedulers = "rqxx:schedulers";
inline constexpr std::string_view sampler = "rqxx:sampler";
inline constexpr std::string_view sweeper = "rqxx:sweeper";
inline constexpr std::string_view batches_seen = "rqxx:batches:seen";
inline constexpr std::string_view webhooks = "rqxx:webhooks";
/// Hash: who may use the HTTP API. See ops/access.hpp.
inline constexpr std::string_view tokens = "rqxx:tokens";
inline constexpr std::string_view dedups = "rqxx:dedups";
inline constexpr std::string_view totals = "rqxx:totals";
/// Stream of the ids of changed jobs, written while somebody wants it. See
/// lua/includes/changes.lua.
inline constexpr std::string_view changes = "rqxx:changes";
inline constexpr std::string_view changes_wanted = "rqxx:changes:wanted";
/// Tells a Redis from another, for indexes that are kept elsewhere.
inline constexpr std::string_view index_identity = "rqxx:index:identity";
/// Hash: what people have decided about groups of failures, as JSON.
inline constexpr std::string_view failures = "rqxx:failures";
inline constexpr std::string_view metrics_now = "rqxx:metrics:now";
inline constexpr std::string_view metrics_total = "rqxx:metrics:total";
/// Hash: how many jobs each worker of ours runs at once.
inline constexpr std::string_view slots = "rqxx:slots";
/// Hash: rules by name, as JSON. Its version beside it: `rqxx:rules:version`.
inline constexpr std::string_view rules = "rqxx:rules";
/// Where workers are told that something may be claimed: a queue's name, or `*` for new rules.
inline constexpr std::string_view wake_channel = "rqxx:wake";
/// Hash: how many jobs of a queue wait in lanes. See lua/includes/lanes.lua.
inline constexpr std::string_view sorted = "rqxx:sorted";
/// Sorted set: actions on many jobs, by the time at which they began.
inline constexpr std::string_view operations = "rqxx:operations";
/// Stream: what people and programs have done. See ops/audit.cpp.
inline constexpr std::string_view audit = "rqxx:audit";
inline constexpr std::string_view cron_schedulers = "rq:cron_schedulers";
/// Hash: schedules that are kept in Redis, by name, as JSON. Their version beside it.
inline constexpr std::string_view cron_entries = "rqxx:cron_entries";
inline constexpr std::string_view cron_entries_version = "rqxx:cron_entries:version";
inline constexpr std::string_view groups = "rq:groups";
inline constexpr std::string_view rate_limits = "rq:rl-keys";
inline constexpr std::string_view queue_prefix = "rq:queue:";
inline constexpr std::string_view worker_prefix = "rq:worker:";

inline std::string join(std::string_view prefix, std::string_view name) {
    std::string key;
    key.reserve(prefix.size() + name.size());
    key += prefix;
    key += name;
    return key;
}

inline std::string queue(std::string_view name) {
    return join(queue_prefix, name);
}
inline std::string job(std::string_view id) {
    return join("rq:job:", id);
}
inline std::string results(std::string_view id) {
    return join("rq:results:", id);
}
inline std::string executions(std::string_view id) {
    return join("rq:executions:", id);
}
inline std::string execution(std::string_view id, std::string_view execution_id) {
    return join(join(join("rq:execution:", id), ":"), execution_id);
}
/// List of the executions whose output is kept, newest first.
inline std::string outputs(std::string_view id) {
    return join("rqxx:output:", id);
}
/// Stream of what an execution has written. See lua/append_output.lua.
inline std::string output(std::string_view id, std::string_view execution_id) {
    return join(join(outputs(id), ":"), execution_id);
}
/// Held by the worker that sorts a queue's jobs just now.
inline std::string sorting(std::string_view queue) {
    return join("rqxx:sorting:", queue);
}
inline std::string lanes(std::string_view queue) {
    return join("rqxx:lanes:", queue);
}
inline std::string lane(std::string_view lane, std::string_view queue) {
    return join(join(join("rqxx:lane:", lane), "@"), queue);
}
inline std::string worker(std::string_view name) {
    return join(worker_prefix, name);
}
inline std::string worker_executions(std::string_view name) {
    return join(worker(name), ":executions");
}
inline std::string queue_workers(std::string_view name) {
    return join("rq:workers:", name);
}
inline std::string command_channel(std::string_view worker_name) {
    return join("rq:pubsub:", worker_name);
}
inline std::string started(std::string_view name) {
    return join("rq:wip:", name);
}
inline std::string finished(std::string_view name) {
    return join("rq:finished:", name);
}
inline std::string failed(std::string_view name) {
    return join("rq:failed:", name);
}
inline std::string deferred(std::string_view name) {
    return join("rq:deferred:", name);
}
inline std::string scheduled(std::string_view name) {
    return join("rq:scheduled:", name);
}
inline std::string scheduler(std::string_view name) {
    return join("rq:scheduler:", name);
}
inline std::string scheduler_lock(std::string_view queue) {
    return join("rq:scheduler-lock:", queue);
}
inline std::string canceled(std::string_view name) {
    return join("rq:canceled:", name);
}
inline std::string maintained(std::string_view name) {
    return join("rqxx:maintained:", name);
}
inline std::string rate_limit(std::string_view key) {
    return join("rq:rl:", key);
}
inline std::string allowed(std::string_view key) {
    return join(rate_limit(key), ":allowed");
}
inline std::string rate_limited(std::string_view key) {
    return join(rate_limit(key), ":rate_limited");
}
inline std::string group(std::string_view name) {
    return join("rq:group:", name);
}
inline std::string batch(std::string_view id) {
    return join("rqxx:batch:", id);
}
/// Number of the last call of one who adds jobs. See lua/add_to_batch.lua.
inline std::string batch_loader(std::string_view id, std::string_view loader) {
    return join(join(batch(id), ":loader:"), loader);
}
inline std::string dependents(std::string_view id) {
    return join(join("rq:job:", id), ":dependents");
}
inline std::string dependencies(std::string_view id) {
    return join(join("rq:job::", id), ":dependencies");
}
/// The registry of a status word other than `queued`.
inline std::string registry(std::string_view status, std::string_view name) {
    return join(join(join("rq:", status == "started" ? "wip" : status), ":"), name);
}
inline std::string webhook(std::string_view delivery) {
    return join("rqxx:webhook:", delivery);
}
inline std::string webhooks_of(std::string_view job_id) {
    return join("rqxx:webhooks_of:", job_id);
}
inline std::string webhook_log(std::string_view job_id) {
    return join("rqxx:webhook_log:", job_id);
}
/// See lua/enqueue_once.lua.
inline std::string dedup(std::string_view key) {
    return join("rqxx:dedup:", key);
}
inline std::string idempotency(std::string_view key) {
    return join("rqxx:idempotency:", key);
}
inline std::string operation(std::string_view id) {
    return join("rqxx:operations:", id);
}
inline std::string cron_scheduler(std::string_view process) {
    return join("rq:cron_scheduler:", process);
}
inline std::string cron_history(std::string_view schedule) {
    return join(join("rq:cron_job:", schedule), ":jobs");
}
inline std::string cron_state(std::string_view schedule) {
    return join("rqxx:cron:", schedule);
}
inline std::string cron_leader(std::string_view schedules) {
    return join("rqxx:cron:leader:", schedules);
}

}  // namespace rqxx::keys
