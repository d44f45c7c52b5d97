#include "ops/census.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

#include "ops/keys.hpp"
#include "ops/queue_counts.hpp"

namespace rqxx::ops {

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t most_workers = 1000;
constexpr std::size_t most_lanes = 100;
/// Schedulers look every 50 ms, and stock ones once a second.
constexpr auto due_since = 1s;
/// RQ's own maintenance has a grace of a minute as well.
constexpr auto lapsed_since = 60s;
/// What `lua/sort.lua` numbers by is Redis' clock in microseconds; below are jobs that were put in
/// front.
constexpr double first_number = 1.1e15;

std::int64_t integer(const Reply& reply) {
    return reply.type == Reply::Type::integer ? reply.integer : 0;
}

std::int64_t to_epoch(Timestamp time) {
    return std::chrono::floor<std::chrono::seconds>(time).time_since_epoch().count();
}

double real(std::string_view text) {
    const double value = std::strtod(std::string(text).c_str(), nullptr);
    return std::isfinite(value) ? value : 0;
}

std::optional<Seconds> age_of(std::string_view iso, Timestamp now) {
    const auto time = parse_utc(iso);
    if (!time) return std::nullopt;
    return std::max(Seconds(now - *time), Seconds(0));
}

std::string text_at(const Reply& array, std::size_t i) {
    return i < array.elements.size() ? array.elements[i].text : std::string();
}

WorkerCensus worker_from(std::string name, const Reply& hash, Timestamp now) {
    WorkerCensus worker;
    worker.name = std::move(name);
    worker.state = text_at(hash, 0);
    worker.queues = text_at(hash, 1);
    worker.successful = number(text_at(hash, 2)).value_or(0);
    worker.failed = number(text_at(hash, 3)).value_or(0);
    worker.working_seconds = real(text_at(hash, 4));
    worker.heartbeat_age = age_of(text_at(hash, 5), now);
    return worker;
}

std::map<std::string, std::int64_t> listeners_of(const std::vector<WorkerCensus>& workers) {
    std::map<std::string, std::int64_t> listeners;
    for (const auto& worker : workers) {
        std::string_view rest = worker.queues;
        std::set<std::string_view> told;  // A queue may be named twice.
        while (!rest.empty()) {
            const auto comma = std::min(rest.find(','), rest.size());
            const auto name = rest.substr(0, comma);
            if (told.insert(name).second) ++listeners[std::string(name)];
            rest.remove_prefix(std::min(comma + 1, rest.size()));
        }
    }
    return listeners;
}

}  // namespace

ServerInfo::ServerInfo(std::string_view text) {
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        while (line.ends_with('\r'))
            line.remove_suffix(1);
        const auto colon = line.find(':');
        if (line.starts_with('#') || colon == std::string_view::npos) continue;
        fields_.emplace(line.substr(0, colon), line.substr(colon + 1));
    }
}

std::string ServerInfo::text(std::string_view field) const {
    const auto found = fields_.find(field);
    return found == fields_.end() ? std::string() : found->second;
}

std::optional<double> ServerInfo::number(std::string_view field) const {
    const auto found = fields_.find(field);
    if (found == fields_.end() || found->second.empty()) return std::nullopt;
    char* end = nullptr;
    const double value = std::strtod(found->second.c_str(), &end);
    if (*end != '\0' || !std::isfinite(value)) return std::nullopt;
    return value;
}

void OldestJob::ask(Pipeline& first, const std::string& queue) {
    first.add("LINDEX", keys::queue(queue), 0);
    first.add("SRANDMEMBER", keys::lanes(queue), most_lanes);
}

OldestJob::OldestJob(std::string queue, const Reply* replies) : queue_(std::move(queue)) {
    if (replies[0].is_string()) next_ = replies[0].text;
    if (replies[1].is_array()) {
        for (const auto& lane : replies[1].elements)
            lanes_.push_back(lane.text);
    }
}

std::size_t OldestJob::ask_more(Pipeline& second) const {
    if (!next_.empty()) second.add("HGET", keys::job(next_), "enqueued_at");
    for (const auto& lane : lanes_)
        second.add("ZRANGE", keys::lane(lane, queue_), 0, 0, "WITHSCORES");
    return (next_.empty() ? 0 : 1) + lanes_.size();
}

std::optional<Seconds> OldestJob::age(const Reply* replies, Timestamp now) const {
    std::optional<Seconds> oldest;
    if (!next_.empty()) {
        if (replies->is_string()) oldest = age_of(replies->text, now);
        ++replies;
    }
    for (std::size_t i = 0; i < lanes_.size(); ++i) {
        const double number = real(text_at(replies[i], 1));
        if (number < first_number || number > 9e15) continue;
        const Timestamp since{std::chrono::microseconds(std::llround(number))};
        oldest = std::max(oldest.value_or(Seconds(0)), Seconds(now - since));
    }
    return oldest;
}

