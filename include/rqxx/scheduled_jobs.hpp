#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/fwd.hpp>
#include <optional>
#include <rqxx/redis/client.hpp>
#include <rqxx/time.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace rqxx {

/// A job that was enqueued for later.
struct ScheduledJob {
    std::string job_id;
    std::optional<Timestamp> at;
    std::string queue, func_name, description;  ///< Empty: unknown.
};
[[nodiscard]] boost::json::object to_json(const ScheduledJob& job);

struct ScheduledQuery {
    std::string queue;   ///< Empty: every queue.
    std::string cursor;  ///< `next` of the page before; empty: from the first on.
    std::size_t limit = 50;
};
/// Whether `text` can stand in `ScheduledQuery::cursor`.
[[nodiscard]] bool is_scheduled_place(std::string_view text) noexcept;

struct ScheduledPage {
    std::vector<ScheduledJob> jobs;  ///< By time, then by id.
    std::string next;                ///< Goes on behind these; empty: there are none.
};
/// Pages stay in step while jobs come and go: each goes on behind the last job of the one before.
/// Three round trips.
[[nodiscard]] boost::asio::awaitable<ScheduledPage> scheduled_jobs(RedisClient& redis,
                                                                   ScheduledQuery query);

}  // namespace rqxx
