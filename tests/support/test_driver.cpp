// Steps through rqxx's single operations on behalf of a test: tests/support/driver.py.
//   test_driver REDIS_URL [COMMAND_TIMEOUT_MS]
// One JSON object per line on stdin, one JSON answer per line on stdout, over one connection:
//   {"op": "enqueue", "queue", "func", "args", "kwargs", "serializer", "at" (epoch) | "in",
//   "options": {...}}
//   {"op": "enqueue_many", "queue", "serializer", "jobs": [{"func", "args", "kwargs",
//   "options"}...]}
//   {"op": "cancel" | "delete" | "requeue", "ids", ...}, {"op": "stop", "id"}
//   {"op": "compact", "queue"}
//   {"op": "for_each", "filter": {...}, "action": "cancel" | "delete" | "requeue", ...}
//   {"op": "register" | "claim" | "settle" | "heartbeat" | "recover" | "retire" | "expire_lease",
//   "worker", ...}
//   {"op": "promote" | "release", "scheduler", "queues", ...}, {"op": "maintain", "queue"},
//   {"op": "maintain_groups" | "maintain_rate_limits"}, {"op": "reset"} (forgets the workers, as
//   after FLUSHALL)
//   {"op": "maintain_groups"}, {"op": "maintain_dedups"},
//   {"op": "reset"} (forgets the workers, as after FLUSHALL)
// An error is {"error": message, "code": name, "in_doubt": bool}; what was asked for is not done.
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ops/lua_scripts.hpp>
#include <ops/scheduling.hpp>
#include <ops/transitions.hpp>
#include <ops/upkeep.hpp>
#include <rqxx/actions.hpp>
#include <rqxx/queue.hpp>
#include <set>

