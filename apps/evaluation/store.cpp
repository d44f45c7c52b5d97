#include "evaluation/store.hpp"

#include <fmt/format.h>
#include <sqlite3.h>

#include <charconv>
#include <rqxx/error.hpp>
#include <rqxx/time.hpp>
#include <sql_files.hpp>
#include <utility>

namespace evaluation {
namespace {

using rqxx::Errc;
using rqxx::Error;

[[noreturn]] void failed(sqlite3* database, std::string_view what) {
    throw Error(Errc::io,
                fmt::format("{} the database failed: {}", what, sqlite3_errmsg(database)));
}

std::string now() {
    return rqxx::format_utc(rqxx::utc_now());
}

/// A row number, or nothing for what cannot be one.
std::optional<std::int64_t> row_id(const std::string& id) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), number);
    if (id.empty() || error != std::errc{} || end != id.data() + id.size() || number < 1)
        return std::nullopt;
    return number;
}

}  // namespace

/// A prepared statement with its parameters, read row by row.
class Store::Statement {
public:
    Statement(sqlite3* database, std::string_view sql) : database_(database) {
        if (sqlite3_prepare_v2(database, sql.data(), static_cast<int>(sql.size()), &statement_,
                               nullptr) != SQLITE_OK)
            failed(database, "Asking");
    }
    ~Statement() { sqlite3_finalize(statement_); }
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;

