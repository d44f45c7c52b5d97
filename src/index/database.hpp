#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>

struct sqlite3;
struct sqlite3_stmt;

namespace rqxx::index {

/// A prepared statement with its parameters, read row by row.
class Statement {
public:
    Statement(sqlite3* database, std::string_view sql);
    ~Statement();
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;

    /// Binds the next parameter.
    Statement& bind(std::int64_t value);
    Statement& bind(std::string_view value);
    Statement& bind_null();
    /// `value`, or NULL for 0.
    Statement& bind_or_null(std::int64_t value);
    /// Whether there is a(nother) row. @throws Error as a Database.
    bool step();
    /// Runs it to its end, and makes it ready for the next use.
    void run();
    void reset();
    [[nodiscard]] std::int64_t integer(int column) const;
    [[nodiscard]] std::string text(int column) const;

private:
    sqlite3* database_;
    sqlite3_stmt* statement_ = nullptr;
    int bound_ = 0;
};

/// One connection to a SQLite database. Used by one thread at a time.
class Database {
public:
    enum class Mode { write, read };
    /// @throws Error `Errc::io`; `Errc::decode` where the file is damaged, or of somebody else.
    Database(const std::filesystem::path& file, Mode mode);
    ~Database();
    Database(const Database&) = delete;
    Database& operator=(const Database&) = delete;

    void execute(const char* sql);
    /// Forgets all that is in it. The file stays: connections that read it go on.
    void reset();
    /// A statement that is kept for the next time, ready for its parameters.
    Statement& prepared(const std::string& sql);
    /// One that several may have open at once.
    [[nodiscard]] std::unique_ptr<Statement> statement(std::string_view sql);
    [[nodiscard]] std::int64_t last_row() const;

private:
    sqlite3* database_ = nullptr;
    std::map<std::string, Statement, std::less<>> statements_;
};

/// What is read meanwhile is of one moment.
class Snapshot {
public:
    explicit Snapshot(Database& database);
    ~Snapshot();
    Snapshot(const Snapshot&) = delete;
    Snapshot& operator=(const Snapshot&) = delete;

private:
    Database& database_;
};

/// Rolled back unless committed.
class Transaction {
public:
    explicit Transaction(Database& database);
    ~Transaction();
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    void commit();

private:
    Database& database_;
    bool done_ = false;
};

}  // namespace rqxx::index
