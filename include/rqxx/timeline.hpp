#pragma once

#include <boost/json/fwd.hpp>
#include <optional>
#include <rqxx/monitor.hpp>
#include <string>
#include <vector>

namespace rqxx {

/// Something that happened to a job.
struct TimelineEvent {
    Timestamp at;
    /// created, scheduled, deferred, enqueued, started, progress, retried, recovered, returned,
    /// postponed, stop_requested, canceled, requeued, run_now, or how an execution ended: finished,
    /// failed, stopped.
    std::string event;
    std::string worker, execution, by, details;  ///< Empty: unknown, or none.
};
[[nodiscard]] boost::json::object to_json(const TimelineEvent& event);

/// What happened to a job, oldest first: from its hash, executions and results, and what RQ keeps
/// nothing of (attempts that were retried, actions of people) from the field `rqxx_timeline`, which
/// scripts write; see lua/includes/timeline.lua. Lines that cannot be read are left out, and
/// the newest 50 in the last MiB count; texts in them are cut.
[[nodiscard]] std::vector<TimelineEvent> timeline_of(const JobInfo& info);

}  // namespace rqxx
