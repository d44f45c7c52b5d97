#include <algorithm>
#include <array>

#include "ops/doctor_examination.hpp"
#include "ops/doctor_fields.hpp"
#include "ops/doctor_walks.hpp"
#include "ops/keys.hpp"

namespace rqxx::ops::doctor {

namespace {

/// Source: rq/job.py Job.restore (RQ 2.10, 3.0).
constexpr std::array<Field, 21> job_fields{{
    {"created_at", Reading::time},
    {"enqueued_at", Reading::time},
    {"started_at", Reading::time},
    {"ended_at", Reading::time},
    {"last_heartbeat", Reading::time},
    {"timeout", Reading::number_or_empty},
    {"result_ttl", Reading::number_or_empty},
    {"failure_ttl", Reading::number_or_empty},
    {"ttl", Reading::number_or_empty},
    {"retries_left", Reading::number_or_empty},
    {"repeats_left", Reading::number_or_empty},
    {"number_of_retries", Reading::number_or_empty},
    {"allow_dependency_failures", Reading::number_or_empty},
    {"enqueue_at_front_on_retry", Reading::number_or_empty},
    {"rate_limit_concurrency", Reading::number_or_empty},
    {"enqueue_at_front", Reading::number},
    {"success_callback_timeout", Reading::number},
    {"failure_callback_timeout", Reading::number},
    {"stopped_callback_timeout", Reading::number},
    {"retry_intervals", Reading::intervals},
    {"repeat_intervals", Reading::intervals},
}};
constexpr std::size_t repeats_left_at = 10;

Status status_of(std::string_view word) {
    if (word.empty()) return created;
    const auto found = std::ranges::find(status_words, word);
    return found == status_words.end() ? unknown
                                       : static_cast<Status>(found - status_words.begin());
}

}  // namespace

JobState* Examination::job(const std::string& id) {
    const auto found = jobs_.find(id);
    return found == jobs_.end() || !found->second.is(has_hash) ? nullptr : &found->second;
}

std::uint32_t Examination::queue_index(const std::string& name) {
    if (name.empty()) return 0;
    const auto [entry, added] =
        queue_indices_.emplace(name, static_cast<std::uint32_t>(queue_names_.size()));
    if (added) queue_names_.push_back(name);
    return entry->second;
}

struct Examination::JobBatch {
    std::vector<Jobs::iterator> jobs;
    RedisClient::Pending replies;
};

Examination::JobBatch Examination::next_batch(Jobs::iterator& at) {
    static constexpr std::size_t size = 250;
    JobBatch batch;
    Pipeline pipeline;
    for (; at != jobs_.end() && batch.jobs.size() < size; ++at) {
        if (!at->second.is(has_hash)) continue;
        batch.jobs.push_back(at);
        const std::string key = keys::job(at->first);
        pipeline.begin(8 + job_fields.size());
        for (const auto* word : {"HMGET", key.c_str(), "status", "origin", "group_id",
                                 "worker_name", "dependency_ids", "dependency_id"})
            pipeline.argument(std::string_view(word));
        for (const auto& field : job_fields)
            pipeline.argument(field.name);
        for (const auto* field : {"data", "exc_info", "result"})
            pipeline.add("HSTRLEN", key, field);
    }
    if (!batch.jobs.empty()) batch.replies = redis_->submit(std::move(pipeline));
    return batch;
}

asio::awaitable<void> Examination::read_jobs() {
    auto at = jobs_.begin();
    std::uint64_t done = 0;
    JobBatch batch = next_batch(at);
    while (!batch.jobs.empty()) {
        JobBatch following = next_batch(at);  // on its way while this one is read
        const auto replies = co_await batch.replies.replies();
        for (std::size_t i = 0; i < batch.jobs.size(); ++i)
            read_job(*batch.jobs[i], replies.data() + 4 * i);
        options_->report("reading jobs", done += batch.jobs.size(), jobs_.size());
        batch = std::move(following);
    }
}

void Examination::read_job(Jobs::value_type& entry, const Reply* replies) {
    auto& [id, state] = entry;
    if (replies[0].is_error()) {
        evidence_->add("wrong-type", options_->queue, keys::job(id), "hash");
        state.flags &= static_cast<std::uint32_t>(~has_hash);
        return;
    }
    const auto& fields = replies[0].as_array();
    const bool any_data = replies[1].integer > 0;
    if (!any_data && std::ranges::all_of(fields, [](const Reply& r) { return r.is_nil(); })) {
        state.flags &= static_cast<std::uint32_t>(~has_hash);  // It has expired meanwhile.
        return;
    }
    ++job_count_;
    const std::string& word = fields[0].text;
    state.status = status_of(word);
    state.queue = queue_index(fields[1].text);
    if (any_data) state.flags |= has_data;
    if (!fields[4].text.empty() || !fields[5].text.empty()) state.flags |= names_dependencies;
    if (!fields[6 + repeats_left_at].is_nil()) state.flags |= repeats;
    const std::string& queue = queue_of(state);
    if (!any_data) return evidence_->add("no-data", queue, keys::job(id), id);
    if (!word.empty() && std::ranges::find(status_words, word) == status_words.end())
        evidence_->add("unknown-status", queue, {}, id);
    if (state.queue == 0 && state.status != created) evidence_->add("no-origin", queue, {}, id);
    for (std::size_t i = 0; i < job_fields.size(); ++i) {
        const Reply& value = fields[6 + i];
        if (!value.is_nil() && !readable(job_fields[i].reading, value.text))
            evidence_->add("bad-field", queue, value.text, id, std::string(job_fields[i].name));
    }
    if (!readable(Reading::ids, fields[4].text))
        evidence_->add("bad-field", queue, fields[4].text, id, "dependency_ids");
    if (!fields[2].text.empty() && !groups_.contains(keys::group(fields[2].text)))
        evidence_->add("missing-group", queue, {}, id, fields[2].text);
    // RQ 2.x itself leaves an empty text, compressed, and results of jobs that run again.
    if (replies[2].integer > 8) evidence_->add("old-fields", queue, {}, id, "exc_info");
    if (replies[3].integer > 0 && fields[6 + repeats_left_at].is_nil() &&
        fields[6 + repeats_left_at + 1].is_nil())
        evidence_->add("old-fields", queue, {}, id, "result");
    if (state.status == started && lapsed_leases_.contains(fields[3].text))
        evidence_->add("dead-started", queue, {}, id);
}

asio::awaitable<void> Examination::read_dependents() {
    options_->report("reading dependencies", 0, 0);
    co_await for_each(
        *redis_, dependents_,
        [](Pipeline& to, const std::string& id) { to.add("SMEMBERS", keys::dependents(id)); },
        [this](const std::string& id, const Reply& members) {
            const std::string key = keys::dependents(id);
            const auto* parent = job(id);
            const std::string queue = parent != nullptr ? queue_of(*parent) : options_->queue;
            if (members.is_error()) return evidence_->add("wrong-type", queue, key, "set");
            if (parent == nullptr) return evidence_->add("leftover-set", queue, key, id);
            for (const auto& child : members.elements) {
                const auto* state = job(child.text);
                if (state == nullptr)
                    evidence_->add("stale-dependent", queue, key, child.text);
                else if (!state->is(names_dependencies))
                    evidence_->add("stray-dependent", queue, key, child.text);
            }
        });
    for (const auto& id : dependencies_)
        if (job(id) == nullptr)
            evidence_->add("leftover-set", options_->queue, keys::dependencies(id), id);
}

asio::awaitable<void> Examination::read_executions() {
    co_await for_each(
        *redis_, executions_,
        [](Pipeline& to, const std::string& id) { to.add("ZRANGE", keys::executions(id), 0, -1); },
        [this](const std::string& id, const Reply& members) {
            const auto* state = job(id);
            const std::string queue = state != nullptr ? queue_of(*state) : options_->queue;
            if (members.is_error())
                return evidence_->add("wrong-type", queue, keys::executions(id), "zset");
            for (const auto& execution : members.elements) {
                execution_records_.erase(id + ":" + execution.text);
                evidence_->add(state != nullptr && state->status == started ? "broken-execution"
                                                                            : "orphaned-execution",
                               queue, {}, id, execution.text);
            }
        });
    for (const auto& name : execution_records_) {
        const auto colon = name.find(':');
        if (colon == std::string::npos) continue;
        const std::string id = name.substr(0, colon);
        const auto* state = job(id);
        if (state == nullptr || state->status != started)
            evidence_->add("orphaned-execution",
                           state != nullptr ? queue_of(*state) : options_->queue, {}, id,
                           name.substr(colon + 1));
    }
}

void Examination::judge_jobs() {
    for (const auto& [id, state] : jobs_) {
        if (!state.is(has_hash)) {
            if (state.is(has_results))
                evidence_->add("leftover-results", options_->queue, keys::results(id), id);
            continue;
        }
        if (!state.is(has_data) || state.queue == 0) continue;
        const auto lost = [&](const char* code, int places) {
            if (!state.is(static_cast<std::uint32_t>(places)))
                evidence_->add(code, queue_of(state), {}, id);
        };
        switch (state.status) {
            case queued:
                lost("lost-queued", on_list | in_intermediate | in_scratch | in_wip | in_lane);
                break;
            case deferred:
                lost("lost-deferred", in_deferred);
                break;
            case scheduled:
                lost("lost-scheduled", in_scheduled);
                break;
            case started:
                lost("dead-started", in_wip);
                break;
            case finished:
                lost("lost-ended", in_finished);
                break;
            case failed:
            case stopped:
                lost("lost-ended", in_failed);
                break;
            case canceled:
                lost("lost-ended", in_canceled);
                break;
            case rate_limited:
                lost("lost-limited", in_rate_limited);
                break;
            default:
                break;
        }
    }
}

asio::awaitable<void> Examination::look_at_details() {
    static constexpr std::string_view of_deferred[] = {"missing-dependencies", "orphaned-dependent",
                                                       "waits-for-gone", "waits-for-failed"};
    std::vector<Suspect> waiting, with_results;
    std::uint64_t done = 0;
    for (auto at = jobs_.begin(); at != jobs_.end();) {
        const auto& [id, state] = *at;
        ++at;
        if (state.is(has_hash) && state.is(has_data) && options_->concerns(queue_of(state))) {
            if (state.status == deferred) waiting.push_back({{}, id, {}, {}, {}});
            if (state.is(has_results)) with_results.push_back({{}, id, {}, {}, {}});
        }
        if (++done % window == 0) options_->report("reading results", done, jobs_.size());
        const bool last = at == jobs_.end();
        if (waiting.size() >= window || last) {
            for (const auto code : of_deferred)
                co_await evidence_->add_confirmed(code, waiting);
            waiting.clear();
        }
        if (with_results.size() >= window || last) {
            co_await evidence_->add_confirmed("bad-result", with_results);
            with_results.clear();
        }
    }
}

}  // namespace rqxx::ops::doctor
