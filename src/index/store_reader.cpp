#include <fmt/format.h>

#include <algorithm>
#include <queue>
#include <rqxx/error.hpp>
#include <rqxx/job.hpp>
#include <unordered_set>

#include "base/wildcard.hpp"
#include "index/store.hpp"

namespace rqxx::index {
namespace {

/// Rows that one page looks at.
constexpr std::size_t most_looks = 3000;
/// Rows that are looked at beyond a page, to tell how many there are.
constexpr std::size_t looks_beyond = 500;
/// Up to so many jobs are counted where no count is kept.
constexpr std::int64_t most_counted = 10'000;
/// Ranges of an index that are read side by side.
constexpr std::size_t most_ranges = 64;
/// Errors that a text may stand in, and their jobs, before they are looked for among the jobs
/// instead.
constexpr std::size_t most_errors = 2000;
constexpr std::int64_t most_with_error = 5000;
/// Names of a kind that a pattern is compared with.
constexpr std::int64_t most_names = 20'000;
constexpr std::int64_t most_with_prefix = 2000;

using Ids = std::unordered_set<std::int64_t>;

std::string lower(std::string text) {
    for (char& c : text)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    return text;
}

std::string phrase(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"') out += c;
        out += c;
    }
    return out + "\"";
}

/// The first text behind all that begin with `prefix`. Ids are ASCII.
std::string behind(std::string prefix) {
    prefix.back() = static_cast<char>(prefix.back() + 1);
    return prefix;
}

struct JobRow {
    std::int64_t row, created, status, queue, func, worker, grp, error, duration;
    std::string id, tags;
};

constexpr std::string_view columns =
    "j.row, j.created, j.status, j.queue, j.func, j.worker, j.grp, j.error, j.duration, j.id, "
    "j.tags";

JobRow read(const Statement& row) {
    return {row.integer(0), row.integer(1), row.integer(2), row.integer(3),
            row.integer(4), row.integer(5), row.integer(6), row.integer(7),
            row.integer(8), row.text(9),    row.text(10)};
}

}  // namespace

StoreReader::StoreReader(const std::filesystem::path& file)
    : database_(file, Database::Mode::read) {}

std::int64_t StoreReader::jobs() {
    const auto sum = database_.statement("SELECT coalesce(sum(jobs), 0) FROM names WHERE kind = 1");
    return sum->step() ? sum->integer(0) : 0;
}

std::vector<std::int64_t> StoreReader::name_ids(NameKind kind,
                                                const std::vector<std::string>& patterns,
                                                std::int64_t& jobs) {
    std::vector<std::int64_t> ids;
    std::vector<std::string> wild;
    jobs = 0;
    const auto add = [&](std::int64_t id, std::int64_t count) {
        if (std::ranges::find(ids, id) != ids.end()) return;
        ids.push_back(id);
        jobs += count;
    };
    const bool may_be_wild = kind == NameKind::queue || kind == NameKind::function;
    for (const auto& pattern : patterns) {
        if (may_be_wild && pattern.find('*') != std::string::npos) {
            wild.push_back(pattern);
            continue;
        }
        Statement& found =
            database_.prepared("SELECT id, jobs FROM names WHERE kind = ? AND text = ?");
        if (found.bind(static_cast<std::int64_t>(kind)).bind(pattern).step())
            add(found.integer(0), found.integer(1));
        found.reset();
    }
    if (wild.empty()) return ids;
    const auto all = database_.statement("SELECT id, jobs, text FROM names WHERE kind = ? LIMIT ?");
    all->bind(static_cast<std::int64_t>(kind)).bind(most_names);
    while (all->step()) {
        const std::string text = all->text(2);
        if (std::ranges::any_of(
                wild, [&](const std::string& one) { return matches_wildcard(one, text); }))
            add(all->integer(0), all->integer(1));
    }
    return ids;
}

std::vector<std::int64_t> StoreReader::all_statuses() {
    const auto all = database_.statement("SELECT id FROM names WHERE kind = 1 LIMIT 100");
    std::vector<std::int64_t> ids;
    while (all->step())
        ids.push_back(all->integer(0));
    return ids;
}

