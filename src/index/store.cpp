#include "index/store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <rqxx/error.hpp>
#include <rqxx/time.hpp>

namespace rqxx::index {
namespace {

/// Of the tables below; an index of another version is made anew.
constexpr std::string_view schema_version = "1";

constexpr std::int64_t hour_us = 3'600'000'000;

// Every index ends with the row, which makes an order of jobs that were created at once.
constexpr const char* schema = R"sql(
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE names (id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, text TEXT NOT NULL,
    jobs INTEGER NOT NULL, UNIQUE (kind, text));
CREATE TABLE jobs (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created INTEGER NOT NULL,
    status INTEGER NOT NULL, queue INTEGER NOT NULL, func INTEGER NOT NULL, worker INTEGER,
    grp INTEGER, error INTEGER, ended INTEGER, duration INTEGER, expires INTEGER, tags TEXT,
    sum INTEGER NOT NULL);
CREATE INDEX jobs_created ON jobs (created);
CREATE INDEX jobs_status ON jobs (status, created);
CREATE INDEX jobs_queue ON jobs (queue, status, created);
CREATE INDEX jobs_func ON jobs (func, status, created);
CREATE INDEX jobs_worker ON jobs (worker, created) WHERE worker IS NOT NULL;
CREATE INDEX jobs_grp ON jobs (grp, created) WHERE grp IS NOT NULL;
CREATE INDEX jobs_error ON jobs (error, created) WHERE error IS NOT NULL;
CREATE INDEX jobs_expires ON jobs (expires) WHERE expires IS NOT NULL;
CREATE TABLE tags (tag INTEGER, created INTEGER, row INTEGER, PRIMARY KEY (tag, created, row))
    WITHOUT ROWID;
CREATE TABLE errors (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, jobs INTEGER NOT NULL);
CREATE VIRTUAL TABLE error_texts USING fts5 (text, content = 'errors', content_rowid = 'id',
    tokenize = 'trigram');
CREATE TABLE groups (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL,
    exception TEXT NOT NULL, message TEXT NOT NULL, frame TEXT NOT NULL, jobs INTEGER NOT NULL,
    first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL);
CREATE INDEX groups_seen ON groups (last_seen);
CREATE INDEX groups_jobs ON groups (jobs);
CREATE TABLE group_names (grp INTEGER, name INTEGER, jobs INTEGER NOT NULL,
    PRIMARY KEY (grp, name)) WITHOUT ROWID;
CREATE TABLE group_hours (grp INTEGER, hour INTEGER, jobs INTEGER NOT NULL,
    PRIMARY KEY (grp, hour)) WITHOUT ROWID;
)sql";

/// FNV-1a: tells a job that has changed from one that has not.
class Checksum {
public:
    void add(std::string_view text) {
        for (const char c : text)
            step(static_cast<unsigned char>(c));
        step(0);
    }
    void add(std::int64_t number) { add(std::to_string(number)); }
    [[nodiscard]] std::int64_t value() const { return static_cast<std::int64_t>(hash_); }

private:
    void step(unsigned char byte) { hash_ = (hash_ ^ byte) * 0x100000001b3; }
    std::uint64_t hash_ = 0xcbf29ce484222325;
};

std::int64_t checksum(const IndexedJob& job) {
    Checksum sum;
    for (const auto* text : {&job.status, &job.queue, &job.function, &job.worker, &job.error})
        sum.add(*text);
    for (const std::int64_t number : {job.created, job.ended, job.duration, job.expires})
        sum.add(number);
    for (const auto& tag : job.tags)
        sum.add(tag);
    sum.add(job.group ? job.group->id : std::string());
    return sum.value();
}

template <class Action>
void each_number(std::string_view list, Action action) {
    while (!list.empty()) {
        const auto end = list.find(' ');
        const std::string_view part = list.substr(0, end);
        std::int64_t number = 0;
        std::from_chars(part.data(), part.data() + part.size(), number);
        action(number);
        list = end == std::string_view::npos ? std::string_view() : list.substr(end + 1);
    }
}

}  // namespace

/// A job's row, all texts as numbers; 0: none.
struct Store::Row {
    std::int64_t row = 0, created = 0, status = 0, queue = 0, func = 0, worker = 0, grp = 0,
                 error = 0, ended = 0, duration = 0, expires = 0, sum = 0;
    std::string tags;
};

/// How many jobs more there are of each, written once for each transaction.
struct Store::Deltas {
    std::map<std::int64_t, std::int64_t> names, errors, groups;
    std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> group_names, group_hours;
};

