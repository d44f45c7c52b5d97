#include <fmt/format.h>

#include <algorithm>
#include <rqxx/cron_service.hpp>

#include "ops/new_job.hpp"

namespace rqxx {

using namespace std::chrono_literals;
using std::chrono::seconds;

namespace {

constexpr seconds longest_interval = std::chrono::days(3653);

/// The same number for the same text in every process. Source: FNV-1a, SplitMix64.
std::uint64_t hash(std::string_view text) {
    std::uint64_t h = 0xcbf29ce484222325;
    for (char c : text)
        h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9;
    h = (h ^ (h >> 27)) * 0x94d049bb133111eb;
    return h ^ (h >> 31);
}

Slot last_multiple(Slot until, seconds every) {
    return Slot(until.time_since_epoch() / every * every);
}

}  // namespace

Parsed<CatchUp> parse_catch_up(std::string_view text) noexcept {
    if (text == "skip") return CatchUp::skip;
    if (text == "one") return CatchUp::one;
    if (text == "all") return CatchUp::all;
    return ParseError(fmt::format("\"{}\" is not one of skip, one, all", text.substr(0, 40)));
}

Parsed<Overlap> parse_overlap(std::string_view text) noexcept {
    if (text == "allow") return Overlap::allow;
    if (text == "skip") return Overlap::skip;
    return ParseError(fmt::format("\"{}\" is not one of allow, skip", text.substr(0, 40)));
}

std::string_view to_string(CatchUp catch_up) noexcept {
    switch (catch_up) {
        case CatchUp::skip:
            return "skip";
        case CatchUp::one:
            return "one";
        case CatchUp::all:
            return "all";
    }
    return "";
}

std::string_view to_string(Overlap overlap) noexcept {
    return overlap == Overlap::allow ? "allow" : "skip";
}

void CronSchedule::check() const {
    // The longest id is this with "cron-" and a number around it.
    if (!is_valid_job_id(name) || name.size() > 200)
        ops::refuse("name", "only letters, digits, _ and - are allowed, at most 200");
    if (call.func_name.empty()) ops::refuse("func", "must not be empty");
    ops::check_queue_name(queue);
    if (cron && every != 0s) ops::refuse("every", "give either it or cron");
    if (!cron && every == 0s) ops::refuse("cron", "either it or every is needed");
    if (every < 0s || every > longest_interval)
        ops::refuse("every", "must be from 1 s to 10 years");
    if (jitter < 0s || jitter > 24h) ops::refuse("jitter", "must be from 0 to a day");
    ops::check(options);
}

std::optional<Slot> CronSchedule::next(Slot after) const {
    if (cron) return cron->next(after, zone);
    return last_multiple(after, every) + every;
}

std::vector<Slot> CronSchedule::newest(Slot after, Slot until, std::size_t limit) const {
    std::vector<Slot> slots;
    if (!cron) {
        for (Slot slot = last_multiple(until, every); slot > after && slots.size() < limit;
             slot -= every)
            slots.insert(slots.begin(), slot);
        return slots;
    }
    // Backwards in growing steps: the whole time may hold millions.
    for (seconds window = 1h;; window *= 4) {
        const Slot from = std::max(after, until - window);
        slots.clear();
        for (auto slot = next(from); slot && *slot <= until; slot = next(*slot))
            slots.push_back(*slot);
        if (slots.size() < limit && from > after) continue;
        if (slots.size() > limit)
            slots.erase(slots.begin(), slots.end() - static_cast<std::ptrdiff_t>(limit));
        return slots;
    }
}

std::chrono::microseconds CronSchedule::delay(Slot slot) const {
    if (jitter == 0s) return 0us;
    const auto range = static_cast<std::uint64_t>(std::chrono::microseconds(jitter).count());
    return std::chrono::microseconds(hash(job_id(slot)) % range);
}

std::string CronSchedule::job_id(Slot slot) const {
    return fmt::format("cron-{}-{}", name, slot.time_since_epoch().count());
}

std::string CronSchedule::rule() const {
    return cron ? fmt::format("{} {}", cron->text(), zone.name())
                : fmt::format("every {}", every.count());
}

}  // namespace rqxx
