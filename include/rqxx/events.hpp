#pragma once

#include <chrono>
#include <cstdint>
#include <rqxx/log.hpp>
#include <string_view>

namespace rqxx {

/// The event log: one line per event of a job, in a fixed wording that scripts rely on.
/// Each is logged by the process in which the event happens.

/// `INFO: Job enqueued: id=abc123, session_id=42, queue=default, timeout=300`
void log_job_enqueued(Logger& log, std::string_view id, std::string_view session_id,
                      std::string_view queue, std::chrono::seconds timeout);
/// `INFO: Job started: id=abc123, queued_for=0.5s`
void log_job_started(Logger& log, std::string_view id, Seconds queued_for);
/// `INFO: Job finished: id=abc123, duration=12.34s`
void log_job_finished(Logger& log, std::string_view id, Seconds duration);
/// `ERROR: Job failed: id=abc123, error=...`
void log_job_failed(Logger& log, std::string_view id, std::string_view error);
/// `WARNING: Job retry: id=abc123, attempt=1/2, next_in=0s, error=...`
void log_job_retry(Logger& log, std::string_view id, std::int64_t attempt, std::int64_t of,
                   std::chrono::seconds next_in, std::string_view error);

}  // namespace rqxx
