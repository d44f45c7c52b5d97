#include "ops/history.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <rqxx/error.hpp>
#include <set>

#include "ops/census.hpp"
#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"
#include "ops/performance.hpp"
#include "ops/queue_counts.hpp"

namespace rqxx::ops {

namespace asio = boost::asio;

namespace {

enum Field : std::size_t {
    queued,
    started,
    finished,
    failed,
    retried,
    oldest_age,
    wait_p50,
    wait_p95,
    busy,
    slots,
    redis_ops,
    redis_memory
};

constexpr float unknown = std::numeric_limits<float>::quiet_NaN();
constexpr std::size_t most_queues = 50;    ///< With series of their own.
constexpr std::size_t most_sampled = 500;  ///< Looked at in each pass.
/// Counters of before say nothing of the last second.
constexpr Seconds longest_pause{5};
constexpr std::int64_t ttl_every = 60;

std::int64_t to_epoch(Timestamp time) {
    return std::chrono::floor<std::chrono::seconds>(time).time_since_epoch().count();
}

void put(std::string& bytes, std::uint32_t word) {
    for (int shift = 0; shift < 32; shift += 8)
        bytes += static_cast<char>((word >> shift) & 0xff);
}

std::uint32_t word_at(std::string_view bytes, std::size_t at) {
    std::uint32_t word = 0;
    for (std::size_t i = 0; i < 4; ++i)
        word |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[at + i])) << (8 * i);
    return word;
}

constexpr std::size_t width_of(std::size_t fields) {
    return 4 * (1 + fields);
}
std::size_t fields_of(std::string_view queue) {
    return queue.empty() ? history_fields.size() : history_queue_fields;
}

float rate(double before, double now, Seconds elapsed) {
    if (elapsed <= Seconds(0) || now < before) return unknown;
    return static_cast<float>((now - before) / elapsed.count());
}

double figure(const std::map<std::string, double>& figures, const std::string& name) {
    const auto found = figures.find(name);
    return found == figures.end() ? 0 : found->second;
}

/// Of the waits that have been counted since.
void put_waits(HistoryValues& values, const std::map<std::string, double>& before,
               const std::map<std::string, double>& now) {
    std::vector<std::pair<std::string, std::string>> more;
    for (const auto& [field, count] : now) {
        if (field.front() != 'w' || field.size() < 2 || field.find('_') != std::string::npos)
            continue;
        const double difference = count - figure(before, field);
        if (difference > 0) more.emplace_back(field, std::to_string(std::llround(difference)));
    }
    if (more.empty()) return;
    more.emplace_back("wait_max", "1000000000000000");
    std::vector<std::pair<std::string_view, std::string_view>> views(more.begin(), more.end());
    Figures figures;
    figures.add(views);
    const auto waits = figures.summary().queue_time;
    values[wait_p50] = static_cast<float>(waits.median);
    values[wait_p95] = static_cast<float>(waits.p95);
}

/// How values of several points become one: the mean, of ages and long waits the greatest.
class Joined {
public:
    explicit Joined(std::size_t field) : greatest_(field == oldest_age || field == wait_p95) {}
    void add(double value) {
        sum_ = greatest_ ? std::max(sum_, value) : sum_ + value;
        ++count_;
    }
    [[nodiscard]] std::optional<double> value() const {
        if (count_ == 0) return std::nullopt;
        return greatest_ ? sum_ : sum_ / static_cast<double>(count_);
    }

private:
    bool greatest_;
    double sum_ = 0;
    std::size_t count_ = 0;
};

/// Rows from `first` to `last` (numbers of steps since 1970, both included) are one piece of the
/// ring, or two.
struct Piece {
    std::int64_t from, to;  ///< Bytes, both included.
};
std::vector<Piece> pieces(const HistoryRing& ring, std::int64_t first, std::int64_t last,
                          std::size_t width) {
    const auto bytes = static_cast<std::int64_t>(width);
    const std::int64_t begin = first % ring.size, end = last % ring.size;
    if (begin <= end) return {{begin * bytes, (end + 1) * bytes - 1}};
    return {{begin * bytes, ring.size * bytes - 1}, {0, (end + 1) * bytes - 1}};
}

}  // namespace

std::string history_key(const HistoryRing& ring, std::string_view queue) {
    std::string key = "rqxx:history:";
    key += ring.letter;
    if (!queue.empty()) {
        key += ':';
        key += queue;
    }
    return key;
}

// ---- reading -----------------------------------------------------------------------------------