std::string StoreReader::name(std::int64_t id) {
    if (id == 0) return {};
    if (const auto known = names_.find(id); known != names_.end()) return known->second;
    Statement& found = database_.prepared("SELECT text FROM names WHERE id = ?");
    std::string text = found.bind(id).step() ? found.text(0) : std::string();
    found.reset();
    return names_[id] = std::move(text);
}

/// One question for a page: how the filter's texts are numbered, and the ranges to be read.
struct StoreReader::Query {
    Ids statuses, queues, funcs, workers, groups, errors;
    std::vector<std::int64_t> tags;
    bool nothing = false;  ///< No job can fit.

    /// A range of an index: columns that are equal to these values.
    struct Plan {
        std::string from = "jobs j INDEXED BY jobs_created";
        std::vector<std::string> equal;
        std::vector<std::vector<std::int64_t>> ranges{{}};
        std::int64_t jobs = 0;  ///< In all ranges, about.
        bool counted = true;    ///< `jobs` is their exact number.
        std::string order_created = "j.created", order_row = "j.row";
    } plan;
    bool covers_all = true;  ///< Whatever is in the plan's ranges fits.
    std::string error_part;  ///< To be looked for in each error.
};

FoundJobs StoreReader::find(const JobFilter& filter, const std::optional<JobPosition>& after,
                            std::size_t limit) {
    // Numbers of names are used again: those found are of the jobs of the same moment.
    const Snapshot snapshot(database_);
    names_.clear();
    Query query;
    query.plan.jobs = jobs();
    int filters = 0;

    // Each filter may give the ranges that are read; the one with the fewest jobs does.
    const auto offer = [&](Query::Plan plan) {
        if (plan.ranges.size() > most_ranges || plan.jobs > query.plan.jobs) return;
        query.plan = std::move(plan);
    };
    const auto one_column = [](std::string index, std::string column,
                               const std::vector<std::int64_t>& values, std::int64_t count) {
        Query::Plan plan;
        plan.from = fmt::format("jobs j INDEXED BY {}", index);
        plan.equal = {std::move(column)};
        plan.ranges.clear();
        for (const std::int64_t value : values)
            plan.ranges.push_back({value});
        plan.jobs = count;
        return plan;
    };

    std::vector<std::int64_t> statuses;
    if (!filter.statuses.empty()) {
        std::int64_t count = 0;
        statuses = name_ids(NameKind::status, filter.statuses, count);
        query.statuses = Ids(statuses.begin(), statuses.end());
        query.nothing |= statuses.empty();
        ++filters;
        offer(one_column("jobs_status", "j.status", statuses, count));
    }
    const bool by_status = filters > 0;
    // How many of the filters the plan's ranges see to.
    int covered = query.plan.equal.empty() ? 0 : 1;
    const auto with_status = [&](const char* index, const char* column,
                                 const std::vector<std::int64_t>& ids, std::int64_t count) {
        Query::Plan plan;
        plan.from = fmt::format("jobs j INDEXED BY {}", index);
        plan.equal = {column, "j.status"};
        plan.ranges.clear();
        const auto of = by_status ? statuses : all_statuses();
        if (ids.size() * of.size() > most_ranges) return;
        plan.jobs = 0;
        plan.counted = true;
        for (const std::int64_t id : ids)
            for (const std::int64_t status : of)
                plan.ranges.push_back({id, status});
        if (!by_status) {
            plan.jobs = count;
        } else {
            for (const auto& range : plan.ranges) {
                Statement& some = database_.prepared(
                    fmt::format("SELECT count(*) FROM (SELECT 1 FROM {} WHERE {} = ? AND "
                                "j.status = ? LIMIT ?)",
                                plan.from, column));
                some.bind(range[0]).bind(range[1]).bind(most_counted + 1).step();
                const std::int64_t there = some.integer(0);
                some.reset();
                plan.jobs += there;
                if (there > most_counted) plan.counted = false;
            }
            if (!plan.counted) plan.jobs = std::max(plan.jobs, std::min(count, query.plan.jobs));
        }
        const auto before = query.plan.from;
        offer(std::move(plan));
        if (query.plan.from != before) covered = by_status ? 2 : 1;
    };
    const auto single = [&](Query::Plan plan) {
        const auto before = query.plan.from;
        offer(std::move(plan));
        if (query.plan.from != before) covered = 1;
    };

    if (!filter.queues.empty()) {
        std::int64_t count = 0;
        const auto ids = name_ids(NameKind::queue, filter.queues, count);
        query.queues = Ids(ids.begin(), ids.end());
        query.nothing |= ids.empty();
        ++filters;
        with_status("jobs_queue", "j.queue", ids, count);
    }
    if (!filter.functions.empty()) {
        std::int64_t count = 0;
        const auto ids = name_ids(NameKind::function, filter.functions, count);
        query.funcs = Ids(ids.begin(), ids.end());
        query.nothing |= ids.empty();
        ++filters;
        with_status("jobs_func", "j.func", ids, count);
    }
    if (!filter.workers.empty()) {
        std::int64_t count = 0;
        const auto ids = name_ids(NameKind::worker, filter.workers, count);
        query.workers = Ids(ids.begin(), ids.end());
        query.nothing |= ids.empty();
        ++filters;
        single(one_column("jobs_worker", "j.worker", ids, count));
    }
    if (!filter.tags.empty()) {
        std::int64_t count = 0;
        query.tags = name_ids(NameKind::tag, filter.tags, count);
        query.nothing |= query.tags.empty();
        ++filters;
        auto plan = one_column("", "t.tag", query.tags, count);
        // A job with two of the tags would come twice.
        if (query.tags.size() == 1) {
            plan.from = "tags t CROSS JOIN jobs j ON j.row = t.row";
            plan.order_created = "t.created";
            plan.order_row = "t.row";
            single(std::move(plan));
        }
    }
    if (!filter.groups.empty()) {
        std::vector<std::int64_t> ids;
        std::int64_t count = 0;
        for (const auto& id : filter.groups) {
            Statement& found = database_.prepared("SELECT row, jobs FROM groups WHERE id = ?");
            if (found.bind(id).step() && query.groups.insert(found.integer(0)).second) {
                ids.push_back(found.integer(0));
                count += found.integer(1);
            }
            found.reset();
        }
        query.nothing |= ids.empty();
        ++filters;
        single(one_column("jobs_grp", "j.grp", ids, count));
    }
    if (!filter.error.empty()) {
        ++filters;
        std::vector<std::int64_t> ids;
        std::size_t characters = 0;
        for (const char c : filter.error)
            if ((static_cast<unsigned char>(c) & 0xc0) != 0x80) ++characters;
        // Of the index: three characters at a time. It takes no NUL.
        bool few = characters >= 3 && filter.error.find('\0') == std::string::npos;
        if (few) {
            const auto found = database_.statement(
                "SELECT rowid FROM error_texts WHERE error_texts MATCH ? LIMIT ?");
            found->bind(phrase(filter.error)).bind(static_cast<std::int64_t>(most_errors + 1));
            while (found->step())
                ids.push_back(found->integer(0));
            few = ids.size() <= most_errors;
        }
        std::int64_t count = 0;
        std::string list;
        for (const std::int64_t id : ids) {
            if (!few) break;
            Statement& stands_in = database_.prepared("SELECT jobs FROM errors WHERE id = ?");
            if (stands_in.bind(id).step()) count += stands_in.integer(0);
            stands_in.reset();
            list += fmt::format("{}{}", list.empty() ? "" : ",", id);
        }
        if (few && (ids.size() <= most_ranges || count <= most_with_error)) {
            query.nothing |= ids.empty();
            query.errors = Ids(ids.begin(), ids.end());
            auto plan = one_column("jobs_error", "j.error", ids, count);
            if (ids.size() > most_ranges) {
                // So few jobs that they can be put in order.
                plan.from = fmt::format("(SELECT * FROM jobs WHERE error IN ({})) j", list);
                plan.equal.clear();
                plan.ranges = {{}};
            }
            single(std::move(plan));
        } else {
            query.error_part = lower(filter.error);
            if (!by_status) {
                // Only these have errors.
                std::int64_t of_all = 0;
                const auto failed = name_ids(NameKind::status, {"failed", "stopped"}, of_all);
                query.nothing |= failed.empty();
                single(one_column("jobs_status", "j.status", failed, of_all));
                covered = 0;
            }
        }
    }
    if (!filter.id_prefix.empty()) {
        ++filters;
        if (!is_valid_job_id(filter.id_prefix)) return {.total_is_exact = true};
        Statement& some = database_.prepared(
            "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE id >= ? AND id < ? LIMIT ?)");
        some.bind(filter.id_prefix).bind(behind(filter.id_prefix)).bind(most_with_prefix + 1);
        const std::int64_t count = some.step() ? some.integer(0) : 0;
        some.reset();
        query.nothing |= count == 0;
        if (count <= most_with_prefix && count < query.plan.jobs) {
            // So few that they can be put in order.
            Query::Plan plan;
            plan.from = fmt::format("(SELECT * FROM jobs WHERE id >= '{}' AND id < '{}') j",
                                    filter.id_prefix, behind(filter.id_prefix));
            plan.jobs = count;
            single(std::move(plan));
        }
    }
    for (const auto& bound : {filter.since, filter.until, filter.min_duration, filter.max_duration})
        if (bound) ++filters;
    query.covers_all = covered == filters;

    FoundJobs page;
    if (query.nothing) {
        page.total_is_exact = true;
        return page;
    }

    // The ranges are read side by side, each in the order of creation.
    const bool newest = filter.newest_first;
    const auto& plan = query.plan;
    std::string sql = fmt::format("SELECT {} FROM {} WHERE 1", columns, plan.from);
    for (const auto& column : plan.equal)
        sql += fmt::format(" AND {} = ?", column);
    if (filter.since) sql += fmt::format(" AND {} >= {}", plan.order_created, *filter.since);
    if (filter.until) sql += fmt::format(" AND {} < {}", plan.order_created, *filter.until);
    if (after)
        sql += fmt::format(" AND ({}, {}) {} (?, ?)", plan.order_created, plan.order_row,
                           newest ? "<" : ">");
    sql += fmt::format(" ORDER BY {0} {2}, {1} {2}", plan.order_created, plan.order_row,
                       newest ? "DESC" : "ASC");
    std::vector<std::unique_ptr<Statement>> ranges;
    using Head = std::pair<JobPosition, std::size_t>;
    const auto later = [newest](const Head& a, const Head& b) {
        const auto key = [](const Head& head) {
            return std::pair(head.first.created, head.first.row);
        };
        return newest ? key(a) < key(b) : key(a) > key(b);
    };
    std::priority_queue<Head, std::vector<Head>, decltype(later)> heads(later);
    const auto advance = [&](std::size_t i) {
        if (ranges[i]->step()) heads.push({{ranges[i]->integer(1), ranges[i]->integer(0)}, i});
    };
    for (const auto& values : plan.ranges) {
        ranges.push_back(database_.statement(sql));
        for (const std::int64_t value : values)
            ranges.back()->bind(value);
        if (after) ranges.back()->bind(after->created).bind(after->row);
        advance(ranges.size() - 1);
    }

    const auto has = [](const Ids& ids, std::int64_t id) {
        return ids.empty() || ids.contains(id);
    };
    const auto error_text = [&](std::int64_t id) {
        Statement& found = database_.prepared("SELECT text FROM errors WHERE id = ?");
        std::string text = found.bind(id).step() ? found.text(0) : std::string();
        found.reset();
        return text;
    };
    const auto tags_of = [](const std::string& list) {
        std::vector<std::int64_t> ids;
        for (std::size_t at = 0; at < list.size();) {
            const auto end = std::min(list.find(' ', at), list.size());
            ids.push_back(std::strtoll(list.c_str() + at, nullptr, 10));
            at = end + 1;
        }
        return ids;
    };
    const auto fits = [&](const JobRow& row) {
        if (query.covers_all) return true;
        if (!has(query.statuses, row.status) || !has(query.queues, row.queue) ||
            !has(query.funcs, row.func) || !has(query.workers, row.worker) ||
            !has(query.groups, row.grp) || !has(query.errors, row.error))
            return false;
        if (!filter.id_prefix.empty() && !row.id.starts_with(filter.id_prefix)) return false;
        if (filter.min_duration && row.duration - 1 < *filter.min_duration) return false;
        if (filter.max_duration && (row.duration == 0 || row.duration - 1 > *filter.max_duration))
            return false;
        if (!query.tags.empty()) {
            const auto tags = tags_of(row.tags);
            if (std::ranges::none_of(query.tags, [&](std::int64_t tag) {
                    return std::ranges::find(tags, tag) != tags.end();
                }))
                return false;
        }
        return query.error_part.empty() ||
               (row.error != 0 &&
                lower(error_text(row.error)).find(query.error_part) != std::string::npos);
    };

    std::size_t looks = 0, fitting = 0;
    JobPosition last;
    while (!heads.empty() && looks < most_looks) {
        // The page is full: only what is needed to tell how many there are.
        if (page.jobs.size() == limit && (query.covers_all || after || looks >= looks_beyond))
            break;
        const auto [position, i] = heads.top();
        heads.pop();
        ++looks;
        const JobRow row = read(*ranges[i]);
        if (fits(row)) {
            ++fitting;
            if (page.jobs.size() < limit) {
                FoundJob job;
                job.id = row.id;
                job.status = name(row.status);
                job.queue = name(row.queue);
                job.function = name(row.func);
                job.worker = name(row.worker);
                if (row.error != 0) job.error = error_text(row.error);
                if (row.grp != 0) {
                    Statement& group = database_.prepared("SELECT id FROM groups WHERE row = ?");
                    if (group.bind(row.grp).step()) job.group = group.text(0);
                    group.reset();
                }
                for (const std::int64_t tag : tags_of(row.tags))
                    job.tags.push_back(name(tag));
                job.position = position;
                page.jobs.push_back(std::move(job));
            } else if (!page.next) {
                page.next = last;  // One more: the page has a successor.
            }
        }
        if (page.jobs.size() < limit || !page.next) last = position;
        advance(i);
    }
    const bool all_seen = heads.empty();
    if (!page.next && !all_seen) page.next = last;

    if (query.covers_all) {
        page.approx_total = plan.jobs;
        page.total_is_exact = plan.counted;
    } else if (all_seen && !after) {
        page.approx_total = static_cast<std::int64_t>(fitting);
        page.total_is_exact = true;
    } else {
        const double share =
            looks == 0 ? 0 : static_cast<double>(fitting) / static_cast<double>(looks);
        page.approx_total =
            std::max(static_cast<std::int64_t>(share * static_cast<double>(plan.jobs)),
                     static_cast<std::int64_t>(fitting));
    }
    return page;
}

