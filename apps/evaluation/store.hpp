#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "evaluation/remark.hpp"

struct sqlite3;

namespace evaluation {

struct StoredComment : Remark {
    std::int64_t id = 0;
    std::string created_at;
};

struct Session {
    std::string id;
    std::string candidate_id;
    std::string mr_package;
    std::string created_at;
    std::int64_t comment_count = 0;
    std::optional<double> score;  ///< Of the last report.
    std::optional<std::string> grade;
};

/// Sessions, comments and reports in an SQLite file.
///
/// Thread safety: any thread; calls block on the file and on each other.
/// Errors: any call may throw rqxx::Error `Errc::io` with SQLite's message.
class Store {
public:
    /// The file is opened by the first call that needs it: a worker without evaluations goes
    /// without.
    explicit Store(std::filesystem::path file);
    ~Store();
    Store(const Store&) = delete;
    Store& operator=(const Store&) = delete;

    /// Opens or creates it with its directory, and brings the schema up to date.
    /// @throws rqxx::Error `Errc::io` when the file was written by a newer version.
    void open();

    std::string add_session(const std::string& candidate_id, const std::string& mr_package);
    [[nodiscard]] std::optional<Session> session(const std::string& id);
    /// Newest first.
    [[nodiscard]] std::vector<Session> sessions(std::int64_t limit);
    [[nodiscard]] std::int64_t session_count();

    /// All or none; their ids. The session must exist.
    std::vector<std::int64_t> add_comments(const std::string& session_id,
                                           const std::vector<Remark>& comments);
    [[nodiscard]] std::vector<StoredComment> comments(const std::string& session_id);

    void add_report(const std::string& session_id, double score, const std::string& grade,
                    const std::string& report);
    /// The last one, as JSON text.
    [[nodiscard]] std::optional<std::string> report(const std::string& session_id);

private:
    class Statement;
    class Transaction;
    /// Locked, and open.
    [[nodiscard]] std::unique_lock<std::mutex> use();
    void execute(const std::string& sql);
    void migrate();

    std::filesystem::path file_;
    std::mutex mutex_;
    sqlite3* database_ = nullptr;
};

}  // namespace evaluation
