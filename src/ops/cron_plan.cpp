#include <algorithm>
#include <rqxx/cron_service.hpp>

namespace rqxx {

using std::chrono::seconds;

CronPlan::CronPlan(std::vector<CronSchedule> schedules)
    : schedules_(std::move(schedules)), positions_(schedules_.size()) {}

void CronPlan::resume(std::size_t schedule, Slot last) {
    positions_[schedule] = {last, schedules_[schedule].next(last)};
}

CronPlan::Decision CronPlan::take_due(Timestamp now) {
    Decision decision;
    for (std::size_t i = 0; i < schedules_.size(); ++i) {
        const CronSchedule& schedule = schedules_[i];
        Position& position = positions_[i];
        const auto is_due = [&](const std::optional<Slot>& slot) {
            return slot && *slot + schedule.delay(*slot) <= now;
        };
        const Slot horizon = std::chrono::floor<seconds>(now - lateness - schedule.jitter);
        if (position.next && *position.next <= horizon) {
            std::vector<Slot> slots;
            if (schedule.catch_up == CatchUp::all)
                slots = schedule.newest(position.done, horizon, catch_up_limit);
            // One that is due anyway makes up for those before it.
            else if (schedule.catch_up == CatchUp::one && !is_due(schedule.next(horizon)))
                slots = schedule.newest(position.done, horizon, 1);
            if (slots.empty() || slots.front() > *position.next)
                decision.missed.push_back({i, *position.next});
            for (const Slot slot : slots)
                decision.due.push_back({i, slot});
            resume(i, horizon);
        }
        while (is_due(position.next)) {
            decision.due.push_back({i, *position.next});
            resume(i, *position.next);
        }
    }
    return decision;
}

std::optional<Timestamp> CronPlan::next_due() const {
    std::optional<Timestamp> next;
    for (std::size_t i = 0; i < schedules_.size(); ++i) {
        const auto& slot = positions_[i].next;
        if (!slot) continue;
        const Timestamp at = *slot + schedules_[i].delay(*slot);
        next = next ? std::min(*next, at) : at;
    }
    return next;
}

}  // namespace rqxx