std::vector<NameCount> StoreReader::suggest(NameKind kind, const std::string& prefix,
                                            std::size_t most) {
    const auto found = database_.statement(
        "SELECT text, jobs FROM (SELECT text, jobs FROM names WHERE kind = ? AND text >= ? LIMIT "
        "20000) WHERE substr(text, 1, length(?)) = ? ORDER BY jobs DESC, text LIMIT ?");
    found->bind(static_cast<std::int64_t>(kind)).bind(prefix).bind(prefix).bind(prefix);
    found->bind(static_cast<std::int64_t>(most));
    std::vector<NameCount> names;
    while (found->step())
        names.push_back({found->text(0), found->integer(1)});
    return names;
}

std::vector<NameCount> StoreReader::suggest_groups(const std::string& prefix, std::size_t most) {
    const auto found = database_.statement(
        "SELECT id, jobs FROM (SELECT id, jobs FROM groups ORDER BY jobs DESC LIMIT 20000) WHERE "
        "substr(id, 1, length(?)) = ? LIMIT ?");
    found->bind(prefix).bind(prefix).bind(static_cast<std::int64_t>(most));
    std::vector<NameCount> names;
    while (found->step())
        names.push_back({found->text(0), found->integer(1)});
    return names;
}

namespace {

constexpr std::string_view failure_columns =
    "row, id, exception, message, frame, title, jobs, first_seen, last_seen";

Failure read_failure(const Statement& row) {
    Failure failure;
    failure.row = row.integer(0);
    failure.group = {row.text(1), row.text(2), row.text(3), row.text(4)};
    failure.title = row.text(5);
    failure.count = row.integer(6);
    failure.first_seen = row.integer(7);
    failure.last_seen = row.integer(8);
    return failure;
}

}  // namespace