Store::Store(std::filesystem::path file)
    : file_(std::move(file)), deltas_(std::make_shared<Deltas>()) {
    try {
        open();
        if (meta("schema") == schema_version) return;
    } catch (const Error& error) {
        // Damaged, or not a database: it can be made anew from Redis.
        if (error.code() != Errc::decode) throw;
    }
    make_anew();
}

void Store::open() {
    database_ = std::make_unique<Database>(file_, Database::Mode::write);
}

void Store::clear() {
    // Not by a new file: a reader that has opened this one would open the other's log beside it,
    // and SQLite then empties memory that is in use.
    database_->reset();
    make_schema();
}

void Store::make_anew() {
    database_.reset();
    std::error_code ignored;
    for (const char* suffix : {"", "-wal", "-shm"})
        std::filesystem::remove(file_.native() + suffix, ignored);
    open();
    make_schema();
}

void Store::make_schema() {
    Transaction transaction(*database_);
    database_->execute(schema);
    set_meta("schema", std::string(schema_version));
    transaction.commit();
}

void Store::set_meta(const std::string& key, const std::string& value) {
    database_->prepared("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)")
        .bind(key)
        .bind(value)
        .run();
}

std::string Store::meta(const std::string& key) {
    Statement& row = database_->prepared("SELECT value FROM meta WHERE key = ?").bind(key);
    std::string value = row.step() ? row.text(0) : std::string();
    row.reset();
    return value;
}

std::optional<Store::Row> Store::find(const std::string& id) {
    Statement& found = database_->prepared(
        "SELECT row, created, status, queue, func, worker, grp, error, ended, duration, expires, "
        "sum, tags FROM jobs WHERE id = ?");
    found.bind(id);
    if (!found.step()) {
        found.reset();
        return std::nullopt;
    }
    Row row;
    int column = 0;
    for (auto* field : {&row.row, &row.created, &row.status, &row.queue, &row.func, &row.worker,
                        &row.grp, &row.error, &row.ended, &row.duration, &row.expires, &row.sum})
        *field = found.integer(column++);
    row.tags = found.text(column);
    found.reset();
    return row;
}

void Store::count(const Row& row, std::int64_t change) {
    for (const std::int64_t name : {row.status, row.queue, row.func, row.worker})
        if (name != 0) deltas_->names[name] += change;
    each_number(row.tags, [&](std::int64_t tag) { deltas_->names[tag] += change; });
    if (row.error != 0) deltas_->errors[row.error] += change;
    if (row.grp == 0) return;
    deltas_->groups[row.grp] += change;
    for (const std::int64_t name : {row.queue, row.func, row.worker})
        if (name != 0) deltas_->group_names[{row.grp, name}] += change;
    deltas_->group_hours[{row.grp, row.ended / hour_us}] += change;
}

void Store::remove(const Row& row) {
    count(row, -1);
    each_number(row.tags, [&](std::int64_t tag) {
        database_->prepared("DELETE FROM tags WHERE tag = ? AND created = ? AND row = ?")
            .bind(tag)
            .bind(row.created)
            .bind(row.row)
            .run();
    });
    database_->prepared("DELETE FROM jobs WHERE row = ?").bind(row.row).run();
}

std::int64_t Store::name_id(NameKind kind, const std::string& text) {
    if (text.empty()) return 0;
    const auto number = static_cast<std::int64_t>(kind);
    const std::string key = fmt::format("{}{}", number, text);
    if (const auto known = names_.find(key); known != names_.end()) return known->second;
    Statement& found = database_->prepared("SELECT id FROM names WHERE kind = ? AND text = ?");
    std::int64_t id = 0;
    if (found.bind(number).bind(text).step()) id = found.integer(0);
    found.reset();
    if (id == 0) {
        database_->prepared("INSERT INTO names (kind, text, jobs) VALUES (?, ?, 0)")
            .bind(number)
            .bind(text)
            .run();
        id = database_->last_row();
    }
    deltas_->names[id] += 0;  // One that nothing uses goes with the transaction.
    return names_[key] = id;
}

std::int64_t Store::error_id(const std::string& text) {
    if (text.empty()) return 0;
    Statement& found = database_->prepared("SELECT id FROM errors WHERE text = ?");
    std::int64_t id = 0;
    if (found.bind(text).step()) id = found.integer(0);
    found.reset();
    if (id == 0) {
        database_->prepared("INSERT INTO errors (text, jobs) VALUES (?, 0)").bind(text).run();
        id = database_->last_row();
        database_->prepared("INSERT INTO error_texts (rowid, text) VALUES (?, ?)")
            .bind(id)
            .bind(text)
            .run();
    }
    deltas_->errors[id] += 0;
    return id;
}

