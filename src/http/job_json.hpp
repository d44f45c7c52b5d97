#pragma once

#include <boost/json/object.hpp>
#include <rqxx/http/router.hpp>
#include <rqxx/monitor.hpp>
#include <string_view>

/// The one place where jobs become answers: what is to be hidden does not come out of here.
namespace rqxx::http {

inline constexpr std::string_view hidden_text = "[redacted]";

/// Whether what stands under this name is hidden.
[[nodiscard]] bool is_hidden(std::string_view name, const Redaction& redaction);
/// `to_json` of the job, with what is to be hidden as "[redacted]". Tracebacks stay.
[[nodiscard]] boost::json::object job_json(const JobInfo& info, const Redaction& redaction);
/// RQ's keys of rate limits, in the list that `stats` has: they are made of arguments.
void redact_rate_limits(boost::json::array& limits, const Redaction& redaction);
/// The same of the object that `to_json` makes of a job, or of part of it.
void redact_job(boost::json::object& job, const Redaction& redaction);
/// Hides the members of these names, at any depth; whether there was one.
bool redact_members(boost::json::value& tree, const Redaction& redaction);

}  // namespace rqxx::http