namespace {

using namespace rqxx;
namespace asio = boost::asio;
namespace json = boost::json;

[[noreturn]] void refuse(const std::string& message) {
    throw Error(Errc::usage, message);
}

// ---- reading commands --------------------------------------------------------------------------

/// One JSON object of a command. What is not asked for by the time it ends is a typing error.
class Fields {
public:
    explicit Fields(const json::value& value) {
        if (!value.is_object()) refuse("an object is expected, not " + json::serialize(value));
        object_ = &value.get_object();
    }
    /// The field, or nullptr where it is absent or null.
    const json::value* find(std::string_view name) {
        asked_.emplace(name);
        const json::value* value = object_->if_contains(name);
        return value != nullptr && value->is_null() ? nullptr : value;
    }
    std::string text(std::string_view name, std::string otherwise = {}) {
        const json::value* value = find(name);
        return value != nullptr ? std::string(value->as_string()) : otherwise;
    }
    bool flag(std::string_view name) {
        const json::value* value = find(name);
        return value != nullptr && value->as_bool();
    }
    std::int64_t number(std::string_view name, std::int64_t otherwise) {
        const json::value* value = find(name);
        return value != nullptr ? value->to_number<std::int64_t>() : otherwise;
    }
    std::vector<std::string> texts(std::string_view name) {
        std::vector<std::string> result;
        if (const json::value* value = find(name))
            for (const auto& item : value->as_array())
                result.emplace_back(item.as_string());
        return result;
    }
    void end() const {
        for (const auto& [name, value] : *object_)
            if (!asked_.contains(name)) refuse("nobody knows the field " + std::string(name));
    }

private:
    const json::object* object_;
    std::set<std::string, std::less<>> asked_;
};

/// Whole seconds, or text with a unit (`1h`).
std::chrono::seconds duration(const json::value& value) {
    if (value.is_string()) {
        const auto parsed = parse_duration(std::string(value.get_string()));
        if (!parsed) refuse(parsed.error().describe());
        return *parsed;
    }
    return std::chrono::seconds(value.to_number<std::int64_t>());
}

std::optional<std::chrono::seconds> duration(Fields& fields, std::string_view name) {
    const json::value* value = fields.find(name);
    if (value == nullptr) return std::nullopt;
    return duration(*value);
}

std::vector<std::chrono::seconds> durations(Fields& fields, std::string_view name) {
    std::vector<std::chrono::seconds> result;
    if (const json::value* value = fields.find(name))
        for (const auto& item : value->as_array())
            result.push_back(duration(item));
    return result;
}

Value::Items values(const json::array& array);

/// What JSON lacks comes as an object with one `$...` key, as `to_json` writes it; and `$tuple`,
/// `$set`.
Value value_of(const json::value& value) {
    if (value.is_array()) return Value::list(values(value.get_array()));
    if (!value.is_object()) return from_json(value);
    const auto& object = value.get_object();
    const std::string_view label = object.empty() ? "" : object.begin()->key();
    if (label == "$tuple") return Value::tuple(values(object.begin()->value().as_array()));
    if (label == "$set") return Value::set(values(object.begin()->value().as_array()));
    if (label.starts_with('$')) {
        std::string text(object.begin()->value().as_string());
        if (label == "$bytes") return Value::bytes(base64_decode(text).value());
        if (label == "$datetime") return Value::text(Value::Kind::datetime, text);
        if (label == "$date") return Value::text(Value::Kind::date, text);
        if (label == "$uuid") return Value::text(Value::Kind::uuid, text);
        if (label == "$decimal") return Value::text(Value::Kind::decimal, text);
        if (label == "$int") return Value::text(Value::Kind::big_integer, text);
        if (label == "$float") return std::strtod(text.c_str(), nullptr);
        refuse("nobody knows the label " + std::string(label));
    }
    Value::Pairs pairs;
    for (const auto& [key, item] : object)
        pairs.push_back({Value(std::string_view(key)), value_of(item)});
    return Value::dict(std::move(pairs));
}

Value::Items values(const json::array& array) {
    Value::Items items;
    for (const auto& item : array)
        items.push_back(value_of(item));
    return items;
}

std::optional<Callback> callback(Fields& options, std::string_view name) {
    const json::value* value = options.find(name);
    if (value == nullptr) return std::nullopt;
    Fields fields(*value);
    Callback result{fields.text("name"), duration(fields, "timeout")};
    fields.end();
    return result;
}

Webhook webhook(const json::value& value) {
    Fields fields(value);
    Webhook hook;
    hook.url = fields.text("url");
    hook.job_status = fields.text("job_status", hook.job_status);
    hook.method = fields.text("method", hook.method);
    if (const json::value* headers = fields.find("headers"))
        for (const auto& [name, text] : headers->as_object())
            hook.headers.emplace(name, text.as_string());
    if (const auto limit = duration(fields, "timeout")) hook.timeout = *limit;
    fields.end();
    return hook;
}

EnqueueOptions enqueue_options(const json::value* value) {
    EnqueueOptions result;
    if (value == nullptr) return result;
    Fields options(*value);
    result.job_id = options.text("job_id");
    result.timeout = duration(options, "timeout");
    result.result_ttl = duration(options, "result_ttl");
    result.failure_ttl = duration(options, "failure_ttl");
    result.ttl = duration(options, "ttl");
    if (const json::value* text = options.find("description"))
        result.description = std::string(text->as_string());
    if (const json::value* meta = options.find("meta")) result.meta = value_of(*meta);
    result.at_front = options.flag("at_front");
    result.unique = options.flag("unique");
    if (const json::value* dedup = options.find("dedup")) {
        Fields fields(*dedup);
        const auto mode = parse_dedup_mode(fields.text("mode"));
        if (!mode) refuse(mode.error().describe());
        result.dedup = Dedup{*mode, fields.text("key"), duration(fields, "period"),
                             duration(fields, "max_delay")};
        fields.end();
    }
    if (const json::value* request = options.find("idempotency")) {
        Fields fields(*request);
        result.idempotency = Idempotency{fields.text("key"), fields.text("asked")};
        if (const auto lifetime = duration(fields, "lifetime"))
            result.idempotency->lifetime = *lifetime;
        fields.end();
    }
    if (const json::value* dependency = options.find("depends_on")) {
        Fields fields(*dependency);
        result.depends_on = Dependency{fields.texts("job_ids"), fields.flag("allow_failure"),
                                       fields.flag("enqueue_at_front")};
        fields.end();
    }
    if (const json::value* retry = options.find("retry")) {
        Fields fields(*retry);
        result.retry = Retry{fields.number("max", 0), durations(fields, "intervals"),
                             fields.flag("enqueue_at_front")};
        fields.end();
    }
    if (const json::value* repeat = options.find("repeat")) {
        Fields fields(*repeat);
        result.repeat = Repeat{fields.number("times", 0), durations(fields, "intervals")};
        fields.end();
    }
    result.on_success = callback(options, "on_success");
    result.on_failure = callback(options, "on_failure");
    result.on_stopped = callback(options, "on_stopped");
    result.group = options.text("group");
    if (const json::value* limit = options.find("rate_limit")) {
        Fields fields(*limit);
        result.rate_limit = RateLimit{fields.text("key"), fields.number("concurrency", 1)};
        fields.end();
    }
    if (const json::value* hooks = options.find("webhooks"))
        for (const auto& hook : hooks->as_array())
            result.webhooks.push_back(webhook(hook));
    options.end();
    return result;
}

NewJob new_job(Fields& fields) {
    NewJob job;
    job.call.func_name = fields.text("func");
    if (const json::value* args = fields.find("args"))
        job.call.args = Value::tuple(values(args->as_array()));
    if (const json::value* kwargs = fields.find("kwargs")) job.call.kwargs = value_of(*kwargs);
    job.options = enqueue_options(fields.find("options"));
    return job;
}

Queue queue_of(RedisClient& redis, Fields& fields) {
    const auto serializer = parse_serializer(fields.text("serializer", "pickle"));
    if (!serializer) refuse(serializer.error().describe());
    return {redis, fields.text("queue", "default"), *serializer};
}

// ---- writing answers ---------------------------------------------------------------------------

json::object shown(const Enqueued& enqueued) {
    return {{"id", enqueued.job_id},
            {"duplicate", enqueued.duplicate},
            {"status", enqueued.status},
            {"replaced", enqueued.replaced},
            {"repeated", enqueued.repeated}};
}

json::array shown(const std::vector<ActionResult>& results) {
    static constexpr const char* words[] = {"no such job", "done", "refused"};
    json::array rows;
    for (const auto& result : results)
        rows.push_back(json::object{{"id", result.job_id},
                                    {"code", words[static_cast<int>(result.code)]},
                                    {"status", result.status},
                                    {"dependents", result.dependents}});
    return rows;
}

const char* word(ops::Settled::Code code) {
    static constexpr const char* words[] = {"refused",  "finished", "failed",  "retried",
                                            "returned", "canceled", "deleted", "stopped"};
    return words[static_cast<int>(code)];
}

// ---- carrying them out -------------------------------------------------------------------------

/// A worker that runs nothing: the test says when it takes and ends jobs.
struct DrivenWorker {
    ops::WorkerOps ops;
    std::vector<std::string> queues;
    std::map<std::string, ops::Claimed> held;  ///< Claimed and not settled, by execution.
};

class Driver {
public:
    explicit Driver(RedisClient& redis) : redis_(redis), actions_(redis) {}