    Statement& bind(std::int64_t value) {
        sqlite3_bind_int64(statement_, ++bound_, value);
        return *this;
    }
    Statement& bind(double value) {
        sqlite3_bind_double(statement_, ++bound_, value);
        return *this;
    }
    Statement& bind(const std::string& value) {
        sqlite3_bind_text(statement_, ++bound_, value.data(), static_cast<int>(value.size()),
                          SQLITE_TRANSIENT);
        return *this;
    }
    /// Whether there is a(nother) row.
    bool step() {
        const int code = sqlite3_step(statement_);
        if (code != SQLITE_ROW && code != SQLITE_DONE) failed(database_, "Writing");
        return code == SQLITE_ROW;
    }
    [[nodiscard]] std::int64_t integer(int column) const {
        return sqlite3_column_int64(statement_, column);
    }
    [[nodiscard]] double real(int column) const {
        return sqlite3_column_double(statement_, column);
    }
    [[nodiscard]] bool is_null(int column) const {
        return sqlite3_column_type(statement_, column) == SQLITE_NULL;
    }
    [[nodiscard]] std::string text(int column) const {
        const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
        return bytes == nullptr
                   ? std::string()
                   : std::string(
                         bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
    }

private:
    sqlite3* database_;
    sqlite3_stmt* statement_ = nullptr;
    int bound_ = 0;
};

/// Rolled back unless committed.
class Store::Transaction {
public:
    explicit Transaction(Store& store) : store_(store) { store_.execute("BEGIN IMMEDIATE"); }
    ~Transaction() {
        if (!done_) sqlite3_exec(store_.database_, "ROLLBACK", nullptr, nullptr, nullptr);
    }
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    void commit() {
        store_.execute("COMMIT");
        done_ = true;
    }

private:
    Store& store_;
    bool done_ = false;
};

Store::Store(std::filesystem::path file) : file_(std::move(file)) {}

void Store::open() {
    (void)use();
}

std::unique_lock<std::mutex> Store::use() {
    std::unique_lock lock(mutex_);
    if (database_ != nullptr) return lock;
    std::error_code ignored;  // SQLite tells that there is no directory.
    std::filesystem::create_directories(file_.parent_path(), ignored);
    try {
        if (sqlite3_open(file_.c_str(), &database_) != SQLITE_OK)
            throw Error(Errc::io, fmt::format("cannot open {}: {}", file_.native(),
                                              sqlite3_errmsg(database_)));
        sqlite3_busy_timeout(database_, 10'000);
        execute("PRAGMA journal_mode = WAL");
        execute("PRAGMA foreign_keys = ON");
        migrate();
    } catch (...) {
        sqlite3_close(std::exchange(database_, nullptr));
        throw;
    }
    return lock;
}

Store::~Store() {
    sqlite3_close(database_);
}

void Store::execute(const std::string& sql) {
    if (sqlite3_exec(database_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK)
        failed(database_, "Writing");
}

void Store::migrate() {
    Transaction transaction(*this);
    Statement version(database_, "PRAGMA user_version");
    version.step();
    const auto done = static_cast<std::size_t>(version.integer(0));
    const auto migrations = sql_files();
    if (done > migrations.size())
        throw Error(Errc::io,
                    fmt::format("the database has schema {}; this version of rqxx knows up to {}",
                                done, migrations.size()));
    for (std::size_t i = done; i < migrations.size(); ++i)
        execute(std::string(migrations[i].body));
    execute(fmt::format("PRAGMA user_version = {}", migrations.size()));
    transaction.commit();
}

std::string Store::add_session(const std::string& candidate_id, const std::string& mr_package) {
    const auto lock = use();
    Statement(database_,
              "INSERT INTO sessions (candidate_id, mr_package, created_at) VALUES (?, ?, ?)")
        .bind(candidate_id)
        .bind(mr_package)
        .bind(now())
        .step();
    return std::to_string(sqlite3_last_insert_rowid(database_));
}

namespace {
constexpr std::string_view session_columns =
    "SELECT s.id, s.candidate_id, s.mr_package, s.created_at, (SELECT count(*) FROM comments c "
    "WHERE c.session_id = s.id), "
    "r.score, r.grade FROM sessions s LEFT JOIN reports r ON r.id = (SELECT max(id) FROM reports "
    "WHERE session_id = s.id) ";

template <class Row>
Session read_session(const Row& row) {
    Session session{std::to_string(row.integer(0)),
                    row.text(1),
                    row.text(2),
                    row.text(3),
                    row.integer(4),
                    {},
                    {}};
    if (!row.is_null(5)) {
        session.score = row.real(5);
        session.grade = row.text(6);
    }
    return session;
}
}  // namespace

std::optional<Session> Store::session(const std::string& id) {
    const auto number = row_id(id);
    if (!number) return std::nullopt;
    const auto lock = use();
    Statement row(database_, fmt::format("{} WHERE s.id = ?", session_columns));
    row.bind(*number);
    if (!row.step()) return std::nullopt;
    return read_session(row);
}

std::vector<Session> Store::sessions(std::int64_t limit) {
    const auto lock = use();
    Statement row(database_, fmt::format("{} ORDER BY s.id DESC LIMIT ?", session_columns));
    row.bind(limit);
    std::vector<Session> sessions;
    while (row.step())
        sessions.push_back(read_session(row));
    return sessions;
}

std::int64_t Store::session_count() {
    const auto lock = use();
    Statement row(database_, "SELECT count(*) FROM sessions");
    row.step();
    return row.integer(0);
}

std::vector<std::int64_t> Store::add_comments(const std::string& session_id,
                                              const std::vector<Remark>& comments) {
    const auto lock = use();
    Transaction transaction(*this);
    std::vector<std::int64_t> ids;
    for (const auto& comment : comments) {
        Statement(database_,
                  "INSERT INTO comments (session_id, file, line_from, line_to, type, text, "
                  "created_at) VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(row_id(session_id).value_or(0))
            .bind(comment.file)
            .bind(comment.from)
            .bind(comment.to)
            .bind(comment.type)
            .bind(comment.text)
            .bind(now())
            .step();
        ids.push_back(sqlite3_last_insert_rowid(database_));
    }
    transaction.commit();
    return ids;
}

std::vector<StoredComment> Store::comments(const std::string& session_id) {
    const auto lock = use();
    Statement row(database_,
                  "SELECT id, file, line_from, line_to, type, text, created_at FROM comments WHERE "
                  "session_id = ? ORDER BY id");
    row.bind(row_id(session_id).value_or(0));
    std::vector<StoredComment> comments;
    while (row.step()) {
        StoredComment comment;
        comment.id = row.integer(0);
        comment.file = row.text(1);
        comment.from = row.integer(2);
        comment.to = row.integer(3);
        comment.type = row.text(4);
        comment.text = row.text(5);
        comment.created_at = row.text(6);
        comments.push_back(std::move(comment));
    }
    return comments;
}

void Store::add_report(const std::string& session_id, double score, const std::string& grade,
                       const std::string& report) {
    const auto lock = use();
    Statement(
        database_,
        "INSERT INTO reports (session_id, score, grade, report, created_at) VALUES (?, ?, ?, ?, ?)")
        .bind(row_id(session_id).value_or(0))
        .bind(score)
        .bind(grade)
        .bind(report)
        .bind(now())
        .step();
}

std::optional<std::string> Store::report(const std::string& session_id) {
    const auto lock = use();
    Statement row(database_,
                  "SELECT report FROM reports WHERE session_id = ? ORDER BY id DESC LIMIT 1");
    row.bind(row_id(session_id).value_or(0));
    if (!row.step()) return std::nullopt;
    return row.text(0);
}

}  // namespace evaluation
