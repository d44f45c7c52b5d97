#include "ops/scheduling.hpp"

#include <unistd.h>

#include <boost/asio/ip/host_name.hpp>

#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"

namespace rqxx::ops {

asio::awaitable<PromoteResult> SchedulerOps::promote(std::vector<DueQueue> queues, bool renew,
                                                     std::string all_queues) {
    std::vector<std::string> args{name,
                                  std::to_string(scheduler_lease.count()),
                                  renew ? std::to_string(scheduler_lock_ttl.count()) : "",
                                  std::to_string(promote_batch),
                                  boost::asio::ip::host_name(),
                                  std::to_string(::getpid()),
                                  std::move(all_queues)};
    for (auto& queue : queues) {
        args.push_back(std::move(queue.name));
        args.push_back(std::to_string(queue.pass_over));
    }
    const Reply reply = co_await redis->eval(
        lua::promote, {std::string(keys::schedulers), keys::scheduler(name)}, std::move(args));
    const auto& parts = reply.as_array();
    PromoteResult result;
    for (const auto& row : parts.at(0).as_array()) {
        const auto& cells = row.elements;
        Promoted queue;
        queue.queue = static_cast<std::size_t>(cells.at(0).as_integer());
        queue.lock = static_cast<Promoted::Lock>(cells.at(1).as_integer());
        queue.promoted = cells.at(2).as_integer();
        queue.kept = cells.at(3).as_integer();
        queue.dropped = cells.at(4).as_integer();
        queue.more = cells.at(5).as_integer() == 1;
        queue.note = cells.at(6).as_text();
        result.promoted += queue.promoted;
        result.queues.push_back(std::move(queue));
    }
    result.late_sum = std::chrono::microseconds(parts.at(1).as_integer());
    result.late_max = std::chrono::microseconds(parts.at(2).as_integer());
    const auto& buckets = parts.at(3).as_array();
    for (std::size_t i = 0; i + 1 < buckets.size(); i += 2)
        result.late_buckets.emplace_back(buckets[i].as_integer(), buckets[i + 1].as_integer());
    co_return result;
}

asio::awaitable<void> SchedulerOps::release(std::vector<std::string> queues,
                                            std::chrono::milliseconds timeout) {
    std::vector<std::string> script_keys{std::string(keys::schedulers), keys::scheduler(name)};
    for (const auto& queue : queues)
        script_keys.push_back(keys::scheduler_lock(queue));
    const std::vector<std::string> args{name};
    Pipeline pipeline;
    pipeline.eval(lua::release_scheduler, script_keys, args);
    (co_await redis->run(std::move(pipeline), timeout)).front().throw_if_error();
}

asio::awaitable<std::vector<std::string>> SchedulerOps::known_queues() {
    const Reply members = co_await redis->command("SMEMBERS", keys::queues);
    std::vector<std::string> names;
    for (const auto& member : members.as_array()) {
        if (member.text.starts_with(keys::queue_prefix))
            names.push_back(member.text.substr(keys::queue_prefix.size()));
    }
    co_return names;
}

}  // namespace rqxx::ops
