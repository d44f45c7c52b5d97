#include "index/database.hpp"

#include <fmt/format.h>
#include <sqlite3.h>

#include <rqxx/error.hpp>
#include <utility>

namespace rqxx::index {
namespace {

/// kB that a connection keeps of the database; the kernel keeps more.
constexpr int cache_kb = 4096;
/// How many prepared statements are kept.
constexpr std::size_t most_statements = 100;

/// Whether the file itself is of no use, instead of the disk being full or somebody holding a lock.
bool is_damaged(sqlite3* database) {
    if (sqlite3_extended_errcode(database) == SQLITE_READONLY_DBMOVED) return true;
    switch (sqlite3_errcode(database) & 0xff) {
        case SQLITE_ERROR:  // No such table: it is of somebody else.
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
        case SQLITE_CONSTRAINT:
        case SQLITE_MISMATCH:
            return true;
        default:
            return false;
    }
}

[[noreturn]] void failed(sqlite3* database, std::string_view what) {
    throw Error(is_damaged(database) ? Errc::decode : Errc::io,
                fmt::format("{} the job index failed: {}", what, sqlite3_errmsg(database)));
}

}  // namespace

Statement::Statement(sqlite3* database, std::string_view sql) : database_(database) {
    if (sqlite3_prepare_v2(database, sql.data(), static_cast<int>(sql.size()), &statement_,
                           nullptr) != SQLITE_OK)
        failed(database, "Asking");
}

Statement::~Statement() {
    sqlite3_finalize(statement_);
}

Statement& Statement::bind(std::int64_t value) {
    sqlite3_bind_int64(statement_, ++bound_, value);
    return *this;
}

Statement& Statement::bind(std::string_view value) {
    sqlite3_bind_text(statement_, ++bound_, value.data(), static_cast<int>(value.size()),
                      SQLITE_TRANSIENT);
    return *this;
}

Statement& Statement::bind_null() {
    sqlite3_bind_null(statement_, ++bound_);
    return *this;
}

Statement& Statement::bind_or_null(std::int64_t value) {
    return value == 0 ? bind_null() : bind(value);
}

bool Statement::step() {
    const int code = sqlite3_step(statement_);
    if (code != SQLITE_ROW && code != SQLITE_DONE) failed(database_, "Using");
    return code == SQLITE_ROW;
}

void Statement::run() {
    while (step()) {
    }
    reset();
}

void Statement::reset() {
    sqlite3_reset(statement_);
    bound_ = 0;
}

std::int64_t Statement::integer(int column) const {
    return sqlite3_column_int64(statement_, column);
}

std::string Statement::text(int column) const {
    const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    if (bytes == nullptr) return {};
    return {bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column))};
}

Database::Database(const std::filesystem::path& file, Mode mode) {
    const int flags =
        mode == Mode::write ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
    try {
        if (sqlite3_open_v2(file.c_str(), &database_, flags | SQLITE_OPEN_NOMUTEX, nullptr) !=
            SQLITE_OK)
            failed(database_, "Opening");
        sqlite3_busy_timeout(database_, 10'000);
        if (mode == Mode::write) {
            execute("PRAGMA journal_mode = WAL");
            execute("PRAGMA synchronous = NORMAL");
        }
        execute(fmt::format("PRAGMA cache_size = -{}", cache_kb).c_str());
    } catch (...) {
        sqlite3_close(std::exchange(database_, nullptr));
        throw;
    }
}

Database::~Database() {
    statements_.clear();
    sqlite3_close(database_);
}

void Database::execute(const char* sql) {
    if (sqlite3_exec(database_, sql, nullptr, nullptr, nullptr) != SQLITE_OK)
        failed(database_, "Writing");
}

void Database::reset() {
    statements_.clear();
    sqlite3_db_config(database_, SQLITE_DBCONFIG_RESET_DATABASE, 1, nullptr);
    const int code = sqlite3_exec(database_, "VACUUM", nullptr, nullptr, nullptr);
    sqlite3_db_config(database_, SQLITE_DBCONFIG_RESET_DATABASE, 0, nullptr);
    if (code != SQLITE_OK) failed(database_, "Emptying");
}

Statement& Database::prepared(const std::string& sql) {
    auto found = statements_.find(sql);
    if (found == statements_.end()) {
        if (statements_.size() >= most_statements) statements_.clear();
        found = statements_.try_emplace(sql, database_, sql).first;
    }
    found->second.reset();
    return found->second;
}

std::unique_ptr<Statement> Database::statement(std::string_view sql) {
    return std::make_unique<Statement>(database_, sql);
}

std::int64_t Database::last_row() const {
    return sqlite3_last_insert_rowid(database_);
}

Snapshot::Snapshot(Database& database) : database_(database) {
    database_.execute("BEGIN");
}

Snapshot::~Snapshot() {
    try {
        database_.execute("COMMIT");
    } catch (const std::exception&) {
        // It has ended with the failure that came before.
    }
}

Transaction::Transaction(Database& database) : database_(database) {
    database_.execute("BEGIN IMMEDIATE");
}

Transaction::~Transaction() {
    if (done_) return;
    try {
        database_.execute("ROLLBACK");
    } catch (const std::exception&) {
        // SQLite has rolled back by itself.
        done_ = true;
    }
}

void Transaction::commit() {
    database_.execute("COMMIT");
    done_ = true;
}

}  // namespace rqxx::index
