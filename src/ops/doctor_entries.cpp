#include <fmt/format.h>

#include <algorithm>

#include "ops/doctor_examination.hpp"
#include "ops/doctor_walks.hpp"
#include "ops/keys.hpp"

namespace rqxx::ops::doctor {

namespace {

constexpr std::uint64_t large_registry = 100'000;

/// Source: rq/job.py Job.id (RQ 2.10).
bool is_job_id(std::string_view text) {
    return !text.empty() && std::ranges::all_of(text, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-';
    });
}

}  // namespace

asio::awaitable<void> Examination::read_lists() {
    Places elsewhere;
    for (const auto& key : lists_) {
        const std::string queue = behind(key, keys::queue_prefix);
        options_->report("reading queues", 0, 0);
        const Visit visit = [&](const std::string& id) {
            read_list_entry(key, queue, id, elsewhere);
        };
        if (!co_await walk_list(*redis_, key, visit))
            evidence_->add("wrong-type", queue, key, "list");
    }
    for (const auto& [key, id] : elsewhere)
        if (job(id)->is(on_own_list))
            evidence_->add("duplicate-id", behind(key, keys::queue_prefix), key, id);
    for (const auto& key : intermediates_) {
        std::string queue = behind(key, keys::queue_prefix);
        queue.resize(queue.size() - std::string_view(":intermediate").size());
        const Visit visit = [&](const std::string& id) {
            auto* state = job(id);
            if (state != nullptr) state->flags |= in_intermediate;
            evidence_->add(!is_job_id(id)     ? "bad-id"
                           : state == nullptr ? "ghost-id"
                                              : "stuck-intermediate",
                           queue, key, id);
        };
        if (!co_await walk_list(*redis_, key, visit))
            evidence_->add("wrong-type", queue, key, "list");
    }
    for (const auto& key : scratch_lists_) {
        const Visit visit = [&](const std::string& id) {
            if (auto* state = job(id)) state->flags |= in_scratch;
        };
        co_await walk_list(*redis_, key, visit);
        evidence_->add("compact-leftover", options_->queue, key, {});
    }
    const Reply sorted_queues = co_await redis_->command("HKEYS", keys::sorted);
    for (const auto& queue : sorted_queues.as_array()) {
        const Reply lanes = co_await redis_->command("SMEMBERS", keys::lanes(queue.text));
        for (const auto& lane : lanes.as_array()) {
            co_await walk_scores(*redis_, keys::lane(lane.text, queue.text),
                                 [&](const std::string& id, double) {
                                     if (auto* state = job(id)) state->flags |= in_lane;
                                 });
        }
    }
    for (const auto& key : marks_) {
        static constexpr std::string_view mark = ":intermediate:first_seen:";
        const auto at = key.find(mark);
        evidence_->add("stale-mark", key.substr(9, at - 9), key, key.substr(at + mark.size()));
    }
}

void Examination::read_list_entry(const std::string& key, const std::string& queue,
                                  const std::string& id, Places& elsewhere) {
    auto* state = job(id);
    if (!is_job_id(id)) return evidence_->add("bad-id", queue, key, id);
    if (state == nullptr) return evidence_->add("ghost-id", queue, key, id);
    if (state->status > queued && state->status <= rate_limited)
        return evidence_->add("stray-entry", queue, key, id);
    const bool own = state->queue == 0 || queue_of(*state) == queue;
    if (own ? state->is(on_own_list) : state->is(on_list))
        evidence_->add("duplicate-id", queue, key, id);
    if (!own) elsewhere.emplace_back(key, id);
    state->flags |= own ? on_list | on_own_list : on_list;
}

