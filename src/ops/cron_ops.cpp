#include "ops/cron_ops.hpp"

#include <unistd.h>

#include <boost/asio/ip/host_name.hpp>

#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"
#include "ops/new_job.hpp"

namespace rqxx::ops {
namespace {

/// After which RQ takes a cron scheduler for gone. Source: rq/cron.py heartbeat (RQ 2.10).
constexpr std::string_view hash_ttl = "120";

Value time_or_none(std::optional<Timestamp> time) {
    return time ? Value(format_utc(*time)) : Value();
}

/// JSON text inside JSON, or None for what is empty.
Value json_or_none(const Value& value, bool empty) {
    return empty ? Value() : Value(encode_json(value));
}

}  // namespace

CronOps::CronOps(RedisClient& redis, std::string name, std::string config_file,
                 std::string_view group)
    : redis_(&redis),
      name_(std::move(name)),
      config_file_(std::move(config_file)),
      created_at_(utc_now()),
      leader_key_(keys::cron_leader(group)),
      key_(keys::cron_scheduler(name_)) {}

asio::awaitable<Lease> CronOps::lease(std::chrono::milliseconds duration,
                                      std::optional<std::string> jobs) {
    std::vector<std::string> args{name_, std::to_string(duration.count()), std::string(hash_ttl)};
    if (jobs) {
        const std::pair<std::string_view, std::string> fields[] = {
            {"hostname", boost::asio::ip::host_name()},
            {"pid", std::to_string(::getpid())},
            {"name", name_},
            {"created_at", format_utc(created_at_)},
            {"config_file", config_file_},
            {"cron_jobs", std::move(*jobs)},
        };
        for (const auto& [field, value] : fields) {
            args.emplace_back(field);
            args.push_back(value);
        }
    }
    const Reply reply = co_await redis_->eval(
        lua::cron_lease, {leader_key_, std::string(keys::cron_schedulers), key_}, std::move(args));
    const auto& parts = reply.as_array();
    co_return Lease{parts.at(0).as_integer() == 1,
                    Timestamp(std::chrono::microseconds(parts.at(1).as_integer())),
                    parts.at(2).as_integer() == 1};
}

asio::awaitable<CronPast> CronOps::resume(const CronSchedule& schedule, bool leads) {
    const Reply reply = co_await redis_->eval(lua::cron_resume, {keys::cron_state(schedule.name)},
                                              {schedule.rule(), leads ? "1" : "0"});
    const auto& parts = reply.as_array();
    CronPast past{Slot(std::chrono::seconds(parts.at(0).as_integer())), {}, parts.at(2).as_text()};
    if (const auto at = parse_epoch(parts.at(1).as_text())) past.last_enqueued_at = *at;
    co_return past;
}

asio::awaitable<Fired> CronOps::fire(const CronSchedule& schedule, Slot slot) {
    EnqueueOptions options = schedule.options;
    options.job_id = schedule.job_id(slot);
    const Job job =
        make_job(schedule.call, options, schedule.queue, schedule.serializer, utc_now());
    std::vector<std::string> args{job.id, std::to_string(slot.time_since_epoch().count()),
                                  schedule.overlap == Overlap::skip ? "1" : "0",
                                  job.ttl ? std::to_string(*job.ttl) : std::string()};
    for (auto& [field, value] : field_values(job)) {
        args.emplace_back(field);
        args.push_back(std::move(value));
    }
    const Reply reply =
        co_await redis_->eval(lua::cron_fire,
                              {keys::cron_state(schedule.name), keys::job(job.id),
                               keys::queue(schedule.queue), keys::cron_history(schedule.name)},
                              std::move(args));
    const auto& parts = reply.as_array();
    Fired fired;
    fired.code = static_cast<Fired::Code>(parts.at(0).as_integer());
    if (fired.code == Fired::Code::enqueued)
        fired.at = parse_epoch(parts.at(1).as_text()).value();
    else
        fired.last_job = parts.at(1).as_text();
    co_return fired;
}

asio::awaitable<void> CronOps::retire() {
    co_await redis_->eval(lua::cron_retire, {leader_key_, std::string(keys::cron_schedulers), key_},
                          {name_});
}

Value CronOps::describe(const CronSchedule& schedule, std::optional<Timestamp> latest,
                        std::optional<Timestamp> next) {
    Value job = Value::dict();
    const auto add = [&](std::string_view key, Value value) {
        job.pairs().push_back({Value(key), std::move(value)});
    };
    const auto add_seconds = [&](std::string_view key,
                                 const std::optional<std::chrono::seconds>& duration) {
        if (duration) add(key, duration->count());
    };
    add("name", schedule.name);
    add("func_name", schedule.call.func_name);
    add("queue_name", schedule.queue);
    add("args", json_or_none(schedule.call.args, schedule.call.args.items().empty()));
    add("kwargs", json_or_none(schedule.call.kwargs, schedule.call.kwargs.pairs().empty()));
    add("interval", schedule.cron ? Value() : Value(schedule.every.count()));
    add("cron", schedule.cron ? Value(schedule.cron->croniter_text()) : Value());
    add("latest_enqueue_time", time_or_none(latest));
    add("next_enqueue_time", time_or_none(next));
    add_seconds("job_timeout", schedule.options.timeout);
    add_seconds("result_ttl", schedule.options.result_ttl);
    add_seconds("ttl", schedule.options.ttl);
    add_seconds("failure_ttl", schedule.options.failure_ttl);
    if (!schedule.options.meta.is_none()) add("meta", json_or_none(schedule.options.meta, false));
    return job;
}

}  // namespace rqxx::ops
