#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <ranges>

#include "base/wildcard.hpp"
#include "index/store.hpp"

/// Groups of failures for who may see some queues only. What is kept of a group is of all queues;
/// here its jobs are looked at instead, so that nothing of other queues is in the answer.
namespace rqxx::index {
namespace {

/// Failed jobs that are looked at for a list, and those of a group for one group.
constexpr std::int64_t most_of_list = 20'000, most_of_group = 50'000;
constexpr std::int64_t least_of_range = 50;
constexpr std::int64_t hour_us = 3'600'000'000;
constexpr std::int64_t shown_hours = 24;
constexpr std::size_t most_samples = 3, most_names = 20;
/// Names that a statement lists.
constexpr std::size_t most_listed = 500;

constexpr std::string_view columns = "id, created, row, queue, func, worker, grp, error, ended";

std::string listed(const std::vector<std::int64_t>& ids) {
    return fmt::format("{}", fmt::join(ids | std::views::take(most_listed), ","));
}

bool fits(const std::string& pattern, const std::string& text) {
    return pattern.empty() || matches_wildcard(pattern, text);
}

}  // namespace

/// What was seen of a group's jobs.
struct StoreReader::Part {
    struct Sample {
        std::int64_t created, row, error;
        std::string id;
    };
    std::vector<Sample> samples;  ///< The newest first.
    std::map<std::int64_t, std::int64_t> functions, workers;
    std::int64_t first_seen = 0, last_seen = 0;
    std::vector<std::int64_t> hours = std::vector<std::int64_t>(shown_hours, 0);
};

void StoreReader::look_at(Part& part, const Statement& job, std::int64_t now) {
    const std::int64_t func = job.integer(4), worker = job.integer(5), ended = job.integer(8);
    if (func != 0) ++part.functions[func];
    if (worker != 0) ++part.workers[worker];
    part.first_seen = part.first_seen == 0 ? ended : std::min(part.first_seen, ended);
    part.last_seen = std::max(part.last_seen, ended);
    const std::int64_t age = now / hour_us - ended / hour_us;
    if (age >= 0 && age < shown_hours)
        ++part.hours[static_cast<std::size_t>(shown_hours - 1 - age)];
    Part::Sample sample{job.integer(1), job.integer(2), job.integer(7), job.text(0)};
    const auto place = std::ranges::find_if(part.samples, [&](const Part::Sample& other) {
        return std::pair(other.created, other.row) < std::pair(sample.created, sample.row);
    });
    part.samples.insert(place, std::move(sample));
    if (part.samples.size() > most_samples) part.samples.pop_back();
}

/// `count` 0: no job of these queues is in the group.
Failure StoreReader::part_of(std::int64_t group, const Part& part,
                             const std::vector<std::int64_t>& queues) {
    Failure failure;
    Statement& about =
        database_.prepared("SELECT id, exception, message, frame FROM groups WHERE row = ?");
    if (!about.bind(group).step()) {
        about.reset();
        return failure;
    }
    failure.row = group;
    failure.group = {about.text(0), about.text(1), about.text(2), about.text(3)};
    about.reset();
    const auto counts = database_.statement(fmt::format(
        "SELECT name, jobs FROM group_names WHERE grp = ? AND name IN ({}) ORDER BY jobs DESC",
        listed(queues)));
    counts->bind(group);
    while (counts->step()) {
        failure.count += counts->integer(1);
        if (failure.queues.size() < most_names)
            failure.queues.push_back({name(counts->integer(0)), counts->integer(1)});
    }
    const auto most_frequent = [&](const std::map<std::int64_t, std::int64_t>& numbers) {
        std::vector<NameCount> names;
        for (const auto& [id, count] : numbers)
            names.push_back({name(id), count});
        std::ranges::sort(names, [](const NameCount& a, const NameCount& b) {
            return a.count != b.count ? a.count > b.count : a.name < b.name;
        });
        if (names.size() > most_names) names.resize(most_names);
        return names;
    };
    failure.functions = most_frequent(part.functions);
    failure.workers = most_frequent(part.workers);
    failure.first_seen = part.first_seen;
    failure.last_seen = part.last_seen;
    failure.hours = part.hours;
    for (const auto& sample : part.samples)
        failure.samples.push_back(sample.id);
    if (!part.samples.empty()) {
        Statement& error = database_.prepared("SELECT text FROM errors WHERE id = ?");
        if (error.bind(part.samples.front().error).step()) failure.title = error.text(0);
        error.reset();
    }
    // All jobs of the group have these in common.
    if (failure.title.empty())
        failure.title = failure.group.exception.empty()
                            ? failure.group.message
                            : fmt::format("{}: {}", failure.group.exception, failure.group.message);
    return failure;
}

std::vector<Failure> StoreReader::failures_within(const FailureFilter& filter,
                                                  const std::optional<JobPosition>& after,
                                                  std::size_t limit, std::int64_t now) {
    names_.clear();
    std::int64_t jobs = 0;
    auto queues = name_ids(NameKind::queue, filter.within, jobs);
    std::erase_if(queues, [&](std::int64_t id) { return !fits(filter.queue, name(id)); });
    if (queues.empty()) return {};
    const auto statuses = name_ids(NameKind::status, {"failed", "stopped"}, jobs);
    const auto ranges = static_cast<std::int64_t>(queues.size() * statuses.size());
    const std::int64_t of_range =
        std::max(least_of_range, most_of_list / std::max<std::int64_t>(ranges, 1));
    std::map<std::int64_t, Part> parts;
    for (const std::int64_t queue : queues | std::views::take(most_listed)) {
        for (const std::int64_t status : statuses) {
            Statement& found = database_.prepared(
                fmt::format("SELECT {} FROM jobs INDEXED BY jobs_queue WHERE queue = ? AND status "
                            "= ? ORDER BY created DESC LIMIT ?",
                            columns));
            found.bind(queue).bind(status).bind(of_range);
            while (found.step())
                if (const std::int64_t group = found.integer(6); group != 0)
                    look_at(parts[group], found, now);
            found.reset();
        }
    }
    std::vector<Failure> failures;
    for (const auto& [group, part] : parts) {
        auto failure = part_of(group, part, queues);
        if (failure.count > 0 && std::ranges::any_of(failure.functions, [&](const NameCount& one) {
                return fits(filter.function, one.name);
            }))
            failures.push_back(std::move(failure));
    }
    const auto place = [&](const Failure& failure) {
        return std::pair(filter.by_count ? failure.count : failure.last_seen, failure.row);
    };
    if (after)
        std::erase_if(failures, [&](const Failure& failure) {
            return place(failure) >= std::pair(after->created, after->row);
        });
    std::ranges::sort(failures,
                      [&](const Failure& a, const Failure& b) { return place(a) > place(b); });
    if (failures.size() > limit) failures.resize(limit);
    return failures;
}

std::optional<Failure> StoreReader::failure_within(const std::string& id,
                                                   const std::vector<std::string>& within,
                                                   std::int64_t now) {
    names_.clear();
    std::int64_t jobs = 0;
    const auto queues = name_ids(NameKind::queue, within, jobs);
    Statement& group = database_.prepared("SELECT row FROM groups WHERE id = ?");
    const std::int64_t row = group.bind(id).step() ? group.integer(0) : 0;
    group.reset();
    if (row == 0 || queues.empty()) return std::nullopt;
    Part part;
    Statement& found = database_.prepared(
        fmt::format("SELECT {} FROM jobs INDEXED BY jobs_grp WHERE grp = ? ORDER BY created DESC "
                    "LIMIT ?",
                    columns));
    found.bind(row).bind(most_of_group);
    while (found.step())
        if (std::ranges::find(queues, found.integer(3)) != queues.end()) look_at(part, found, now);
    found.reset();
    auto failure = part_of(row, part, queues);
    return failure.count > 0 ? std::optional(std::move(failure)) : std::nullopt;
}

}  // namespace rqxx::index
