#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <optional>
#include <rqxx/time.hpp>
#include <rqxx/value.hpp>
#include <string>
#include <vector>

namespace rqxx {

/// One thing that keeps a job from running, or that says where it stands.
struct WaitReason {
    std::string code;  ///< As docs/why.md lists them: `queue_paused`, `limited`, `position`, …
    std::string text;  ///< One sentence, without the job's id.
    Value data;        ///< A dict; its fields depend on `code`.
};

/// Why a job does not run just now.
struct WaitReport {
    std::string job_id;
    std::string status;  ///< As stored; `unreadable` where the job's key is no hash.
    std::string queue;
    std::vector<WaitReason> reasons;  ///< The most telling first; never empty.
    /// About, from how fast the queue's jobs ended lately. Nothing where that is not known, or
    /// where something other than jobs before it holds the job up.
    std::optional<Timestamp> estimated_start;
    Timestamp now;  ///< Redis' clock.
};

/// What the HTTP API and `rqxx job why --json` say.
[[nodiscard]] boost::json::object to_json(const WaitReport& report);

}  // namespace rqxx
