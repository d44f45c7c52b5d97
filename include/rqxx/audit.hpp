#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/fwd.hpp>
#include <cstddef>
#include <optional>
#include <rqxx/redis/client.hpp>
#include <rqxx/time.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace rqxx {

/// One thing that somebody did to jobs, queues, limits or schedules.
struct AuditEntry {
    std::string id;       ///< In Redis' stream; given by it.
    Timestamp at;         ///< Redis' clock; given by it.
    std::string by;       ///< Who: an account, an address, or user@host of a command line.
    std::string via;      ///< api (the page included) or cli.
    std::string action;   ///< `job.cancel`, `queue.pause`, …
    std::string target;   ///< Id or name; empty where the action has no single one.
    std::string outcome;  ///< done, accepted, refused, failed.
    std::string details;  ///< What was asked for beside it; cut at 1000 bytes.
};
[[nodiscard]] boost::json::object to_json(const AuditEntry& entry);

struct AuditQuery {
    std::size_t limit = 50;
    std::string cursor;  ///< `next` of the answer before; empty: from the newest on.
    std::string action;  ///< `*` stands for any text; empty: all.
    std::string by;      ///< The same.
};
/// Whether `text` can stand in `AuditQuery::cursor`.
[[nodiscard]] bool is_audit_place(std::string_view text) noexcept;

struct AuditPage {
    std::vector<AuditEntry> entries;  ///< The newest first.
    std::string next;                 ///< Goes on behind these; empty: there are none.
};

/// What was done, by whom: the newest 10 000 or so (`rqxx:audit`).
///
/// An entry is written when the action is over, so that its outcome is known. Where that fails,
/// the action stands, and whoever did it is told so: it is not taken back.
class AuditLog {
public:
    static constexpr std::size_t longest_text = 1000;

    explicit AuditLog(RedisClient& redis) : redis_(&redis) {}
    boost::asio::awaitable<void> write(AuditEntry entry);
    /// One round trip; looks at 1000 entries at most, so a page may be short and not the last.
    boost::asio::awaitable<AuditPage> read(AuditQuery query);
    /// What came behind the entry `id`, the oldest first. @param id  `0-0`: from the first on.
    boost::asio::awaitable<std::vector<AuditEntry>> after(std::string id, std::size_t limit);
    /// Id of the newest entry; `0-0` without any.
    boost::asio::awaitable<std::string> last();

private:
    RedisClient* redis_;
};

}  // namespace rqxx
