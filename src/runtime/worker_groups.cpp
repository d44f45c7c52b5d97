#include <algorithm>

#include "runtime/worker_impl.hpp"

namespace rqxx {

using namespace std::chrono_literals;
using ops::Settlement;
using runtime::Execution;
using runtime::StopReason;
namespace asio = boost::asio;

std::size_t Worker::Impl::beside_slots() const {
    std::size_t waiting = 0;
    for (const auto& [function, group] : forming)
        waiting += group.jobs.size();
    return running.size() + waiting - slots_in_use();
}

std::size_t Worker::Impl::room_in_groups() const {
    if (forming.empty() || groups_blocked || stopping()) return 0;
    std::size_t room = 0;
    for (const auto& [function, group] : forming)
        room += group.most.max_size - group.jobs.size();
    return std::min(room - std::min(room, unstarted), grouped_in_a_row);
}

bool Worker::Impl::join_group(const std::shared_ptr<Execution>& execution) {
    if (!goes_into_group(*execution)) {
        grouped_in_a_row = 0;
        return false;
    }
    const auto found = forming.find(execution->call.func_name);
    if (found == forming.end()) return false;
    ++grouped_in_a_row;
    found->second.jobs.push_back(execution);
    if (found->second.jobs.size() >= found->second.most.max_size) start_group(found);
    slot_freed.notify();
    return true;
}

bool Worker::Impl::begin_group(const std::shared_ptr<Execution>& execution) {
    if (!goes_into_group(*execution)) return false;
    const auto most = *executors.aggregation_of(execution->call);
    ++grouped_in_a_row;
    const auto added =
        forming
            .emplace(execution->call.func_name,
                     Forming{most, {execution}, std::chrono::steady_clock::now() + most.max_wait})
            .first;
    if (most.max_size == 1)
        start_group(added);
    else
        forming_changed.notify();
    slot_freed.notify();  // More may be claimed for it.
    return true;
}

bool Worker::Impl::goes_into_group(const Execution& execution) const {
    // A worker that died may have died of it: it takes no others with it again.
    constexpr std::string_view recovered = "rqxx_recoveries";
    return execution.aggregated &&
           std::ranges::none_of(execution.job.extra,
                                [&](const auto& field) { return field.first == recovered; });
}

void Worker::Impl::start_group(std::map<std::string, Forming>::iterator group) {
    auto jobs = std::move(group->second.jobs);
    forming.erase(group);
    groups_blocked = false;
    // Redis has not answered for so long that others may have them by now.
    if (std::chrono::steady_clock::now() - lease_renewed > options.lease) {
        log.warning("Jobs are put back: Redis was not there when they were to start", "jobs",
                    jobs.size());
        give_back(jobs);
        slot_freed.notify();
        return;
    }
    launch(jobs);
}

void Worker::Impl::start_groups() {
    while (!forming.empty())
        start_group(forming.begin());
}

void Worker::Impl::give_back_groups() {
    for (auto& [function, group] : std::exchange(forming, {}))
        give_back(group.jobs);
}

void Worker::Impl::end_groups() {
    if (stopping())
        give_back_groups();
    else if (unstarted == 0)
        start_groups();
}

void Worker::Impl::give_back(std::span<const std::shared_ptr<Execution>> jobs) {
    std::vector<ops::Claimed> claims;
    claims.reserve(jobs.size());
    for (const auto& job : jobs)
        claims.push_back({.job_id = job->job.id,
                          .execution_id = job->id,
                          .origin = job->job.origin,
                          .started_at = job->started_at});
    claimed -= claims.size();
    give_back(claims);
}

void Worker::Impl::no_slot_for_a_job() {
    groups_blocked = true;
    // Nothing that could be waited for comes before it, and no slot is about to be freed.
    if (running.empty() && !forming.empty())
        start_group(std::ranges::min_element(forming, {},
                                             [](const auto& one) { return one.second.until; }));
}

asio::awaitable<void> Worker::Impl::group_loop() {
    for (;;) {
        const auto now = std::chrono::steady_clock::now();
        auto next = now + 1h;
        for (auto group = forming.begin(); group != forming.end();) {
            const auto one = group++;
            if (one->second.until <= now)
                start_group(one);
            else
                next = std::min(next, one->second.until);
        }
        co_await forming_changed.wait(next - std::chrono::steady_clock::now());
    }
}

std::shared_ptr<Execution> Worker::Impl::take_out(
    const std::function<bool(const Execution&)>& wanted) {
    for (auto group = forming.begin(); group != forming.end(); ++group) {
        auto& jobs = group->second.jobs;
        const auto found =
            std::ranges::find_if(jobs, [&](const auto& one) { return wanted(*one); });
        if (found == jobs.end()) continue;
        auto execution = *found;
        jobs.erase(found);
        if (jobs.empty()) {
            forming.erase(group);
            slot_freed.notify();
        }
        return execution;
    }
    return nullptr;
}

void Worker::Impl::end_waiting(const std::shared_ptr<Execution>& execution, StopReason reason) {
    if (reason == StopReason::stopped) {
        // What runs it sees that it is to end, and calls no more than its callback.
        execution->request_stop(reason);
        launch({&execution, 1});
    } else {
        give_back({&execution, 1});  // The fence says what has become of it.
    }
}

}  // namespace rqxx