    asio::awaitable<json::object> carry_out(const json::value& command) {
        Fields fields(command);
        const std::string op = fields.text("op");
        if (op == "enqueue") co_return co_await enqueue(fields);
        if (op == "enqueue_many") co_return co_await enqueue_many(fields);
        if (op == "cancel" || op == "delete" || op == "requeue") {
            const auto act = action(op, fields);
            auto ids = fields.texts("ids");
            fields.end();
            co_return json::object{{"jobs", shown(co_await act(std::move(ids)))}};
        }
        if (op == "for_each") co_return co_await for_each(fields);
        if (op == "stop") {
            std::string id = fields.text("id");
            fields.end();
            co_return json::object{{"jobs", shown({co_await actions_.stop(std::move(id))})}};
        }
        if (op == "compact") {
            std::string queue = fields.text("queue", "default");
            const bool dry_run = fields.flag("dry_run");
            fields.end();
            co_return json::object{
                {"removed", co_await actions_.compact(std::move(queue), dry_run)}};
        }
        if (op == "register") co_return co_await register_worker(fields);
        if (op == "claim") co_return co_await claim(fields);
        if (op == "settle") co_return co_await settle(fields);
        if (op == "heartbeat") co_return co_await heartbeat(fields);
        if (op == "recover") co_return co_await recover(fields);
        if (op == "promote" || op == "release") co_return co_await schedule(op, fields);
        if (op == "maintain") co_return co_await maintain(fields);
        if (op == "maintain_rate_limits") {
            fields.end();
            co_return json::object{{"freed", co_await ops::maintain_rate_limits(redis_)}};
        }
        if (op == "maintain_groups") {
            fields.end();
            co_await ops::maintain_groups(redis_);
            co_return json::object{};
        }
        if (op == "maintain_dedups") {
            fields.end();
            co_return json::object{{"forgotten", co_await ops::maintain_dedups(redis_)}};
        }
        if (op == "reset") {
            fields.end();
            workers_.clear();
            co_return json::object{};
        }
        if (op == "expire_lease" || op == "retire") {
            auto& worker = worker_of(fields);
            fields.end();
            if (op == "retire") {
                co_await worker.ops.register_death();
                worker.held.clear();
            } else {
                co_await worker.ops.expire_lease();
            }
            co_return json::object{};
        }
        refuse("nobody knows the op " + op);
    }

private:
    asio::awaitable<json::object> enqueue(Fields& fields) {
        Queue queue = queue_of(redis_, fields);
        NewJob job = new_job(fields);
        const json::value* at = fields.find("at");
        const auto delay = duration(fields, "in");
        fields.end();
        if (at != nullptr) {
            const Timestamp due{
                std::chrono::microseconds(std::llround(at->to_number<double>() * 1e6))};
            co_return shown(
                co_await queue.enqueue_at(due, std::move(job.call), std::move(job.options)));
        }
        if (delay)
            co_return shown(
                co_await queue.enqueue_in(*delay, std::move(job.call), std::move(job.options)));
        co_return shown(co_await queue.enqueue(std::move(job.call), std::move(job.options)));
    }

