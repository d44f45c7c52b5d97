#include "ops/doctor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <rqxx/codec.hpp>
#include <rqxx/job.hpp>
#include <rqxx/time.hpp>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "base/task_group.hpp"
#include "ops/batch_size.hpp"
#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"
#include "ops/upkeep.hpp"

namespace rqxx::ops {

using namespace std::chrono_literals;

namespace {

constexpr std::size_t window = 1000;  ///< Entries that one command reads.
constexpr std::uint64_t large_registry = 100'000;

/// Status words, by the number that a job's state keeps.
constexpr std::array<std::string_view, 12> words{
    "",         "created", "queued",  "deferred", "scheduled",    "started",
    "finished", "failed",  "stopped", "canceled", "rate_limited", "ready_to_enqueue"};
enum Status : std::uint8_t {
    unknown,
    created,
    queued,
    deferred,
    scheduled,
    started,
    finished,
    failed,
    stopped,
    canceled
};

/// What is known of a job, as bits.
enum Flag : std::uint16_t {
    has_hash = 1 << 0,
    has_data = 1 << 1,
    has_results = 1 << 2,
    names_dependencies = 1 << 3,
    repeats = 1 << 4,
    on_list = 1 << 5,
    on_own_list = 1 << 6,
    in_intermediate = 1 << 7,
    in_scratch = 1 << 8,
    in_wip = 1 << 9,
    in_finished = 1 << 10,
    in_failed = 1 << 11,
    in_deferred = 1 << 12,
    in_scheduled = 1 << 13,
    in_canceled = 1 << 14,
};

struct JobState {
    std::uint32_t queue = 0;  ///< Index of the name of its queue; 0: it has none.
    Status status = unknown;
    std::uint16_t flags = 0;

    [[nodiscard]] bool is(std::uint16_t flag) const noexcept { return (flags & flag) != 0; }
};
using Jobs = std::unordered_map<std::string, JobState>;

struct RegistryKind {
    std::string_view prefix;
    std::uint16_t flag;
    std::array<Status, 2> fits;
};
constexpr std::array<RegistryKind, 6> registry_kinds{{
    {"rq:wip:", in_wip, {started, started}},
    {"rq:finished:", in_finished, {finished, finished}},
    {"rq:failed:", in_failed, {failed, stopped}},
    {"rq:deferred:", in_deferred, {deferred, deferred}},
    {"rq:scheduled:", in_scheduled, {scheduled, created}},
    {"rq:canceled:", in_canceled, {canceled, canceled}},
}};

struct Suspect {
    std::string key, id, detail;
    std::string mark, note;