asio::awaitable<std::vector<HistorySeries>> read_history(RedisClient& redis, HistorySpan span,
                                                         std::vector<std::string> queues) {
    redis.require_connection();
    const Timestamp now = redis_time(co_await redis.command("TIME"));
    const auto length = span.span.count();
    const HistoryRing& ring =
        length > seconds_ring.step * seconds_ring.size ? minutes_ring : seconds_ring;
    const std::int64_t rows = std::clamp<std::int64_t>(length / ring.step, 1, ring.size);
    const auto points = static_cast<std::int64_t>(std::max<std::size_t>(span.points, 1));
    const std::int64_t joined = (rows + points - 1) / points;
    // The second that goes on has no point yet; of the minute there is what is known by now.
    const std::int64_t newest = to_epoch(now) / ring.step - (ring.step == 1 ? 1 : 0);
    // Whole groups, so that they do not change from one question to the next.
    const std::int64_t last_group = newest / joined;
    const std::int64_t groups = rows / joined;
    const std::int64_t first = std::max((last_group - groups + 1) * joined, newest - ring.size + 1);

    Pipeline pipeline;
    for (const auto& queue : queues) {
        for (const auto& piece : pieces(ring, first, newest, width_of(fields_of(queue))))
            pipeline.add("GETRANGE", history_key(ring, queue), piece.from, piece.to);
    }
    const auto replies = co_await redis.run(std::move(pipeline));

    std::vector<HistorySeries> all;
    std::size_t reply = 0;
    for (const auto& queue : queues) {
        const std::size_t count = fields_of(queue), width = width_of(count);
        std::string bytes;
        for (const auto& piece : pieces(ring, first, newest, width)) {
            const Reply& one = replies.at(reply++);
            bytes += one.is_string() ? one.text : std::string();
            // What has not been written yet is missing at the end.
            bytes.resize(bytes.size() + static_cast<std::size_t>(piece.to - piece.from + 1) -
                         (one.is_string() ? one.text.size() : 0));
        }
        HistorySeries series;
        series.step = ring.step * joined;
        series.fields.resize(history_fields.size());
        std::int64_t row = first;
        for (std::int64_t group = first / joined; group <= last_group; ++group) {
            std::vector<Joined> values;
            for (std::size_t field = 0; field < history_fields.size(); ++field)
                values.emplace_back(field);
            for (; row <= newest && row / joined == group; ++row) {
                const std::size_t at = static_cast<std::size_t>(row - first) * width;
                if (word_at(bytes, at) != static_cast<std::uint32_t>(row * ring.step)) continue;
                for (std::size_t field = 0; field < count; ++field) {
                    const auto value = std::bit_cast<float>(word_at(bytes, at + 4 * (field + 1)));
                    if (std::isfinite(value)) values[field].add(value);
                }
            }
            series.times.push_back(group * series.step);
            for (std::size_t field = 0; field < history_fields.size(); ++field)
                series.fields[field].push_back(values[field].value());
        }
        all.push_back(std::move(series));
    }
    co_return all;
}

// ---- rows --------------------------------------------------------------------------------------

void HistoryRows::forget() {
    last_.reset();
    minute_.reset();
}

HistoryValues HistoryRows::of_queue(const HistorySample::Queue& queue, const Counters& before,
                                    Timestamp now) {
    HistoryValues values;
    values.fill(unknown);
    values[queued] = static_cast<float>(queue.queued);
    values[started] = static_cast<float>(queue.started);
    values[oldest_age] = static_cast<float>(queue.oldest_age.value_or(0));
    const auto found = before.queues.find(queue.name);
    if (found != before.queues.end()) {
        for (std::size_t i = 0; i < 3; ++i)
            values[finished + i] =
                rate(static_cast<double>(found->second[i]), static_cast<double>(queue.totals[i]),
                     Seconds(now - before.at));
    }
    return values;
}

HistoryValues HistoryRows::of_all(const HistorySample& sample, const Counters& before,
                                  const Counters& now) {
    HistoryValues values;
    values.fill(unknown);
    double all_queued = static_cast<double>(sample.queued);
    double all_started = static_cast<double>(sample.started);
    double age = 0, all_retried = 0;
    for (const auto& queue : sample.queues) {
        all_queued += static_cast<double>(queue.queued);
        all_started += static_cast<double>(queue.started);
        age = std::max(age, queue.oldest_age.value_or(0));
        if (const auto found = before.queues.find(queue.name); found != before.queues.end())
            all_retried +=
                static_cast<double>(std::max<std::int64_t>(queue.totals[2] - found->second[2], 0));
    }
    values[queued] = static_cast<float>(all_queued);
    values[started] = static_cast<float>(all_started);
    values[oldest_age] = static_cast<float>(age);
    values[busy] = static_cast<float>(all_started);
    values[slots] = static_cast<float>(sample.slots);
    if (sample.redis_ops) values[redis_ops] = static_cast<float>(*sample.redis_ops);
    if (sample.redis_memory) values[redis_memory] = static_cast<float>(*sample.redis_memory);
    const Seconds elapsed = now.at - before.at;
    values[retried] = rate(0, all_retried, elapsed);
    values[finished] =
        rate(figure(before.figures, "finished"), figure(now.figures, "finished"), elapsed);
    values[failed] = rate(figure(before.figures, "failed"), figure(now.figures, "failed"), elapsed);
    put_waits(values, before.figures, now.figures);
    return values;
}