    asio::awaitable<json::object> enqueue_many(Fields& fields) {
        Queue queue = queue_of(redis_, fields);
        std::vector<NewJob> jobs;
        if (const json::value* list = fields.find("jobs")) {
            for (const auto& item : list->as_array()) {
                Fields one(item);
                jobs.push_back(new_job(one));
                one.end();
            }
        }
        fields.end();
        json::array rows;
        for (const auto& one : co_await queue.enqueue_many(std::move(jobs)))
            rows.push_back(shown(one));
        co_return json::object{{"jobs", std::move(rows)}};
    }

    JobActions::Action action(const std::string& name, Fields& fields) {
        const bool dry_run = fields.flag("dry_run");
        if (name == "requeue") {
            const bool at_front = fields.flag("at_front");
            return [this, at_front, dry_run](std::vector<std::string> ids) {
                return actions_.requeue(std::move(ids), {.at_front = at_front, .dry_run = dry_run});
            };
        }
        const auto dependents = parse_dependents(fields.text("dependents", "leave"));
        if (!dependents) refuse(dependents.error().describe());
        if (name == "delete")
            return [this, dependents = *dependents, dry_run](std::vector<std::string> ids) {
                return actions_.remove(std::move(ids),
                                       {.dependents = dependents, .dry_run = dry_run});
            };
        if (name != "cancel") refuse("nobody knows the action " + name);
        const bool forget = fields.flag("remove_from_dependencies");
        return [this, dependents = *dependents, forget, dry_run](std::vector<std::string> ids) {
            return actions_.cancel(
                std::move(ids),
                {.dependents = dependents, .remove_from_dependencies = forget, .dry_run = dry_run});
        };
    }