std::vector<Failure> StoreReader::failures(const FailureFilter& filter,
                                           const std::optional<JobPosition>& after,
                                           std::size_t limit) {
    const Snapshot snapshot(database_);
    const char* order = filter.by_count ? "jobs" : "last_seen";
    std::string sql = fmt::format("SELECT {} FROM groups g WHERE 1", failure_columns);
    std::vector<std::int64_t> names;
    for (const auto& [kind, text] : {std::pair(NameKind::queue, &filter.queue),
                                     std::pair(NameKind::function, &filter.function)}) {
        if (text->empty()) continue;
        std::int64_t jobs = 0;
        const auto ids = name_ids(kind, {*text}, jobs);
        if (ids.empty()) return {};
        std::string list;
        for (std::size_t i = 0; i < std::min<std::size_t>(ids.size(), 200); ++i)
            list += fmt::format("{}{}", i == 0 ? "" : ",", ids[i]);
        sql += fmt::format(
            " AND EXISTS (SELECT 1 FROM group_names n WHERE n.grp = g.row AND n.name IN ({}))",
            list);
    }
    if (after) sql += fmt::format(" AND ({}, row) < (?, ?)", order);
    sql += fmt::format(" ORDER BY {} DESC, row DESC LIMIT ?", order);
    const auto found = database_.statement(sql);
    if (after) found->bind(after->created).bind(after->row);
    found->bind(static_cast<std::int64_t>(limit));
    std::vector<Failure> list;
    while (found->step())
        list.push_back(read_failure(*found));
    return list;
}