asio::awaitable<void> Examination::read_registries() {
    for (std::size_t i = 0; i < registry_kinds.size(); ++i) {
        const auto& kind = registry_kinds[i];
        for (const auto& key : registries_[i]) {
            const std::string queue = behind(key, kind.prefix);
            std::uint64_t count = 0, for_ever = 0;
            options_->report("reading registries", 0, 0);
            const bool read =
                co_await walk_scores(*redis_, key, [&](const std::string& member, double score) {
                    ++count;
                    if (score < 0) ++for_ever;
                    if (kind.flag == in_wip)
                        read_wip_entry(key, queue, member, score);
                    else
                        read_entry(kind, key, queue, member, score);
                });
            if (!read) evidence_->add("wrong-type", queue, key, "zset");
            if (!options_->concerns(queue)) continue;
            const bool cleaned =
                kind.flag == in_wip || kind.flag == in_finished || kind.flag == in_scheduled;
            if (!cleaned && count > large_registry)
                evidence_->add_fact("large-registry", 1, key, fmt::format("{} jobs", count));
            if (kind.flag == in_failed && for_ever > 0)
                evidence_->add_fact("kept-for-ever", for_ever, key,
                                    fmt::format("{} jobs", for_ever));
        }
    }
    for (const auto& key : held_back_) {
        const bool read = co_await walk_scores(*redis_, key, [&](const std::string& id, double) {
            if (auto* state = job(id)) state->flags |= in_rate_limited;
        });
        if (!read) evidence_->add("wrong-type", options_->queue, key, "zset");
    }
    for (const auto& key : limits_) {
        co_await walk_scores(*redis_, key, [&](const std::string& id, double) {
            const auto* state = job(id);
            if (state == nullptr || (state->status != queued && state->status != started))
                evidence_->add("leaked-slot", options_->queue, key, id);
        });
    }
}

void Examination::read_entry(const RegistryKind& kind, const std::string& key,
                             const std::string& queue, const std::string& id, double score) {
    auto* state = job(id);
    if (!is_job_id(id)) return evidence_->add("bad-id", queue, key, id);
    if (state == nullptr) {
        const bool expires = kind.flag == in_finished || kind.flag == in_failed;
        if (expires && score >= 0 && score <= now_) {
            if (score < now_ - 3600) evidence_->add("expired-entry", queue, key, id);
        } else {
            evidence_->add("ghost-id", queue, key, id);
        }
        return;
    }
    if (state->status == unknown || state->status > rate_limited || !state->is(has_data)) return;
    const bool fits = std::ranges::find(kind.fits, state->status) != kind.fits.end() &&
                      (state->queue == 0 || queue_of(*state) == queue);
    if (fits)
        state->flags |= kind.flag;
    else if (!state->is(repeats) || (kind.flag & (in_finished | in_failed)) == 0)
        evidence_->add("stray-entry", queue, key, id);
}

void Examination::read_wip_entry(const std::string& key, const std::string& queue,
                                 const std::string& member, double score) {
    const auto colon = member.find(':');
    const std::string id = member.substr(0, colon);
    const bool bare = colon == std::string::npos;
    if (!is_job_id(id) || (!bare && member.find(':', colon + 1) != std::string::npos))
        return evidence_->add("malformed-wip", queue, key, member);
    auto* state = job(id);
    if (state == nullptr) {
        if (score <= now_) evidence_->add("ghost-id", queue, key, member);
        return;
    }
    state->flags |= in_wip;
    if (state->status == unknown) return;
    if (bare) evidence_->add("mixed-versions", queue, key, member);
    if (state->status == started) {
        if (score <= now_) evidence_->add("dead-started", queue, {}, id, member);
    } else if (score <= now_ || state->status > queued) {
        evidence_->add("stray-wip", queue, key, id, member);
    }
}

asio::awaitable<void> Examination::read_groups() {
    for (const auto& key : groups_) {
        std::string cursor = "0";
        do {
            Pipeline pipeline;
            pipeline.add("SSCAN", key, cursor, "COUNT", window);
            const auto replies = co_await redis_->run(std::move(pipeline));
            if (replies[0].is_error()) {
                evidence_->add("wrong-type", options_->queue, key, "set");
                break;
            }
            cursor = replies[0].as_array().at(0).as_text();
            for (const auto& id : replies[0].elements.at(1).as_array())
                if (job(id.text) == nullptr)
                    evidence_->add("ghost-in-group", options_->queue, key, id.text);
        } while (cursor != "0");
    }
}

asio::awaitable<void> Examination::look_at_lists() {
    auto& lost = evidence_->suspects("lost-queued");
    auto& twice = evidence_->suspects("duplicate-id");
    if (lost.empty() && twice.empty()) co_return;
    std::unordered_map<std::string, unsigned> times;
    for (const auto* list : {&lost, &twice})
        for (const auto& suspect : *list)
            times.emplace(suspect.id, 0);
    const Visit visit = [&](const std::string& id) {
        if (const auto found = times.find(id); found != times.end()) ++found->second;
    };
    for (const auto& key : lists_)
        co_await walk_list(*redis_, key, visit);
    std::erase_if(lost, [&](const Suspect& suspect) { return times[suspect.id] > 0; });
    std::erase_if(twice, [&](const Suspect& suspect) { return times[suspect.id] < 2; });
}

}  // namespace rqxx::ops::doctor