    asio::awaitable<json::object> for_each(Fields& fields) {
        const json::value* given = fields.find("filter");
        if (given == nullptr) refuse("a filter is needed");
        Fields parts(*given);
        JobFilter filter{.queue = parts.text("queue", "default"),
                         .status = parts.text("status"),
                         .func = parts.text("func"),
                         .error = parts.text("error"),
                         .limit = static_cast<std::uint64_t>(parts.number("limit", 0))};
        parts.end();
        const auto act = action(fields.text("action"), fields);
        const bool stays = fields.flag("dry_run");
        fields.end();
        const auto progress = co_await actions_.for_each(std::move(filter), stays, act);
        co_return json::object{{"looked_at", progress.looked_at},
                               {"total", progress.total},
                               {"matched", progress.matched},
                               {"done", progress.done},
                               {"refused", progress.refused}};
    }

    DrivenWorker& worker_of(Fields& fields) {
        const std::string name = fields.text("worker", "driven");
        const auto found = workers_.find(name);
        if (found == workers_.end()) refuse(name + " has not been registered");
        return found->second;
    }

    /// `lease` in ms. Registering again keeps what the worker holds.
    asio::awaitable<json::object> register_worker(Fields& fields) {
        const std::string name = fields.text("worker", "driven");
        auto queues = fields.texts("queues");
        if (queues.empty()) queues.emplace_back("default");
        const std::chrono::milliseconds lease(fields.number("lease", 10000));
        const auto strategy = parse_strategy(fields.text("strategy", "default"));
        if (!strategy) refuse(strategy.error().describe());
        fields.end();
        WorkerOptions options;
        options.queues = queues;
        options.lease = lease;
        options.strategy = *strategy;
        const auto [at, added] = workers_.try_emplace(
            name, DrivenWorker{ops::WorkerOps(redis_, name, options), queues, {}});
        const auto birth = co_await at->second.ops.register_birth();
        co_return json::object{
            {"registered", birth.registered}, {"host", birth.other_host}, {"pid", birth.other_pid}};
    }

    asio::awaitable<json::object> claim(Fields& fields) {
        static constexpr const char* states[] = {"ok", "suspended", "lease_gone", "no_slot",
                                                 "rules_changed"};
        static const std::set<std::string_view> binary{"data", "meta", "exc_info", "result"};
        auto& worker = worker_of(fields);
        const auto limit = static_cast<std::size_t>(fields.number("limit", 1));
        const auto capacity = static_cast<std::size_t>(fields.number("capacity", 1000));
        fields.end();
        auto result = co_await worker.ops.claim(limit, capacity, oldest(worker));
        json::array claimed, skipped;
        for (auto& job : result.claimed) {
            json::object hash;
            for (const auto& [field, value] : job.fields)
                if (!binary.contains(field)) hash[field] = value;
            claimed.push_back(json::object{{"id", job.job_id},
                                           {"execution", job.execution_id},
                                           {"origin", job.origin},
                                           {"started_at", format_epoch(job.started_at)},
                                           {"fields", std::move(hash)}});
            std::string execution = job.execution_id;
            worker.held.emplace(std::move(execution), std::move(job));
        }
        for (const auto& skip : result.skipped)
            skipped.push_back(
                json::object{{"id", skip.job_id}, {"queue", skip.queue}, {"why", skip.why}});
        co_return json::object{{"state", states[static_cast<int>(result.state)]},
                               {"claimed", std::move(claimed)},
                               {"skipped", std::move(skipped)}};
    }