std::optional<Failure> StoreReader::failure(const std::string& id) {
    const auto found =
        database_.statement(fmt::format("SELECT {} FROM groups WHERE id = ?", failure_columns));
    if (!found->bind(id).step()) return std::nullopt;
    return read_failure(*found);
}

std::vector<NameCount> StoreReader::names_of(std::int64_t group, NameKind kind) {
    const auto found = database_.statement(
        "SELECT n.text, g.jobs FROM (SELECT name, jobs FROM group_names WHERE grp = ? LIMIT 2000) "
        "g JOIN names n ON n.id = g.name WHERE n.kind = ? ORDER BY g.jobs DESC, n.text LIMIT 20");
    found->bind(group).bind(static_cast<std::int64_t>(kind));
    std::vector<NameCount> names;
    while (found->step())
        names.push_back({found->text(0), found->integer(1)});
    return names;
}

void StoreReader::complete(Failure& failure, std::int64_t now) {
    failure.queues = names_of(failure.row, NameKind::queue);
    failure.functions = names_of(failure.row, NameKind::function);
    failure.workers = names_of(failure.row, NameKind::worker);
    const auto samples = database_.statement(
        "SELECT id FROM jobs INDEXED BY jobs_grp WHERE grp = ? ORDER BY created DESC, row DESC "
        "LIMIT 3");
    samples->bind(failure.row);
    while (samples->step())
        failure.samples.push_back(samples->text(0));
    constexpr std::int64_t shown_hours = 24;
    const std::int64_t last = now / 3'600'000'000;
    failure.hours.assign(shown_hours, 0);
    const auto hours = database_.statement(
        "SELECT hour, jobs FROM group_hours WHERE grp = ? AND hour > ? AND hour <= ?");
    hours->bind(failure.row).bind(last - shown_hours).bind(last);
    while (hours->step())
        failure.hours[static_cast<std::size_t>(hours->integer(0) - last + shown_hours - 1)] =
            hours->integer(1);
}

}  // namespace rqxx::index
