#include <boost/json/object.hpp>
#include <charconv>
#include <cmath>
#include <rqxx/codec.hpp>
#include <rqxx/scheduled_jobs.hpp>
#include <rqxx/value.hpp>

#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"

namespace rqxx {

namespace asio = boost::asio;
namespace json = boost::json;

namespace {

constexpr std::size_t longest_description = 300;

/// `<time>:<id>:<queue in hex>`.
struct Place {
    std::string time, id, queue;
};

std::string hex(std::string_view text) {
    static constexpr std::string_view digits = "0123456789abcdef";
    std::string result;
    for (const char c : text) {
        result += digits[static_cast<unsigned char>(c) >> 4];
        result += digits[static_cast<unsigned char>(c) & 15];
    }
    return result;
}

std::optional<std::string> unhex(std::string_view text) {
    if (text.size() % 2 != 0) return std::nullopt;
    std::string result;
    for (std::size_t i = 0; i < text.size(); i += 2) {
        unsigned value = 0;
        const auto [end, error] = std::from_chars(text.data() + i, text.data() + i + 2, value, 16);
        if (error != std::errc{} || end != text.data() + i + 2) return std::nullopt;
        result += static_cast<char>(value);
    }
    return result;
}

std::optional<double> number(std::string_view text) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return {};
    return std::isfinite(value) ? std::optional(value) : std::nullopt;
}

std::optional<Place> place_of(std::string_view text) {
    const auto first = text.find(':');
    const auto second = first == std::string_view::npos ? first : text.find(':', first + 1);
    if (second == std::string_view::npos || text.size() > 4096) return std::nullopt;
    Place place{std::string(text.substr(0, first)), {}, {}};
    const auto id = unhex(text.substr(first + 1, second - first - 1));
    const auto queue = unhex(text.substr(second + 1));
    if (!number(place.time) || !id || !queue) return std::nullopt;
    place.id = *id;
    place.queue = *queue;
    return place;
}

struct Entry {
    double score = 0;
    std::string id, queue, time;
};

json::value text_or_null(const std::string& text) {
    return text.empty() ? json::value() : to_json(Value(text));
}

}  // namespace

bool is_scheduled_place(std::string_view text) noexcept {
    return place_of(text).has_value();
}

json::object to_json(const ScheduledJob& job) {
    return {{"job_id", to_json(Value(job.job_id))},
            {"at", job.at ? json::value(format_utc(*job.at)) : json::value()},
            {"queue", to_json(Value(job.queue))},
            {"func_name", text_or_null(job.func_name)},
            {"description", text_or_null(job.description)}};
}

asio::awaitable<ScheduledPage> scheduled_jobs(RedisClient& redis, ScheduledQuery query) {
    std::vector<std::string> args{std::to_string(query.limit + 1), "", "", ""};
    if (const auto place = place_of(query.cursor)) {
        args[1] = place->time;
        args[2] = place->id;
        args[3] = place->queue;
    }
    if (!query.queue.empty()) {
        args.push_back(query.queue);
    } else {
        const Reply queues = co_await redis.command("SMEMBERS", keys::queues);
        for (const auto& queue : queues.as_array())
            if (queue.text.starts_with(keys::queue_prefix))
                args.push_back(queue.text.substr(keys::queue_prefix.size()));
    }
    const Reply reply = co_await redis.eval(lua::scheduled_page, {}, std::move(args));
    const auto& cells = reply.as_array();
    std::vector<Entry> entries;
    for (std::size_t i = 0; i + 2 < cells.size(); i += 3)
        entries.push_back({number(cells[i + 1].text).value_or(0), cells[i].text, cells[i + 2].text,
                           cells[i + 1].text});
    ScheduledPage page;
    if (entries.size() > query.limit) {
        entries.resize(query.limit);
        const Entry& last = entries.back();
        page.next = last.time + ":" + hex(last.id) + ":" + hex(last.queue);
    }
    if (entries.empty()) co_return page;
    Pipeline pipeline;
    for (const auto& entry : entries)
        pipeline.add("HMGET", keys::job(entry.id), "data", "description");
    const auto hashes = co_await redis.run(std::move(pipeline));
    for (std::size_t i = 0; i < entries.size(); ++i) {
        ScheduledJob job;
        job.job_id = entries[i].id;
        job.queue = entries[i].queue;
        // What is later than the year 9999 is nobody's time.
        if (entries[i].score >= 0 && entries[i].score < 253'402'300'800.0)
            job.at =
                Timestamp(std::chrono::microseconds(std::llround(entries[i].score * 1'000'000)));
        if (hashes[i].is_array() && hashes[i].elements.size() == 2) {
            if (const auto call = decode_call(hashes[i].elements[0].text))
                job.func_name = call->func_name;
            job.description = hashes[i].elements[1].text.substr(0, longest_description);
        }
        page.jobs.push_back(std::move(job));
    }
    co_return page;
}

}  // namespace rqxx
