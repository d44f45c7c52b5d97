#include <algorithm>

#include "ops/doctor_examination.hpp"
#include "ops/doctor_walks.hpp"
#include "ops/keys.hpp"

namespace rqxx::ops::doctor {

asio::awaitable<void> Examination::scan() {
    const auto total =
        static_cast<std::uint64_t>((co_await redis_->command("DBSIZE")).as_integer());
    std::string cursor = "0";
    std::uint64_t seen = 0;
    do {
        const Reply reply =
            co_await redis_->command("SCAN", cursor, "MATCH", "rq:*", "COUNT", window);
        cursor = reply.as_array().at(0).as_text();
        for (const auto& key : reply.elements.at(1).as_array())
            sort_key(key.text);
        keys_ += reply.elements[1].elements.size();
        options_->report("reading keys", std::min(seen += window, total), total);
    } while (cursor != "0");
}

void Examination::sort_key(const std::string& key) {
    if (key.starts_with("rq:job:")) return sort_job_key(behind(key, "rq:job:"));
    if (key.starts_with("rq:results:")) {
        jobs_[behind(key, "rq:results:")].flags |= has_results;
        return;
    }
    if (key.starts_with(keys::queue_prefix)) return sort_queue_key(key);
    for (std::size_t i = 0; i < registry_kinds.size(); ++i)
        if (key.starts_with(registry_kinds[i].prefix)) registries_[i].insert(key);
    static constexpr std::string_view slots = ":allowed", held_back = ":rate_limited";
    if (key.starts_with("rq:executions:"))
        executions_.insert(behind(key, "rq:executions:"));
    else if (key.starts_with("rq:execution:"))
        execution_records_.insert(behind(key, "rq:execution:"));
    else if (key.starts_with("rq:workers:"))
        worker_sets_.insert(key);
    else if (key.starts_with(keys::worker_prefix) && !key.ends_with(":executions"))
        worker_records_.insert(key);
    else if (key.starts_with("rq:group:"))
        groups_.insert(key);
    else if (key.starts_with("rq:clean_registries:"))
        maintenance_locks_.insert(key);
    else if (key.starts_with("rq:scheduler-lock:"))
        scheduler_locks_.insert(key);
    else if (key.starts_with("rq:rl:") && key.ends_with(slots))
        limits_.insert(key);
    else if (key.starts_with("rq:rl:") && key.ends_with(held_back))
        held_back_.insert(key);
}

void Examination::sort_job_key(std::string rest) {
    static constexpr std::string_view dependents = ":dependents", dependencies = ":dependencies";
    if (rest.starts_with(':') && rest.ends_with(dependencies))
        dependencies_.insert(rest.substr(1, rest.size() - 1 - dependencies.size()));
    else if (rest.ends_with(dependents))
        dependents_.insert(rest.substr(0, rest.size() - dependents.size()));
    else
        jobs_[std::move(rest)].flags |= has_hash;
}

void Examination::sort_queue_key(const std::string& key) {
    static constexpr std::string_view mark = ":intermediate:first_seen:";
    if (key.find(mark) != std::string::npos)
        marks_.insert(key);
    else if (key.starts_with("rq:queue:_compact:"))
        scratch_lists_.insert(key);
    else if (key.ends_with(":intermediate"))
        intermediates_.insert(key);
    else
        lists_.insert(key);
}

}  // namespace rqxx::ops::doctor