std::vector<const HistorySample::Queue*> HistoryRows::busiest(const HistorySample& sample) {
    std::map<std::string, double> activity;
    std::vector<const HistorySample::Queue*> queues;
    for (const auto& queue : sample.queues) {
        double score = 0;
        if (const auto found = activity_.find(queue.name); found != activity_.end())
            score = found->second * 0.99;  // So that one quiet minute costs no place.
        if (queue.queued + queue.started > 0) score += 1;
        if (last_) {
            const auto before = last_->queues.find(queue.name);
            if (before != last_->queues.end() && before->second != queue.totals) score += 1;
        }
        activity[queue.name] = score;
        queues.push_back(&queue);
    }
    activity_ = std::move(activity);
    std::ranges::stable_sort(queues, [&](const auto* a, const auto* b) {
        return activity_.at(a->name) > activity_.at(b->name);
    });
    if (queues.size() > most_queues) queues.resize(most_queues);
    return queues;
}

std::vector<HistoryRows::Row> HistoryRows::add(const HistorySample& sample) {
    Counters now;
    now.at = sample.now;
    now.figures = sample.figures;
    for (const auto& queue : sample.queues)
        now.queues[queue.name] = queue.totals;
    const auto kept = busiest(sample);
    // After an absence, or where the clock has been set: rates begin anew.
    if (last_ && (sample.now <= last_->at || Seconds(sample.now - last_->at) > longest_pause))
        forget();
    const std::int64_t second = to_epoch(sample.now);
    const auto minute_of = [](Timestamp at) { return to_epoch(at) / minutes_ring.step; };
    if (!minute_ || !last_ || minute_of(last_->at) != minute_of(sample.now))
        minute_ = last_ ? *last_ : now;
    const Counters& before = last_ ? *last_ : now;

    if (second >= kept_until_ || second + 2 * ttl_every < kept_until_) {
        kept_until_ = second + ttl_every;
        with_ttl_.clear();
    }
    std::vector<Row> rows;
    const auto add_row = [&](const HistoryRing& ring, std::string_view queue,
                             const HistoryValues& values) {
        const std::size_t fields = fields_of(queue);
        const std::int64_t number = second / ring.step;
        Row row;
        row.key = history_key(ring, queue);
        row.offset = number % ring.size * static_cast<std::int64_t>(width_of(fields));
        put(row.bytes, static_cast<std::uint32_t>(number * ring.step));
        for (std::size_t field = 0; field < fields; ++field)
            put(row.bytes, std::bit_cast<std::uint32_t>(values[field]));
        if (!with_ttl_.contains(queue)) row.ttl = std::to_string(ring.ttl);
        rows.push_back(std::move(row));
    };
    add_row(seconds_ring, {}, of_all(sample, before, now));
    add_row(minutes_ring, {}, of_all(sample, *minute_, now));
    with_ttl_.emplace();
    for (const auto* queue : kept) {
        if (queue->name.empty()) continue;
        add_row(seconds_ring, queue->name, of_queue(*queue, before, sample.now));
        add_row(minutes_ring, queue->name, of_queue(*queue, *minute_, sample.now));
        with_ttl_.insert(queue->name);
    }
    last_ = std::move(now);
    return rows;
}

// ---- recording ---------------------------------------------------------------------------------

void HistoryRecorder::forget() {
    rows_.forget();
    further_.clear();
}