    /// {"execution" of this worker, or "id", "execution", "origin" of any; "outcome": success,
    /// failure, terminal_failure, returned, stopped, retry; "result" | "error" | "max" and "wait";
    /// "run_us"}
    static ops::Settlement settlement(const DrivenWorker& worker, const json::value& value,
                                      Serializer serializer) {
        using Outcome = ops::Settlement::Outcome;
        static const std::map<std::string, Outcome> outcomes{
            {"success", Outcome::success},   {"failure", Outcome::failure},
            {"returned", Outcome::returned}, {"terminal_failure", Outcome::terminal_failure},
            {"stopped", Outcome::stopped},   {"retry", Outcome::retry}};
        Fields fields(value);
        ops::Settlement one;
        one.execution_id = fields.text("execution");
        const auto held = worker.held.find(one.execution_id);
        const bool known = held != worker.held.end();
        one.job_id = fields.text("id", known ? held->second.job_id : "");
        one.origin = fields.text("origin", known ? held->second.origin : "default");
        one.started_at = known ? held->second.started_at : utc_now();
        one.run_time = std::chrono::microseconds(fields.number("run_us", 1000));
        const auto outcome = outcomes.find(fields.text("outcome", "success"));
        if (outcome == outcomes.end()) refuse("nobody knows this outcome");
        one.outcome = outcome->second;
        const json::value* result = fields.find("result");
        const std::string error = fields.text("error", "builtins.RuntimeError: driven\n");
        const auto max = fields.number("max", 1), wait = fields.number("wait", 0);
        fields.end();
        if (one.outcome == Outcome::success)
            one.payload =
                encode_return_value(result != nullptr ? value_of(*result) : Value(), serializer);
        else if (one.outcome == Outcome::retry)
            one.payload = std::to_string(max) + " " + std::to_string(wait) + " " +
                          encode_retry(max, {wait}, false, serializer);
        else if (one.outcome != Outcome::returned)
            one.payload = encode_exc_string(error);
        return one;
    }

    /// An answer that says `in_doubt` leaves the jobs held: the same may be settled again.
    asio::awaitable<json::object> settle(Fields& fields) {
        auto& worker = worker_of(fields);
        const auto serializer = parse_serializer(fields.text("serializer", "pickle"));
        if (!serializer) refuse(serializer.error().describe());
        const std::chrono::seconds result_ttl(fields.number("default_result_ttl", 500));
        std::vector<ops::Settlement> batch;
        if (const json::value* jobs = fields.find("jobs"))
            for (const auto& job : jobs->as_array())
                batch.push_back(settlement(worker, job, *serializer));
        fields.end();
        std::vector<std::string> executions;
        executions.reserve(batch.size());
        for (const auto& one : batch)
            executions.push_back(one.execution_id);
        const auto results =
            co_await worker.ops.settle(std::move(batch), oldest(worker, executions), result_ttl);
        json::array rows;
        for (std::size_t i = 0; i < results.size(); ++i) {
            worker.held.erase(executions[i]);
            rows.push_back(json::object{{"code", word(results[i].code)},
                                        {"wait", results[i].next_in.count()},
                                        {"attempt", results[i].attempt},
                                        {"of", results[i].of}});
        }
        co_return json::object{{"jobs", std::move(rows)}};
    }

    /// For what the worker holds, or for the `executions` named.
    asio::awaitable<json::object> heartbeat(Fields& fields) {
        auto& worker = worker_of(fields);
        const bool named = fields.find("executions") != nullptr;
        const auto executions = fields.texts("executions");
        fields.end();
        std::vector<ops::Running> running;
        for (const auto& [id, job] : worker.held)
            if (!named || std::ranges::find(executions, id) != executions.end())
                running.push_back({job.job_id, id, job.origin, {}});
        const auto result =
            co_await worker.ops.heartbeat(std::move(running), oldest(worker), Seconds(0));
        json::array notices;
        for (const auto& notice : result.notices) {
            using Why = ops::HeartbeatResult::Notice::Why;
            json::object row{{"execution", notice.execution_id}};
            if (notice.why == Why::asked_to_stop)
                row["asked_to_stop"] = true;
            else
                row["canceled"] = notice.why == Why::canceled;
            notices.push_back(std::move(row));
        }
        co_return json::object{{"lease_held", result.lease_held},
                               {"notices", std::move(notices)},
                               {"orphans", result.orphans}};
    }

    /// Searches `queues`, or those of `worker`.
    asio::awaitable<json::object> recover(Fields& fields) {
        auto queues = fields.texts("queues");
        if (queues.empty())
            queues = worker_of(fields).queues;
        else
            fields.find("worker");
        const std::string policy = fields.text("policy", "requeue");
        fields.end();
        const auto result = co_await ops::recover(
            redis_, queues, policy == "fail" ? RecoverPolicy::fail : RecoverPolicy::requeue);
        json::array jobs;
        for (const auto& job : result.jobs)
            jobs.push_back(json::object{{"id", job.job_id},
                                        {"what", job.what},
                                        {"worker", job.worker},
                                        {"queue", job.queue},
                                        {"attempt", job.attempt},
                                        {"of", job.of}});
        co_return json::object{{"more", result.more}, {"jobs", std::move(jobs)}};
    }

