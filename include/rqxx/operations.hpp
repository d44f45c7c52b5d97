#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/fwd.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <rqxx/actions.hpp>
#include <rqxx/log.hpp>
#include <rqxx/redis/client.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace rqxx {

/// What may be done to many jobs.
enum class BulkAction { cancel, requeue, remove, stop };
/// `cancel`, `requeue`, `delete`, `stop`.
[[nodiscard]] std::string_view to_string(BulkAction action) noexcept;
[[nodiscard]] Parsed<BulkAction> parse_bulk_action(std::string_view text) noexcept;

/// Which jobs, by more than their queue and status.
struct JobSearch {
    std::string queue;   ///< `*` stands for any text; empty: every queue.
    std::string status;  ///< Empty: any.
    std::string func;    ///< `*` stands for any text; empty: any.
    std::string error;   ///< Part of the last line of the error, in any case; empty: any.
    std::string group;   ///< Id of a group of failures; empty: any.
    std::string worker;
    std::string tag;
    std::string id;                                    ///< Beginning of their ids; empty: any.
    std::optional<Timestamp> since, until;             ///< Created at or after, before.
    std::optional<double> min_duration, max_duration;  ///< Seconds that they ran.
    /// Jobs of other queues are left alone, whatever else is asked for: what whoever asks may see.
    /// `*` stands for any text; empty: all. No part of what is asked for, see `to_json`.
    std::vector<std::string> within;
    /// All in the place of `status` of the queue with just this name, whatever their own status:
    /// with the failed ones those that were stopped.
    bool whole_place = false;

    /// Whether whole queue, status as of `JobFilter`, function and error are all that is asked for,
    /// and the status is given: what RQ's own lists and registries answer.
    [[nodiscard]] bool by_place() const noexcept;
};
/// As the API takes it, without what is empty.
[[nodiscard]] boost::json::object to_json(const JobSearch& search);

/// Finds jobs by an index: ids of the next page behind `cursor`, which it moves on; empty at the
/// end. A page costs little and may have no ids, though there are more behind it. Jobs found once
/// need not be found again when an action has moved them.
using IdSource = std::function<boost::asio::awaitable<std::vector<std::string>>(
    const JobSearch& search, std::string& cursor)>;

/// What is to be done to which jobs.
struct BulkOrder {
    BulkAction action = BulkAction::cancel;
    JobSearch search;
    Dependents dependents = Dependents::leave;  ///< Of cancel and remove.
    bool at_front = false;                      ///< Of requeue.
    std::uint64_t most = 0;                     ///< At most so many; 0: all.
    std::string by;                             ///< Who asks for it.
};

/// An action on many jobs, under way or ended within the last day.
struct Operation {
    std::string id, action;
    std::string state;   ///< running, done, canceled, failed, interrupted.
    std::string search;  ///< JSON text of what was asked for.
    std::string by, canceled_by, error;
    std::vector<std::string> within;  ///< As of the search.
    ActionProgress progress;
    std::optional<Timestamp> started_at, ended_at;
};
[[nodiscard]] boost::json::object to_json(const Operation& operation);

/// Does one thing to one page of ids, but for those of jobs outside `order.search.within`.
[[nodiscard]] JobActions::Action bulk_action(JobActions& actions, const BulkOrder& order,
                                             bool dry_run);

/// What an order would find.
struct BulkPreview {
    std::uint64_t matched = 0, looked_at = 0;
    bool exact = true;  ///< False: only a part of the jobs was looked at.
    std::vector<std::string> sample;
};

/// Actions on many jobs that go on after whoever asked for them has been answered.
///
/// They are written down in Redis (`rqxx:operations`), where every server sees them for a day. The
/// server that took one carries it out; when it dies, the operation is shown as interrupted and
/// nothing is half done, as each job changes in one step. Asking again does what is left.
/// Lifetime: everything given by reference outlives it; `join` before it goes.
class Operations {
public:
    static constexpr std::size_t most_at_once = 4;
    static constexpr std::uint64_t most_looked_at = 10'000;  ///< By a preview.
    static constexpr std::size_t most_pages = 200;           ///< Of an index, by a preview.

    Operations(RedisClient& redis, Logger& log, IdSource source = {});
    ~Operations();

    /// Whether jobs can be found like this here. @throws Error `Errc::usage` naming the field.
    void check(const JobSearch& search) const;
    /// Reads only.
    boost::asio::awaitable<BulkPreview> preview(BulkOrder order);
    /// Begins, and returns the id; nothing while `most_at_once` others run.
    boost::asio::awaitable<std::optional<std::string>> start(BulkOrder order);
    boost::asio::awaitable<std::optional<Operation>> find(std::string id);
    /// The newest first. Two round trips.
    boost::asio::awaitable<std::vector<Operation>> list(std::size_t limit);
    /// The state it was in; nothing where there is none. Stops a running one, whose jobs that have
    /// not been reached stay as they are.
    boost::asio::awaitable<std::optional<std::string>> cancel(std::string id, std::string by);

    /// Running ones end as interrupted, with the page of jobs that they are at.
    void request_stop();
    boost::asio::awaitable<void> join();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace rqxx