asio::awaitable<void> HistoryRecorder::count_further(HistorySample& sample,
                                                     std::vector<std::string> queues) {
    std::set<std::string, std::less<>> there(queues.begin(), queues.end());
    std::erase_if(further_, [&](const auto& known) { return !there.contains(known.first); });
    std::vector<std::string> asked;
    for (const auto& queue : queues) {
        if (!further_.contains(queue)) asked.push_back(queue);  // At first, all of them.
    }
    for (std::size_t i = 0; i < std::min(queues.size(), most_sampled); ++i)
        asked.push_back(queues[next_further_++ % queues.size()]);
    Pipeline pipeline;
    for (const auto& queue : asked) {
        pipeline.add("LLEN", keys::queue(queue));
        pipeline.add("HGET", keys::sorted, queue);
        pipeline.add("ZCARD", keys::started(queue));
    }
    const auto replies = co_await redis_->run(std::move(pipeline));
    for (std::size_t i = 0; i < asked.size(); ++i)
        further_[asked[i]] = {replies[3 * i].integer + number(replies[3 * i + 1].text).value_or(0),
                              replies[3 * i + 2].integer};
    for (const auto& [queue, counts] : further_) {
        sample.queued += counts.first;
        sample.started += counts.second;
    }
}

asio::awaitable<HistorySample> HistoryRecorder::take(std::vector<std::string> queues) {
    std::vector<std::string> further;
    if (queues.size() > most_sampled) {
        further.assign(queues.begin() + most_sampled, queues.end());
        queues.resize(most_sampled);
    }
    constexpr std::size_t per_queue = 4 + OldestJob::first_replies;
    Pipeline first;
    for (const auto& queue : queues) {
        first.add("LLEN", keys::queue(queue));
        first.add("HGET", keys::sorted, queue);
        first.add("ZCARD", keys::started(queue));
        first.add("HMGET", keys::totals, "finished|" + queue, "failed|" + queue,
                  "retried|" + queue);
        OldestJob::ask(first, queue);
    }
    first.add("TIME");
    first.add("HVALS", keys::slots);
    first.add("SCARD", keys::workers);
    first.add("INFO", "stats");
    first.add("INFO", "memory");
    first.add("MULTI");
    first.add("HGETALL", keys::metrics_total);
    first.add("HGETALL", keys::metrics_now);
    first.add("EXEC");
    const auto replies = co_await redis_->run(std::move(first));
    const Reply* rest = replies.data() + per_queue * queues.size();
    rest[0].throw_if_error();

    HistorySample sample;
    sample.now = redis_time(rest[0]);
    // A worker without an entry is a stock one, which runs one job at a time.
    sample.slots = static_cast<double>(rest[2].integer);
    if (rest[1].is_array()) {
        for (const auto& count : rest[1].elements)
            sample.slots += static_cast<double>(number(count.text).value_or(1) - 1);
    }
    sample.slots = std::max(sample.slots, 0.0);
    sample.redis_ops = ServerInfo(rest[3].text).number("instantaneous_ops_per_sec");
    sample.redis_memory = ServerInfo(rest[4].text).number("used_memory");
    if (rest[8].is_array()) {
        for (const auto& hash : rest[8].elements)
            add_figures(sample.figures, hash);
    }

    std::vector<OldestJob> oldest;
    std::vector<std::size_t> at;
    Pipeline second;
    for (std::size_t i = 0; i < queues.size(); ++i) {
        const Reply* of = &replies[per_queue * i];
        HistorySample::Queue queue;
        queue.name = queues[i];
        queue.queued = of[0].integer + number(of[1].text).value_or(0);
        queue.started = of[2].integer;
        for (std::size_t n = 0; n < 3 && of[3].is_array() && n < of[3].elements.size(); ++n)
            queue.totals[n] = number(of[3].elements[n].text).value_or(0);
        oldest.emplace_back(queues[i], of + 4);
        at.push_back(second.size());
        oldest.back().ask_more(second);
        sample.queues.push_back(std::move(queue));
    }
    const auto details = co_await redis_->run(std::move(second));
    for (std::size_t i = 0; i < queues.size(); ++i) {
        if (const auto age = oldest[i].age(details.data() + at[i], sample.now))
            sample.queues[i].oldest_age = age->count();
    }
    if (!further.empty()) co_await count_further(sample, std::move(further));
    co_return sample;
}

asio::awaitable<Timestamp> HistoryRecorder::record(std::vector<std::string> queues,
                                                   std::string token) {
    const auto sample = co_await take(std::move(queues));
    std::vector<std::string> args{std::move(token)};
    for (auto& row : rows_.add(sample)) {
        args.push_back(std::move(row.key));
        args.push_back(std::to_string(row.offset));
        args.push_back(std::move(row.bytes));
        args.push_back(std::move(row.ttl));
    }
    const Reply written = co_await redis_->eval(
        lua::append_history, {std::string(keys::sampler), history_key(seconds_ring, {})},
        std::move(args));
    if (written.as_integer() == 0) forget();
    co_return sample.now;
}

}  // namespace rqxx::ops