    /// A scheduler's step over `queues`, or its end. Locks are taken unless `renew` is false.
    asio::awaitable<json::object> schedule(const std::string& op, Fields& fields) {
        static constexpr const char* locks[] = {"held", "taken", "taken_over", "not_ours",
                                                "broken"};
        ops::SchedulerOps scheduler{&redis_, fields.text("scheduler", "driven")};
        const auto queues = fields.texts("queues");
        if (op == "release") {
            fields.end();
            co_await scheduler.release(queues, std::chrono::seconds(10));
            co_return json::object{};
        }
        const json::value* renew = fields.find("renew");
        const bool renews = renew == nullptr || renew->as_bool();
        fields.end();
        std::vector<ops::SchedulerOps::DueQueue> due;
        std::string all;
        for (const auto& queue : queues) {
            due.push_back({queue});
            all += (all.empty() ? "" : ",") + queue;
        }
        const auto result = co_await scheduler.promote(std::move(due), renews, all);
        json::array rows;
        for (const auto& row : result.queues)
            rows.push_back(json::object{{"queue", queues.at(row.queue)},
                                        {"lock", locks[static_cast<int>(row.lock)]},
                                        {"promoted", row.promoted},
                                        {"kept", row.kept},
                                        {"dropped", row.dropped}});
        co_return json::object{{"queues", std::move(rows)}, {"promoted", result.promoted}};
    }

    asio::awaitable<json::object> maintain(Fields& fields) {
        std::string queue = fields.text("queue", "default");
        fields.end();
        json::object counts;
        for (const auto& [what, count] : co_await ops::maintain(redis_, std::move(queue)))
            counts[what] = count;
        co_return json::object{{"counts", std::move(counts)}};
    }

    /// The job that the worker has held longest, apart from those about to be settled.
    static std::string oldest(const DrivenWorker& worker,
                              const std::vector<std::string>& settling = {}) {
        const ops::Claimed* found = nullptr;
        for (const auto& [execution, job] : worker.held) {
            if (std::ranges::find(settling, execution) != settling.end()) continue;
            if (found == nullptr || job.started_at < found->started_at) found = &job;
        }
        return found != nullptr ? found->job_id : std::string();
    }

    RedisClient& redis_;
    JobActions actions_;
    std::map<std::string, DrivenWorker> workers_;
};

asio::awaitable<json::object> answer(Driver& driver, std::string_view line) {
    try {
        co_return co_await driver.carry_out(json::parse(line));
    } catch (const Error& error) {
        co_return json::object{{"error", error.message()},
                               {"code", to_string(error.code())},
                               {"in_doubt", error.in_doubt()}};
    } catch (const std::exception& error) {
        co_return json::object{{"error", error.what()}, {"code", "usage"}, {"in_doubt", false}};
    }
}

asio::awaitable<void> serve(RedisClient& redis) {
    Driver driver(redis);
    asio::posix::stream_descriptor in(redis.executor(), ::dup(STDIN_FILENO));
    std::string buffer;
    for (;;) {
        boost::system::error_code end;
        const std::size_t size = co_await asio::async_read_until(
            in, asio::dynamic_buffer(buffer), '\n', asio::redirect_error(asio::use_awaitable, end));
        if (end) co_return;
        const std::string line = buffer.substr(0, size);
        buffer.erase(0, size);
        const json::object reply = co_await answer(driver, line);
        std::puts(json::serialize(reply).c_str());
        std::fflush(stdout);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) return 2;
    RedisOptions options;
    options.url = parse_redis_url(argv[1]).value();
    options.max_backoff = std::chrono::milliseconds(100);
    if (argc > 2) options.command_timeout = std::chrono::milliseconds(std::atoi(argv[2]));
    asio::io_context context(1);
    register_scripts(lua::all());
    RedisClient redis(context.get_executor(), options);
    asio::co_spawn(context, serve(redis), [&](std::exception_ptr) { redis.close(); });
    context.run();
    return 0;
}