std::int64_t Store::group_row(const IndexedJob& job) {
    if (!job.group) return 0;
    const ErrorGroup& group = *job.group;
    // Stock RQ notes no end of jobs that were abandoned.
    const std::int64_t seen = job.ended != 0 ? job.ended : job.created;
    Statement& found = database_->prepared("SELECT row FROM groups WHERE id = ?");
    std::int64_t row = 0;
    if (found.bind(group.id).step()) row = found.integer(0);
    found.reset();
    if (row == 0) {
        database_
            ->prepared(
                "INSERT INTO groups (id, title, exception, message, frame, jobs, "
                "first_seen, last_seen) VALUES (?, ?, ?, ?, ?, 0, ?, ?)")
            .bind(group.id)
            .bind(job.error)
            .bind(group.exception)
            .bind(group.message)
            .bind(group.frame)
            .bind(seen)
            .bind(seen)
            .run();
        row = database_->last_row();
    } else if (seen != 0) {
        database_
            ->prepared(
                "UPDATE groups SET first_seen = iif(first_seen = 0, ?1, min(first_seen, ?1)), "
                "last_seen = max(last_seen, ?1) WHERE row = ?2")
            .bind(seen)
            .bind(row)
            .run();
    }
    deltas_->groups[row] += 0;
    return row;
}

std::string Store::name(std::int64_t id) {
    Statement& found = database_->prepared("SELECT text FROM names WHERE id = ?").bind(id);
    std::string text = found.step() ? found.text(0) : std::string();
    found.reset();
    return text;
}