    auto operator<=>(const Suspect& other) const {
        return std::tie(key, id, detail) <=> std::tie(other.key, other.id, other.detail);
    }
    bool operator==(const Suspect& other) const {
        return std::tie(key, id, detail) == std::tie(other.key, other.id, other.detail);
    }
};
using Suspects = std::map<std::string_view, std::vector<Suspect>>;

Status status_of(std::string_view word) {
    if (word.empty()) return created;
    const auto found = std::ranges::find(words, word);
    return found == words.end() ? unknown : static_cast<Status>(found - words.begin());
}

/// Source: rq/job.py Job.id (RQ 2.10).
bool is_job_id(std::string_view text) {
    return !text.empty() && std::ranges::all_of(text, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-';
    });
}

bool is_number(std::string_view text) {
    if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
    return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

bool is_float(const std::string& text) {
    char* end = nullptr;
    std::strtod(text.c_str(), &end);
    return !text.empty() && end == text.c_str() + text.size();
}

bool is_list_of_numbers(std::string_view text) {
    const auto value = decode_json(text);
    return value && value->kind() == Value::Kind::list && !value->items().empty();
}

/// How Python reads a field of a job or worker.
enum class Reading { time, number, number_or_empty, real, intervals, ids };

struct Field {
    std::string_view name;
    Reading reading;
};
/// Source: rq/job.py Job.restore (RQ 2.10).
constexpr std::array<Field, 20> job_fields{{
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
    {"enqueue_at_front", Reading::number},
    {"success_callback_timeout", Reading::number},
    {"failure_callback_timeout", Reading::number},
    {"stopped_callback_timeout", Reading::number},
    {"retry_intervals", Reading::intervals},
    {"repeat_intervals", Reading::intervals},
}};
constexpr std::size_t repeats_left_at = 10;
/// Source: rq/worker/base.py BaseWorker.refresh (RQ 2.10).
constexpr std::array<Field, 7> worker_fields{{
    {"birth", Reading::time},
    {"last_heartbeat", Reading::time},
    {"pid", Reading::number_or_empty},
    {"successful_job_count", Reading::number_or_empty},
    {"failed_job_count", Reading::number_or_empty},
    {"total_working_time", Reading::real},
    {"current_job_working_time", Reading::real},
}};

bool readable(Reading reading, const std::string& value) {
    if (value.empty()) return reading != Reading::number;
    switch (reading) {
        case Reading::time:
            return static_cast<bool>(parse_utc(value));
        case Reading::number:
        case Reading::number_or_empty:
            return is_number(value);
        case Reading::real:
            return is_float(value);
        case Reading::intervals:
            return is_list_of_numbers(value);
        case Reading::ids: {
            const auto ids = decode_json(value);
            return ids && ids->kind() == Value::Kind::list;
        }
    }
    return true;
}

/// Whether a field of INFO has this value.
std::string info_field(std::string_view info, std::string_view name) {
    const auto at = info.find("\n" + std::string(name) + ":");
    if (at == std::string_view::npos) return {};
    info.remove_prefix(at + name.size() + 2);
    return std::string(info.substr(0, info.find_first_of("\r\n")));
}

/// The text behind a prefix of a key.
std::string behind(std::string_view key, std::string_view prefix) {
    return std::string(key.substr(prefix.size()));
}

/// One pass over the data: what may be wrong, and whether it is.
class Examination {
public:
    Examination(RedisClient& redis, const DoctorOptions& options)
        : redis_(&redis), options_(&options) {}

    asio::awaitable<void> suspect() {
        co_await read_clock();
        co_await scan();
        co_await read_server();
        co_await read_jobs();
        co_await read_lists();
        co_await read_registries();
        co_await read_groups();
        co_await read_dependents();
        co_await read_executions();
        co_await read_workers();
        co_await read_locks();
        judge_jobs();
        co_await look_at_details();
        for (auto& [code, list] : suspects_) {
            std::ranges::sort(list);
            const auto rest = std::ranges::unique(list);
            list.erase(rest.begin(), rest.end());
        }
    }

    /// Looks closer, and again after a while: only what is the same at both looks stays.
    asio::awaitable<void> confirm() {
        co_await look(false);
        if (!std::ranges::any_of(suspects_,
                                 [](const auto& entry) { return !entry.second.empty(); }))
            co_return;
        report("looking again", 0, 0);
        if (options_->recheck > 0ms) {
            Event pause(redis_->executor());
            co_await pause.wait(options_->recheck);
        }
        co_await look(true);
    }

    /// How many of each kind were mended.
    asio::awaitable<std::map<std::string_view, std::uint64_t>> mend() {
        std::map<std::string_view, std::uint64_t> mended;
        for (const auto& kind : finding_kinds()) {
            const auto found = suspects_.find(kind.code);
            if (kind.repair.empty() || found == suspects_.end()) continue;
            report("mending", 0, 0);
            auto list = found->second;
            while (!list.empty()) {
                const auto answers = co_await ask(kind.code, list, true);
                std::vector<Suspect> again;
                for (std::size_t i = 0; i < list.size(); ++i) {
                    if (answers[i].code == 2) ++mended[kind.code];
                    if (answers[i].code != 3) continue;
                    list[i].mark = answers[i].mark;
                    again.push_back(std::move(list[i]));
                }
                list = std::move(again);
            }
        }
        co_return mended;
    }

    struct Fact {
        std::uint64_t count = 0;
        std::vector<FindingExample> examples;
    };
    /// What was found of a kind.
    [[nodiscard]] Fact found(std::string_view code) const {
        if (const auto fact = facts_.find(code); fact != facts_.end()) return fact->second;
        const auto list = suspects_.find(code);
        if (list == suspects_.end()) return {};
        Fact fact{list->second.size(), {}};
        for (const auto& suspect : list->second) {
            if (fact.examples.size() >= options_->examples) break;
            const bool about_key = suspect.id.empty() || code == "wrong-type";
            // These have the value that was found in the place of the key.
            const bool has_key = !about_key && code != "bad-field" && code != "bad-worker";
            fact.examples.push_back({about_key ? suspect.key : suspect.id,
                                     has_key ? suspect.key : std::string(), suspect.note});
        }
        return fact;
    }
    [[nodiscard]] std::uint64_t keys() const noexcept { return keys_; }
    [[nodiscard]] std::uint64_t jobs() const noexcept { return job_count_; }
    [[nodiscard]] std::uint64_t queues() const noexcept { return lists_.size(); }

private:
    struct Answer {
        std::int64_t code = 0;
        std::string mark, note;
    };

    void report(std::string_view step, std::uint64_t done, std::uint64_t total) const {
        if (options_->progress) options_->progress({step, done, total});
    }
    [[nodiscard]] bool concerns(std::string_view queue) const {
        return options_->queue.empty() || queue == options_->queue;
    }
    void add(std::string_view code, std::string_view queue, std::string key, std::string id,
             std::string detail = {}) {
        if (concerns(queue))
            suspects_[code].push_back({std::move(key), std::move(id), std::move(detail), {}, {}});
    }
    /// Something that needs no second look.
    void add_fact(std::string_view code, std::uint64_t count, std::string subject,
                  std::string note) {
        auto& fact = facts_[code];
        fact.count += count;
        if (fact.examples.size() < options_->examples)
            fact.examples.push_back({std::move(subject), {}, std::move(note)});
    }
    JobState* job(const std::string& id) {
        const auto found = jobs_.find(id);
        return found == jobs_.end() || !found->second.is(has_hash) ? nullptr : &found->second;
    }
    std::uint32_t queue_index(const std::string& name) {
        if (name.empty()) return 0;
        const auto [entry, added] =
            queue_indices_.emplace(name, static_cast<std::uint32_t>(queue_names_.size()));
        if (added) queue_names_.push_back(name);
        return entry->second;
    }
    [[nodiscard]] const std::string& queue_of(const JobState& state) const {
        return queue_names_[state.queue];
    }

    asio::awaitable<void> read_clock() {
        const Reply time = co_await redis_->command("TIME");
        now_ = static_cast<double>(time.as_array().at(0).as_integer());
        Pipeline pipeline;
        pipeline.add("ZRANGEBYSCORE", keys::leases, "-inf",
                     fmt::format("{:.0f}", (now_ - 30) * 1e6));
        const auto replies = co_await redis_->run(std::move(pipeline));
        for (const auto& worker : replies.at(0).elements)
            lapsed_leases_.insert(worker.text);
    }

    // ---- which keys there are

    asio::awaitable<void> scan() {
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
            report("reading keys", std::min(seen += window, total), total);
        } while (cursor != "0");
    }

    void sort_key(const std::string& key) {
        if (key.starts_with("rq:job:")) return sort_job_key(behind(key, "rq:job:"));
        if (key.starts_with("rq:results:")) {
            jobs_[behind(key, "rq:results:")].flags |= has_results;
            return;
        }
        if (key.starts_with(keys::queue_prefix)) return sort_queue_key(key);
        for (std::size_t i = 0; i < registry_kinds.size(); ++i)
            if (key.starts_with(registry_kinds[i].prefix)) registries_[i].insert(key);
        static constexpr std::string_view slots = ":allowed";
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
    }

    void sort_job_key(std::string rest) {
        static constexpr std::string_view dependents = ":dependents",
                                          dependencies = ":dependencies";
        if (rest.starts_with(':') && rest.ends_with(dependencies))
            dependencies_.insert(rest.substr(1, rest.size() - 1 - dependencies.size()));
        else if (rest.ends_with(dependents))
            dependents_.insert(rest.substr(0, rest.size() - dependents.size()));
        else
            jobs_[std::move(rest)].flags |= has_hash;
    }

    void sort_queue_key(const std::string& key) {
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

    // ---- the server

    asio::awaitable<void> read_server() {
        Pipeline pipeline;
        pipeline.add("INFO");
        pipeline.add("CONFIG", "GET", "save");
        pipeline.add("EXISTS", keys::suspended);
        const auto replies = co_await redis_->run(std::move(pipeline));
        const std::string& info = replies[0].text;
        const std::string version = info_field(info, "redis_version");
        int major = 0, minor = 0;
        if (std::sscanf(version.c_str(), "%d.%d", &major, &minor) == 2 &&
            (major < 6 || (major == 6 && minor < 2)))
            add_fact("old-redis", 1, version, {});
        const std::string policy = info_field(info, "maxmemory_policy");
        if (!policy.empty() && policy != "noeviction")
            add_fact("eviction-policy", 1, policy, "CONFIG SET maxmemory-policy noeviction");
        const bool snapshots = replies[1].is_error() || replies[1].elements.size() < 2 ||
                               !replies[1].elements[1].text.empty();
        if (info_field(info, "aof_enabled") == "0" && !snapshots)
            add_fact("no-persistence", 1, "appendonly no, save \"\"", {});
        if (replies[2].integer == 1) add_fact("suspended", 1, std::string(keys::suspended), {});
    }

    // ---- job hashes

    struct Batch {
        std::vector<Jobs::iterator> jobs;
        RedisClient::Pending replies;
    };

    Batch next_batch(Jobs::iterator& at) {
        static constexpr std::size_t size = 250;
        Batch batch;
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

    asio::awaitable<void> read_jobs() {
        auto at = jobs_.begin();
        std::uint64_t done = 0;
        Batch batch = next_batch(at);
        while (!batch.jobs.empty()) {
            Batch following = next_batch(at);  // on its way while this one is read
            const auto replies = co_await batch.replies.replies();
            for (std::size_t i = 0; i < batch.jobs.size(); ++i)
                read_job(*batch.jobs[i], replies.data() + 4 * i);
            report("reading jobs", done += batch.jobs.size(), jobs_.size());
            batch = std::move(following);
        }
    }

    void read_job(Jobs::value_type& entry, const Reply* replies) {
        const auto& [id, state_before] = entry;
        auto& state = entry.second;
        if (replies[0].is_error()) {
            add("wrong-type", options_->queue, keys::job(id), "hash");
            state.flags &= static_cast<std::uint16_t>(~has_hash);
            return;
        }
        const auto& fields = replies[0].as_array();
        const bool any_data = replies[1].integer > 0;
        if (!any_data && std::ranges::all_of(fields, [](const Reply& r) { return r.is_nil(); })) {
            state.flags &= static_cast<std::uint16_t>(~has_hash);  // It has expired meanwhile.
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
        if (!any_data) return add("no-data", queue, keys::job(id), id);
        if (!word.empty() && std::ranges::find(words, word) == words.end())
            add("unknown-status", queue, {}, id);
        if (state.queue == 0 && state.status != created) add("no-origin", queue, {}, id);
        for (std::size_t i = 0; i < job_fields.size(); ++i) {
            const Reply& value = fields[6 + i];
            if (!value.is_nil() && !readable(job_fields[i].reading, value.text))
                add("bad-field", queue, value.text, id, std::string(job_fields[i].name));
        }
        if (!readable(Reading::ids, fields[4].text))
            add("bad-field", queue, fields[4].text, id, "dependency_ids");
        if (!fields[2].text.empty() && !groups_.contains(keys::group(fields[2].text)))
            add("missing-group", queue, {}, id, fields[2].text);
        // RQ 2.x itself leaves an empty text, compressed, and results of jobs that run again.
        if (replies[2].integer > 8) add("old-fields", queue, {}, id, "exc_info");
        if (replies[3].integer > 0 && fields[6 + repeats_left_at].is_nil() &&
            fields[6 + repeats_left_at + 1].is_nil())
            add("old-fields", queue, {}, id, "result");
        if (state.status == started && lapsed_leases_.contains(fields[3].text))
            add("dead-started", queue, {}, id);
    }

    // ---- lists

    using Visit = std::function<void(const std::string&)>;

    /// Each entry of a list that is there all the time, once, from its end: what workers take from
    /// the front moves nothing, and what is pushed meanwhile is stepped over.
    asio::awaitable<bool> walk(std::string key, const Visit& visit) {
        std::vector<Reply> before;
        for (std::size_t at = 0;; at += window) {
            Pipeline pipeline;
            pipeline.add("LRANGE", key, -static_cast<std::int64_t>(at + window),
                         -static_cast<std::int64_t>(at + 1));
            auto replies = co_await redis_->run(std::move(pipeline));
            if (replies[0].is_error()) co_return false;
            auto entries = std::move(replies[0].elements);
            const std::size_t count = entries.size();
            for (std::size_t i = count - overlap(entries, before); i > 0; --i)
                visit(entries[i - 1].text);
            if (count < window) co_return true;
            before = std::move(entries);
        }
    }

    /// How many of the last entries are the first of those read before.
    static std::size_t overlap(const std::vector<Reply>& entries,
                               const std::vector<Reply>& before) {
        if (before.empty()) return 0;
        for (std::size_t from = 0; from < entries.size(); ++from) {
            if (entries[from].text != before.front().text) continue;
            const std::size_t length = entries.size() - from;
            if (length <= before.size() &&
                std::equal(entries.begin() + static_cast<std::ptrdiff_t>(from), entries.end(),
                           before.begin(),
                           [](const Reply& a, const Reply& b) { return a.text == b.text; }))
                return length;
        }
        return 0;
    }

    asio::awaitable<void> read_lists() {
        std::vector<std::pair<std::string, std::string>> elsewhere;  // Key, id.
        for (const auto& key : lists_) {
            const std::string queue = behind(key, keys::queue_prefix);
            report("reading queues", 0, 0);
            const Visit visit = [&](const std::string& id) {
                read_list_entry(key, queue, id, elsewhere);
            };
            if (!co_await walk(key, visit)) add("wrong-type", queue, key, "list");
        }
        for (const auto& [key, id] : elsewhere)
            if (job(id)->is(on_own_list))
                add("duplicate-id", behind(key, keys::queue_prefix), key, id);
        for (const auto& key : intermediates_) {
            std::string queue = behind(key, keys::queue_prefix);
            queue.resize(queue.size() - std::string_view(":intermediate").size());
            const Visit visit = [&](const std::string& id) {
                auto* state = job(id);
                if (state != nullptr) state->flags |= in_intermediate;
                add(!is_job_id(id)     ? "bad-id"
                    : state == nullptr ? "ghost-id"
                                       : "stuck-intermediate",
                    queue, key, id);
            };
            if (!co_await walk(key, visit)) add("wrong-type", queue, key, "list");
        }
        for (const auto& key : scratch_lists_) {
            const Visit visit = [&](const std::string& id) {
                if (auto* state = job(id)) state->flags |= in_scratch;
            };
            co_await walk(key, visit);
            add("compact-leftover", options_->queue, key, {});
        }
        for (const auto& key : marks_) {
            static constexpr std::string_view mark = ":intermediate:first_seen:";
            const auto at = key.find(mark);
            add("stale-mark", key.substr(9, at - 9), key, key.substr(at + mark.size()));
        }
    }

    void read_list_entry(const std::string& key, const std::string& queue, const std::string& id,
                         std::vector<std::pair<std::string, std::string>>& elsewhere) {
        auto* state = job(id);
        if (!is_job_id(id)) return add("bad-id", queue, key, id);
        if (state == nullptr) return add("ghost-id", queue, key, id);
        if (state->status > queued && state->status <= canceled)
            return add("stray-entry", queue, key, id);
        const bool own = state->queue == 0 || queue_of(*state) == queue;
        if (own ? state->is(on_own_list) : state->is(on_list)) add("duplicate-id", queue, key, id);
        if (!own) elsewhere.emplace_back(key, id);
        state->flags |= own ? on_list | on_own_list : on_list;
    }

    // ---- registries

    /// Members and scores of a sorted set.
    asio::awaitable<bool> walk_scores(std::string key,
                                      std::function<void(const std::string&, double)> visit) {
        std::string cursor = "0";
        do {
            Pipeline pipeline;
            pipeline.add("ZSCAN", key, cursor, "COUNT", window);
            const auto replies = co_await redis_->run(std::move(pipeline));
            if (replies[0].is_error()) co_return false;
            cursor = replies[0].as_array().at(0).as_text();
            const auto& cells = replies[0].elements.at(1).as_array();
            for (std::size_t i = 0; i + 1 < cells.size(); i += 2)
                visit(cells[i].text, std::strtod(cells[i + 1].text.c_str(), nullptr));
        } while (cursor != "0");
        co_return true;
    }

    asio::awaitable<void> read_registries() {
        for (std::size_t i = 0; i < registry_kinds.size(); ++i) {
            const auto& kind = registry_kinds[i];
            for (const auto& key : registries_[i]) {
                const std::string queue = behind(key, kind.prefix);
                std::uint64_t count = 0, for_ever = 0;
                report("reading registries", 0, 0);
                const bool read =
                    co_await walk_scores(key, [&](const std::string& member, double score) {
                        ++count;
                        if (score < 0) ++for_ever;
                        if (kind.flag == in_wip)
                            read_wip_entry(key, queue, member, score);
                        else
                            read_entry(kind, key, queue, member, score);
                    });
                if (!read) add("wrong-type", queue, key, "zset");
                if (!concerns(queue)) continue;
                const bool cleaned =
                    kind.flag == in_wip || kind.flag == in_finished || kind.flag == in_scheduled;
                if (!cleaned && count > large_registry)
                    add_fact("large-registry", 1, key, fmt::format("{} jobs", count));
                if (kind.flag == in_failed && for_ever > 0)
                    add_fact("kept-for-ever", for_ever, key, fmt::format("{} jobs", for_ever));
            }
        }
        for (const auto& key : limits_) {
            co_await walk_scores(key, [&](const std::string& id, double) {
                const auto* state = job(id);
                if (state == nullptr || (state->status != queued && state->status != started))
                    add("leaked-slot", options_->queue, key, id);
            });
        }
    }

    void read_entry(const RegistryKind& kind, const std::string& key, const std::string& queue,
                    const std::string& id, double score) {
        auto* state = job(id);
        if (!is_job_id(id)) return add("bad-id", queue, key, id);
        if (state == nullptr) {
            const bool expires = kind.flag == in_finished || kind.flag == in_failed;
            if (expires && score >= 0 && score <= now_) {
                if (score < now_ - 3600) add("expired-entry", queue, key, id);
            } else {
                add("ghost-id", queue, key, id);
            }
            return;
        }
        if (state->status == unknown || state->status > canceled || !state->is(has_data)) return;
        const bool fits = std::ranges::find(kind.fits, state->status) != kind.fits.end() &&
                          (state->queue == 0 || queue_of(*state) == queue);
        if (fits)
            state->flags |= kind.flag;
        else if (!state->is(repeats) || (kind.flag & (in_finished | in_failed)) == 0)
            add("stray-entry", queue, key, id);
    }

    void read_wip_entry(const std::string& key, const std::string& queue, const std::string& member,
                        double score) {
        const auto colon = member.find(':');
        const std::string id = member.substr(0, colon);
        const bool bare = colon == std::string::npos;
        if (!is_job_id(id) || (!bare && member.find(':', colon + 1) != std::string::npos))
            return add("malformed-wip", queue, key, member);
        auto* state = job(id);
        if (state == nullptr) {
            if (score <= now_) add("ghost-id", queue, key, member);
            return;
        }
        state->flags |= in_wip;
        if (state->status == unknown) return;
        if (bare) add("mixed-versions", queue, key, member);
        if (state->status == started) {
            if (score <= now_) add("dead-started", queue, {}, id, member);
        } else if (score <= now_ || state->status > queued) {
            add("stray-wip", queue, key, id, member);
        }
    }

    asio::awaitable<void> read_groups() {
        for (const auto& key : groups_) {
            Pipeline pipeline;
            std::string cursor = "0";
            do {
                Pipeline one;
                one.add("SSCAN", key, cursor, "COUNT", window);
                const auto replies = co_await redis_->run(std::move(one));
                if (replies[0].is_error()) {
                    add("wrong-type", options_->queue, key, "set");
                    break;
                }
                cursor = replies[0].as_array().at(0).as_text();
                for (const auto& id : replies[0].elements.at(1).as_array())
                    if (job(id.text) == nullptr)
                        add("ghost-in-group", options_->queue, key, id.text);
            } while (cursor != "0");
        }
    }

    // ---- dependencies

    /// Runs one command for each of `names`, and hands name and reply on.
    template <class Names, class Add, class Visit2>
    asio::awaitable<void> for_each(const Names& names, Add add_command, Visit2 visit) {
        auto at = names.begin();
        while (at != names.end()) {
            const auto first = at;
            Pipeline pipeline;
            for (; at != names.end() && pipeline.size() < 250; ++at)
                add_command(pipeline, *at);
            const auto replies = co_await redis_->run(std::move(pipeline));
            auto name = first;
            for (const auto& reply : replies)
                visit(*name++, reply);
        }
    }

    asio::awaitable<void> read_dependents() {
        report("reading dependencies", 0, 0);
        co_await for_each(
            dependents_,
            [](Pipeline& to, const std::string& id) { to.add("SMEMBERS", keys::dependents(id)); },
            [this](const std::string& id, const Reply& members) {
                const std::string key = keys::dependents(id);
                const auto* parent = job(id);
                const std::string queue = parent != nullptr ? queue_of(*parent) : options_->queue;
                if (members.is_error()) return add("wrong-type", queue, key, "set");
                if (parent == nullptr) return add("leftover-set", queue, key, id);
                for (const auto& child : members.elements) {
                    const auto* state = job(child.text);
                    if (state == nullptr)
                        add("stale-dependent", queue, key, child.text);
                    else if (!state->is(names_dependencies))
                        add("stray-dependent", queue, key, child.text);
                }
            });
        for (const auto& id : dependencies_)
            if (job(id) == nullptr)
                add("leftover-set", options_->queue, keys::dependencies(id), id);
    }

    // ---- executions, workers, locks

    asio::awaitable<void> read_executions() {
        co_await for_each(
            executions_,
            [](Pipeline& to, const std::string& id) {
                to.add("ZRANGE", keys::executions(id), 0, -1);
            },
            [this](const std::string& id, const Reply& members) {
                const auto* state = job(id);
                const std::string queue = state != nullptr ? queue_of(*state) : options_->queue;
                if (members.is_error())
                    return add("wrong-type", queue, keys::executions(id), "zset");
                for (const auto& execution : members.elements) {
                    execution_records_.erase(id + ":" + execution.text);
                    add(state != nullptr && state->status == started ? "broken-execution"
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
                add("orphaned-execution", state != nullptr ? queue_of(*state) : options_->queue, {},
                    id, name.substr(colon + 1));
        }
    }

    asio::awaitable<void> read_workers() {
        auto sets = worker_sets_;
        sets.insert(std::string(keys::workers));
        sets.insert(std::string(keys::queues));
        std::set<std::string> members;
        co_await for_each(
            sets, [](Pipeline& to, const std::string& key) { to.add("SMEMBERS", key); },
            [&](const std::string& key, const Reply& reply) {
                const bool of_queues = key == keys::queues;
                if (reply.is_error()) return add("wrong-type", options_->queue, key, "set");
                for (const auto& member : reply.elements) {
                    if (!member.text.starts_with(of_queues ? keys::queue_prefix
                                                           : keys::worker_prefix))
                        add("foreign-member", options_->queue, key, member.text);
                    else if (of_queues)
                        registered_.insert(member.text);
                    else if (!worker_records_.contains(member.text))
                        add("gone-worker", options_->queue, key, member.text);
                }
            });
        co_await for_each(
            worker_records_,
            [](Pipeline& to, const std::string& key) {
                to.begin(2 + worker_fields.size());
                to.argument("HMGET");
                to.argument(key);
                for (const auto& field : worker_fields)
                    to.argument(field.name);
            },
            [this](const std::string& key, const Reply& reply) {
                if (reply.is_error()) return add("wrong-type", options_->queue, key, "hash");
                for (std::size_t i = 0; i < worker_fields.size(); ++i) {
                    const auto& value = reply.elements.at(i);
                    if (!value.is_nil() && !readable(worker_fields[i].reading, value.text))
                        add("bad-worker", options_->queue, value.text, key,
                            std::string(worker_fields[i].name));
                }
            });
        co_await for_each(
            lists_,
            [](Pipeline& to, const std::string& key) {
                to.add("SCARD", keys::queue_workers(behind(key, keys::queue_prefix)));
            },
            [this](const std::string& key, const Reply& reply) {
                const std::string queue = behind(key, keys::queue_prefix);
                if (!registered_.contains(key)) add("unregistered-queue", queue, key, {});
                if (reply.type == Reply::Type::integer && reply.integer == 0 && concerns(queue))
                    add_fact("no-worker", 1, queue, {});
            });
    }

    asio::awaitable<void> read_locks() {
        for (const auto& key : maintenance_locks_)
            add("stale-lock", behind(key, "rq:clean_registries:"), key, {});
        co_await for_each(
            scheduler_locks_, [](Pipeline& to, const std::string& key) { to.add("GET", key); },
            [this](const std::string& key, const Reply& owner) {
                const std::string queue = behind(key, "rq:scheduler-lock:");
                if (owner.is_error())
                    add("wrong-type", queue, key, "string");
                else if (!owner.is_nil())
                    add("dead-scheduler", queue, key, owner.text);
            });
    }

    // ---- judging

    /// What stands nowhere, or may take up room for nothing.
    void judge_jobs() {
        for (const auto& [id, state] : jobs_) {
            if (!state.is(has_hash)) {
                if (state.is(has_results))
                    add("leftover-results", options_->queue, keys::results(id), id);
                continue;
            }
            if (!state.is(has_data) || state.queue == 0) continue;
            const auto lost = [&](const char* code, int places) {
                if (!state.is(static_cast<std::uint16_t>(places)))
                    add(code, queue_of(state), {}, id);
            };
            switch (state.status) {
                case queued:
                    lost("lost-queued", on_list | in_intermediate | in_scratch | in_wip);
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
                default:
                    break;
            }
        }
    }

    /// What only the script can tell, of all jobs that it may be true of.
    asio::awaitable<void> look_at_details() {
        static constexpr std::string_view of_deferred[] = {
            "missing-dependencies", "orphaned-dependent", "waits-for-gone", "waits-for-failed"};
        std::vector<Suspect> waiting, with_results;
        std::uint64_t done = 0;
        for (auto at = jobs_.begin(); at != jobs_.end();) {
            const auto& [id, state] = *at;
            ++at;
            if (state.is(has_hash) && state.is(has_data) && concerns(queue_of(state))) {
                if (state.status == deferred) waiting.push_back({{}, id, {}, {}, {}});
                if (state.is(has_results)) with_results.push_back({{}, id, {}, {}, {}});
            }
            if (++done % window == 0) report("reading results", done, jobs_.size());
            const bool last = at == jobs_.end();
            if (waiting.size() >= window || last) {
                for (const auto code : of_deferred)
                    co_await keep_hits(code, waiting);
                waiting.clear();
            }
            if (with_results.size() >= window || last) {
                co_await keep_hits("bad-result", with_results);
                with_results.clear();
            }
        }
    }

    asio::awaitable<void> keep_hits(std::string_view code, const std::vector<Suspect>& list) {
        const auto answers = co_await ask(code, list, false);
        for (std::size_t i = 0; i < list.size(); ++i)
            if (answers[i].code != 0) suspects_[code].push_back(list[i]);
    }

    /// Drops what is not so, or not as it was at the first look.
    asio::awaitable<void> look(bool second) {
        co_await look_at_lists();
        for (auto& [code, list] : suspects_) {
            report(second ? "looking again" : "looking closer", 0, 0);
            const auto answers = co_await ask(code, list, false);
            std::vector<Suspect> kept;
            for (std::size_t i = 0; i < list.size(); ++i) {
                if (answers[i].code == 0 || (second && answers[i].mark != list[i].mark)) continue;
                list[i].mark = answers[i].mark;
                list[i].note = answers[i].note;
                kept.push_back(std::move(list[i]));
            }
            list = std::move(kept);
        }
    }

    /// A script cannot search a long list: so it is read once more for those that are not on a
    /// list, or twice.
    asio::awaitable<void> look_at_lists() {
        auto& lost = suspects_["lost-queued"];
        auto& twice = suspects_["duplicate-id"];
        if (lost.empty() && twice.empty()) co_return;
        std::unordered_map<std::string, unsigned> times;
        for (const auto* list : {&lost, &twice})
            for (const auto& suspect : *list)
                times.emplace(suspect.id, 0);
        const Visit visit = [&](const std::string& id) {
            if (const auto found = times.find(id); found != times.end()) ++found->second;
        };
        for (const auto& key : lists_)
            co_await walk(key, visit);
        std::erase_if(lost, [&](const Suspect& suspect) { return times[suspect.id] > 0; });
        std::erase_if(twice, [&](const Suspect& suspect) { return times[suspect.id] < 2; });
    }

    asio::awaitable<std::vector<Answer>> ask(std::string_view code,
                                             const std::vector<Suspect>& list, bool mend) {
        std::vector<Answer> answers;
        answers.reserve(list.size());
        BatchSize batch;
        while (answers.size() < list.size()) {
            const std::size_t first = answers.size();
            const std::size_t last = std::min(first + batch.get(), list.size());
            std::vector<std::string> args{std::string(code), mend ? "1" : "0",
                                          abandoned_exc_string()};
            for (std::size_t i = first; i < last; ++i)
                for (const auto* text : {&list[i].key, &list[i].id, &list[i].detail, &list[i].mark})
                    args.push_back(*text);
            const auto before = std::chrono::steady_clock::now();
            const Reply reply = co_await redis_->eval(lua::doctor, {}, std::move(args));
            batch.took(std::chrono::steady_clock::now() - before);
            const auto& rows = reply.as_array();
            if (rows.size() != last - first)
                throw Error(Errc::protocol, "the doctor script gave an unexpected answer");
            for (const auto& row : rows) {
                const auto& cells = row.as_array();
                answers.push_back(
                    {cells.at(0).as_integer(), cells.at(1).as_text(), cells.at(2).as_text()});
            }
        }
        co_return answers;
    }

    RedisClient* redis_;
    const DoctorOptions* options_;
    double now_ = 0;
    std::uint64_t keys_ = 0, job_count_ = 0;
    Jobs jobs_;
    std::vector<std::string> queue_names_{""};
    std::unordered_map<std::string, std::uint32_t> queue_indices_;
    std::set<std::string> lists_, intermediates_, scratch_lists_, marks_, registered_;
    std::array<std::set<std::string>, registry_kinds.size()> registries_;
    std::set<std::string> groups_, worker_sets_, worker_records_, maintenance_locks_,
        scheduler_locks_, limits_, lapsed_leases_;
    std::unordered_set<std::string> dependents_, dependencies_, executions_, execution_records_;
    Suspects suspects_;
    std::map<std::string_view, Fact> facts_;
};

}  // namespace

bool DoctorReport::healthy() const noexcept {
    return std::ranges::none_of(findings, [](const Finding& finding) {
        return finding.left > 0 && finding.kind->severity != Severity::info;
    });
}

asio::awaitable<DoctorReport> examine(RedisClient& redis, DoctorOptions options) {
    DoctorReport report;
    std::map<std::string_view, Finding> findings;
    // What is mended may show something else: a job taken out of one place stands nowhere then.
    for (int round = 0; round < 5; ++round) {
        Examination examination(redis, options);
        co_await examination.suspect();
        co_await examination.confirm();
        report.keys = examination.keys();
        report.jobs = examination.jobs();
        report.queues = examination.queues();
        for (const auto& kind : finding_kinds()) {
            auto now = examination.found(kind.code);
            if (now.count == 0 && !findings.contains(kind.code)) continue;
            auto& finding = findings[kind.code];
            finding.kind = &kind;
            finding.left = now.count;
            finding.found = std::max(finding.found, finding.repaired + now.count);
            if (finding.examples.empty()) finding.examples = std::move(now.examples);
        }
        if (!options.repair) break;
        const auto mended = co_await examination.mend();
        for (const auto& [code, count] : mended) {
            findings[code].repaired += count;
            findings[code].left -= std::min(count, findings[code].left);
        }
        if (mended.empty()) break;
    }
    for (const auto& kind : finding_kinds())
        if (const auto found = findings.find(kind.code); found != findings.end())
            report.findings.push_back(std::move(found->second));
    co_return report;
}

}  // namespace rqxx::ops
