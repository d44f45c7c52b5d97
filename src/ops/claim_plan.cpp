#include "ops/claim_plan.hpp"

#include <algorithm>
#include <boost/json.hpp>
#include <numeric>

#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"
#include "ops/sorting.hpp"
#include "ops/transitions.hpp"

namespace rqxx::ops {
namespace json = boost::json;

FieldList hash_fields(Reply reply) {
    auto& flat = reply.elements;
    FieldList fields;
    fields.reserve(flat.size() / 2);
    for (std::size_t i = 0; i + 1 < flat.size(); i += 2)
        fields.emplace_back(std::move(flat[i].text), std::move(flat[i + 1].text));
    return fields;
}

ClaimPlan::ClaimPlan(const WorkerOptions& options)
    : strategy_(options.strategy), ageing_(options.ageing) {
    std::int64_t weight = 1;
    for (auto name = options.queues.rbegin(); name != options.queues.rend(); ++name) {
        PlannedQueue queue{.name = *name, .weight = weight};
        if (const auto found = options.weights.find(*name); found != options.weights.end())
            queue.weight = found->second;
        if (const auto found = options.queue_slots.find(*name); found != options.queue_slots.end())
            queue.most_running = found->second;
        queues_.insert(queues_.begin(), std::move(queue));
        weight = std::min<std::int64_t>(weight * 2, 1 << 20);
    }
    for (const auto& queue : queues_)
        queue_keys_.push_back(keys::queue(queue.name));
    set_rules({});
}

void ClaimPlan::set_rules(RuleSet rules) {
    rules_ = std::move(rules);
    ruled_ = strategy_ == Strategy::weighted || ageing_.count() > 0;
    for (auto& queue : queues_) {
        queue.rules = rules_.for_queue(queue.name);
        ruled_ = ruled_ || queue.most_running || queue.rules.paused ||
                 !queue.rules.limits.empty() || !queue.rules.epoch.empty();
    }
    json::object all;
    for (const auto& rule : rules_.rules()) {
        json::object one{{"kind", to_string(rule.kind)}, {"limit", rule.limit}};
        one["per"] = rule.per.count();
        if (rule.kind == Rule::Kind::leaky_bucket)
            one["burst"] = 1.25;  // As leaky_burst in lua/includes/limits.lua.
        else if (rule.burst)
            one["burst"] = *rule.burst;
        if (rule.per_worker) one["worker"] = true;
        // Other points are in the lanes' names.
        if (std::ranges::all_of(rule.points, [](char c) { return c >= '0' && c <= '9'; }))
            one["points"] = std::stoll(rule.points);
        all[rule.name] = std::move(one);
    }
    rules_text_ = json::serialize(all);
}

std::vector<std::string> ClaimPlan::limiters_of(const Job& job, const std::string& worker) const {
    const auto queue = std::ranges::find(queues_, job.origin, &PlannedQueue::name);
    if (queue == queues_.end()) return {};
    std::vector<std::string> names;
    const auto add = [&](const std::string& rule_name, std::string key) {
        const auto rule = std::ranges::find(rules_.rules(), rule_name, &Rule::name);
        if (rule == rules_.rules().end() || rule->kind == Rule::Kind::pause) return;
        if (rule->per_worker) key += "@" + worker;
        names.push_back(key.empty() ? rule_name : rule_name + ":" + key);
    };
    for (const auto& rule : queue->rules.limits)
        add(rule, {});
    for (auto& [rule, key] : parts_of_lane(lane_for(queue->rules, job.origin, job.data, job.meta)))
        add(rule, std::move(key));
    return names;
}

const Script& ClaimPlan::script() const noexcept {
    return ruled_ ? lua::claim_ruled : lua::claim;
}

std::string ClaimPlan::plan_text(const RunningByQueue& running) {
    json::array queues;
    for (const auto index : order_) {
        const auto& queue = queues_[index];
        std::int64_t most = -1;
        if (queue.most_running) {
            const auto found = running.find(queue.name);
            const auto busy = found == running.end() ? 0 : found->second;
            most = static_cast<std::int64_t>(*queue.most_running -
                                             std::min(busy, *queue.most_running));
        }
        json::object planned{{"name", queue.name}};
        if (strategy_ == Strategy::weighted) {
            planned["weight"] = queue.weight;
            planned["share"] = queue.share;
        }
        if (most >= 0) planned["most"] = most;
        if (queue.rules.paused) planned["paused"] = true;
        if (!queue.rules.epoch.empty()) planned["epoch"] = queue.rules.epoch;
        if (!queue.rules.limits.empty()) planned["limits"] = json::value_from(queue.rules.limits);
        queues.push_back(std::move(planned));
    }
    const char* strategy = strategy_ == Strategy::weighted ? "weighted"
                           : strategy_ == Strategy::strict ? "strict"
                                                           : "turns";
    std::string text = json::serialize(json::object{{"strategy", strategy},
                                                    {"age", ageing_.count()},
                                                    {"after_risen", after_risen_},
                                                    {"queues", std::move(queues)}});
    // Rules are long and seldom change.
    text.back() = ',';
    return text + "\"rules\":" + rules_text_ + "}";
}

std::pair<std::vector<std::string>, std::vector<std::string>> ClaimPlan::arguments(
    Request request) {
    order_.resize(queues_.size());
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    if (strategy_ == Strategy::round_robin)
        std::rotate(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(first_queue_),
                    order_.end());
    else if (strategy_ == Strategy::random)
        std::shuffle(order_.begin(), order_.end(), random_);
    std::vector<std::string> script_keys{request.worker_key, request.executions_key};
    std::vector<std::string> args{request.worker,
                                  std::to_string(request.limit),
                                  std::to_string(rq_heartbeat_ttl.count()),
                                  std::move(request.oldest_job),
                                  std::to_string(request.capacity),
                                  rules_.version()};
    if (ruled_) {
        args.push_back(plan_text(request.running));
    } else {
        for (const auto index : order_)
            script_keys.push_back(queue_keys_[index]);
        args.emplace_back(strategy_ == Strategy::strict ? "0" : "1");
    }
    args.reserve(args.size() + request.limit);
    for (std::size_t i = 0; i < request.limit; ++i)
        args.push_back(new_execution_id());
    return {std::move(script_keys), std::move(args)};
}

ClaimResult ClaimPlan::digest(Reply reply, std::chrono::steady_clock::time_point asked_at) {
    auto& parts = reply.elements;
    if (parts.size() != 4 && parts.size() != 6)
        throw Error(Errc::protocol, "the claim script gave an unexpected answer");
    ClaimResult result;
    result.state = static_cast<ClaimResult::State>(parts[0].as_integer());
    const Timestamp now{std::chrono::microseconds(parts[1].as_integer())};
    for (auto& row : parts[2].elements) {
        Claimed claimed{row.elements.at(0).text,
                        row.elements.at(1).text,
                        row.elements.at(2).text,
                        now,
                        asked_at,
                        {}};
        if (row.elements.size() > 3) claimed.fields = hash_fields(std::move(row.elements[3]));
        result.claimed.push_back(std::move(claimed));
    }
    for (auto& row : parts[3].elements)
        result.skipped.push_back(
            {row.elements.at(0).text, row.elements.at(1).text, row.elements.at(2).text});
    if (!result.claimed.empty()) {
        const auto served =
            std::ranges::find(queues_, result.claimed.back().origin, &PlannedQueue::name);
        if (served != queues_.end())
            first_queue_ = static_cast<std::size_t>(served - queues_.begin() + 1) % queues_.size();
    }
    if (parts.size() == 4 || parts[5].elements.size() != order_.size()) return result;
    after_risen_ = parts[4].as_integer() == 1;
    for (std::size_t i = 0; i < order_.size(); ++i) {
        auto& queue = queues_[order_[i]];
        const auto& told = parts[5].elements[i].elements;
        const auto again = told.at(0).as_integer();
        if (again == -1) result.held_up = true;
        if (again == -3) result.paused = true;
        if (again > 0 || again == -2) {
            const auto wait = again > 0 ? std::chrono::microseconds(again) - now.time_since_epoch()
                                        : std::chrono::microseconds(0);
            const auto at = std::chrono::steady_clock::now() +
                            std::max<std::chrono::microseconds>(wait, std::chrono::microseconds(0));
            result.look_again = std::min(at, result.look_again.value_or(at));
        }
        if (told.at(1).as_integer() == 0) result.unwatchable.push_back(queue_keys_[order_[i]]);
        if (told.at(2).as_integer() == 1) result.unsorted.push_back(queue.name);
        queue.share = told.at(3).as_integer();
    }
    return result;
}

}  // namespace rqxx::ops