void Store::write(const std::string& id, const IndexedJob& job,
                  std::vector<JobTransition>& transitions) {
    const auto before = find(id);
    Row row;
    row.sum = checksum(job);
    if (before && before->sum == row.sum) return;
    row.created = job.created;
    row.status = name_id(NameKind::status, job.status);
    row.queue = name_id(NameKind::queue, job.queue);
    row.func = name_id(NameKind::function, job.function);
    row.worker = name_id(NameKind::worker, job.worker);
    row.grp = group_row(job);
    row.error = error_id(job.error);
    row.ended = job.ended;
    row.duration = job.duration + 1;  // 0 is none.
    row.expires = job.expires;
    for (const auto& tag : job.tags)
        row.tags += fmt::format("{}{}", row.tags.empty() ? "" : " ", name_id(NameKind::tag, tag));
    if (!before || before->status != row.status || before->ended != row.ended)
        transitions.push_back({id, job.queue, job.function, job.status, job.since, !before,
                               std::max(job.created, job.since)});
    if (before) count(*before, -1);

    const std::pair<const char*, std::int64_t> columns[] = {
        {"created", row.created}, {"status", row.status}, {"queue", row.queue},
        {"func", row.func},       {"worker", row.worker}, {"grp", row.grp},
        {"error", row.error},     {"ended", row.ended},   {"duration", row.duration},
        {"expires", row.expires}, {"sum", row.sum}};
    const bool optional[] = {false, false, false, false, true, true, true, true, true, true, false};
    if (before) {
        row.row = before->row;
        // Only the indexes of what has changed are written.
        const std::int64_t old[] = {before->created,  before->status,  before->queue, before->func,
                                    before->worker,   before->grp,     before->error, before->ended,
                                    before->duration, before->expires, before->sum};
        std::string sql;
        for (std::size_t i = 0; i < std::size(columns); ++i)
            if (columns[i].second != old[i])
                sql += fmt::format("{}{} = ?", sql.empty() ? "UPDATE jobs SET " : ", ",
                                   columns[i].first);
        if (row.tags != before->tags) sql += ", tags = ?";
        Statement& update = database_->prepared(sql + " WHERE row = ?");
        for (std::size_t i = 0; i < std::size(columns); ++i) {
            if (columns[i].second == old[i]) continue;
            if (optional[i])
                update.bind_or_null(columns[i].second);
            else
                update.bind(columns[i].second);
        }
        if (row.tags != before->tags) update.bind(row.tags);
        update.bind(row.row).run();
    } else {
        Statement& insert = database_->prepared(
            "INSERT INTO jobs (id, created, status, queue, func, worker, grp, error, ended, "
            "duration, expires, sum, tags) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
        insert.bind(id);
        for (std::size_t i = 0; i < std::size(columns); ++i) {
            if (optional[i])
                insert.bind_or_null(columns[i].second);
            else
                insert.bind(columns[i].second);
        }
        if (row.tags.empty())
            insert.bind_null();
        else
            insert.bind(row.tags);
        insert.run();
        row.row = database_->last_row();
    }
    const bool tags_moved = !before || before->tags != row.tags || before->created != row.created;
    if (tags_moved && before)
        each_number(before->tags, [&](std::int64_t tag) {
            database_->prepared("DELETE FROM tags WHERE tag = ? AND created = ? AND row = ?")
                .bind(tag)
                .bind(before->created)
                .bind(row.row)
                .run();
        });
    if (tags_moved)
        each_number(row.tags, [&](std::int64_t tag) {
            database_->prepared("INSERT OR REPLACE INTO tags (tag, created, row) VALUES (?, ?, ?)")
                .bind(tag)
                .bind(row.created)
                .bind(row.row)
                .run();
        });
    count(row, 1);
}

void Store::flush() {
    for (const auto& [name, change] : deltas_->names) {
        database_->prepared("UPDATE names SET jobs = jobs + ? WHERE id = ?")
            .bind(change)
            .bind(name)
            .run();
        database_->prepared("DELETE FROM names WHERE id = ? AND jobs <= 0").bind(name).run();
    }
    for (const auto& [error, change] : deltas_->errors) {
        database_->prepared("UPDATE errors SET jobs = jobs + ? WHERE id = ?")
            .bind(change)
            .bind(error)
            .run();
        if (change > 0) continue;
        database_
            ->prepared(
                "INSERT INTO error_texts (error_texts, rowid, text) SELECT 'delete', id, "
                "text FROM errors WHERE id = ? AND jobs <= 0")
            .bind(error)
            .run();
        database_->prepared("DELETE FROM errors WHERE id = ? AND jobs <= 0").bind(error).run();
    }
    for (const auto& [group, change] : deltas_->groups) {
        database_->prepared("UPDATE groups SET jobs = jobs + ? WHERE row = ?")
            .bind(change)
            .bind(group)
            .run();
        database_->prepared("DELETE FROM groups WHERE row = ? AND jobs <= 0").bind(group).run();
    }
    const auto add_to = [&](const char* table, const char* column, const auto& counts) {
        for (const auto& [key, change] : counts) {
            if (change == 0) continue;
            database_
                ->prepared(fmt::format("INSERT INTO {} (grp, {}, jobs) VALUES (?, ?, ?) ON "
                                       "CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs",
                                       table, column))
                .bind(key.first)
                .bind(key.second)
                .bind(change)
                .run();
            database_
                ->prepared(fmt::format("DELETE FROM {} WHERE grp = ? AND {} = ? AND jobs <= 0",
                                       table, column))
                .bind(key.first)
                .bind(key.second)
                .run();
        }
    };
    add_to("group_names", "name", deltas_->group_names);
    add_to("group_hours", "hour", deltas_->group_hours);
}

std::vector<JobTransition> Store::apply(const std::vector<JobChange>& changes) {
    std::vector<JobTransition> transitions;
    *deltas_ = {};
    names_.clear();
    Transaction transaction(*database_);
    for (const auto& change : changes) {
        if (change.job) {
            write(change.id, *change.job, transitions);
        } else if (const auto row = find(change.id)) {
            // Its time may have come some seconds before what is kept of it, which is rounded.
            const std::int64_t now = utc_now().time_since_epoch().count();
            if (row->expires == 0 || row->expires > now + 20'000'000)
                transitions.push_back(
                    {change.id, name(row->queue), name(row->func), "deleted", 0, false, 0});
            remove(*row);
        }
    }
    flush();
    transaction.commit();
    return transitions;
}

std::int64_t Store::jobs() {
    Statement& sum = database_->prepared("SELECT coalesce(sum(jobs), 0) FROM names WHERE kind = 1");
    const std::int64_t count = sum.step() ? sum.integer(0) : 0;
    sum.reset();
    return count;
}

std::vector<std::string> Store::some_ids(std::int64_t& row, std::size_t most) {
    Statement& next =
        database_->prepared("SELECT row, id FROM jobs WHERE row > ? ORDER BY row LIMIT ?");
    next.bind(row).bind(static_cast<std::int64_t>(most));
    std::vector<std::string> ids;
    while (next.step()) {
        row = next.integer(0);
        ids.push_back(next.text(1));
    }
    next.reset();
    if (ids.size() < most) row = 0;
    return ids;
}

std::vector<std::string> Store::expired_ids(std::int64_t now, std::size_t most) {
    Statement& next = database_->prepared(
        "SELECT id FROM jobs WHERE expires IS NOT NULL AND expires <= ? ORDER BY expires LIMIT ?");
    next.bind(now).bind(static_cast<std::int64_t>(most));
    std::vector<std::string> ids;
    while (next.step())
        ids.push_back(next.text(0));
    next.reset();
    return ids;
}

}  // namespace rqxx::index