void add_figures(std::map<std::string, double>& sum, const Reply& hash) {
    if (!hash.is_array()) return;
    for (const auto& [field, text] : hash.as_pairs()) {
        const double value = real(text);
        if (value > 0) sum[std::string(field)] += value;
    }
}

asio::awaitable<Census> take_census(RedisClient& redis) {
    redis.require_connection();
    Pipeline first;
    first.add("TIME");
    first.add("SMEMBERS", keys::queues);
    first.add("SMEMBERS", keys::workers);
    first.add("HGETALL", keys::rules);
    first.add("HGETALL", keys::totals);
    first.add("ZCARD", keys::webhooks);
    first.add("EXISTS", keys::suspended);
    first.add("HGETALL", keys::slots);
    first.add("INFO");
    // As a transaction, so that no minute is missing between the two.
    first.add("MULTI");
    first.add("HGETALL", keys::metrics_total);
    first.add("HGETALL", keys::metrics_now);
    first.add("EXEC");
    const Timestamp asked = utc_now();
    const auto known = co_await redis.run(std::move(first));
    const Timestamp answered = utc_now();
    known[0].throw_if_error();
    known[1].throw_if_error();

    Census census;
    census.now = redis_time(known[0]);
    census.skew = Seconds(asked - census.now) + Seconds(answered - asked) / 2;
    for (const auto& [field, value] :
         known[4].is_array() ? known[4].as_pairs() : decltype(known[4].as_pairs()){})
        census.totals[std::string(field)] = number(value).value_or(0);
    census.pending_webhooks = integer(known[5]);
    census.suspended = integer(known[6]) > 0;
    census.info = ServerInfo(known[8].text);
    if (known[12].is_array()) {
        for (const auto& hash : known[12].elements)
            add_figures(census.figures, hash);
    }

    const auto queues = queue_names(known[1]);
    const Pauses pauses(known[3]);
    std::vector<std::string> workers;
    if (known[2].is_array()) {
        census.registered_workers = static_cast<std::int64_t>(known[2].elements.size());
        for (const auto& member : known[2].elements) {
            if (member.text.starts_with(keys::worker_prefix) && workers.size() < most_workers)
                workers.push_back(member.text.substr(keys::worker_prefix.size()));
        }
    }
    std::sort(workers.begin(), workers.end());

    constexpr std::size_t per_queue = counts_per_queue + OldestJob::first_replies + 3;
    Pipeline second;
    for (const auto& queue : queues) {
        add_counts(second, queue);
        OldestJob::ask(second, queue);
        second.add("ZCOUNT", keys::scheduled(queue), "-inf", to_epoch(census.now - due_since));
        second.add("ZCOUNT", keys::started(queue), "-inf", to_epoch(census.now - lapsed_since));
        second.add("EXISTS", keys::scheduler_lock(queue));
    }
    for (const auto& worker : workers)
        second.add("HMGET", keys::worker(worker), "state", "queues", "successful_job_count",
                   "failed_job_count", "total_working_time", "last_heartbeat");
    const auto replies = co_await redis.run(std::move(second));

    std::map<std::string, std::int64_t, std::less<>> slots;
    if (known[7].is_array()) {
        for (const auto& [worker, count] : known[7].as_pairs())
            slots[std::string(worker)] = number(count).value_or(1);
    }
    for (std::size_t i = 0; i < workers.size(); ++i) {
        const Reply& hash = replies[queues.size() * per_queue + i];
        // Of one that has died only the name is left.
        if (!hash.is_array() || text_at(hash, 1).empty()) continue;
        census.workers.push_back(worker_from(workers[i], hash, census.now));
        if (const auto found = slots.find(workers[i]); found != slots.end())
            census.workers.back().slots = found->second;
    }
    const auto listeners = listeners_of(census.workers);

    std::vector<OldestJob> oldest;
    std::vector<std::size_t> at;
    Pipeline third;
    for (std::size_t i = 0; i < queues.size(); ++i) {
        const Reply* replies_of = &replies[i * per_queue];
        QueueCensus queue;
        queue.stats = counts(queues[i], replies_of);
        queue.stats.paused = pauses.hold(queues[i]);
        replies_of += counts_per_queue;
        oldest.emplace_back(queues[i], replies_of);
        at.push_back(third.size());
        oldest.back().ask_more(third);
        replies_of += OldestJob::first_replies;
        queue.due = integer(replies_of[0]);
        queue.lapsed = integer(replies_of[1]);
        queue.has_scheduler = integer(replies_of[2]) > 0;
        if (const auto found = listeners.find(queues[i]); found != listeners.end())
            queue.listeners = found->second;
        census.queues.push_back(std::move(queue));
    }
    const auto details = co_await redis.run(std::move(third));
    for (std::size_t i = 0; i < queues.size(); ++i)
        census.queues[i].oldest_age = oldest[i].age(details.data() + at[i], census.now);
    co_return census;
}

}  // namespace rqxx::ops
