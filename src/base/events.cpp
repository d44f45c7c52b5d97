#include <fmt/format.h>

#include <rqxx/events.hpp>

namespace rqxx {

void log_job_enqueued(Logger& log, std::string_view id, std::string_view session_id,
                      std::string_view queue, std::chrono::seconds timeout) {
    if (session_id.empty())
        log.info("Job enqueued", "id", id, "queue", queue, "timeout", timeout.count());
    else
        log.info("Job enqueued", "id", id, "session_id", session_id, "queue", queue, "timeout",
                 timeout.count());
}

void log_job_started(Logger& log, std::string_view id, Seconds queued_for) {
    log.info("Job started", "id", id, "queued_for", queued_for);
}

void log_job_finished(Logger& log, std::string_view id, Seconds duration) {
    log.info("Job finished", "id", id, "duration", duration);
}

void log_job_failed(Logger& log, std::string_view id, std::string_view error) {
    log.error("Job failed", "id", id, "error", error);
}

void log_job_retry(Logger& log, std::string_view id, std::int64_t attempt, std::int64_t of,
                   std::chrono::seconds next_in, std::string_view error) {
    log.warning("Job retry", "id", id, "attempt", fmt::format("{}/{}", attempt, of), "next_in",
                Seconds(next_in), "error", error);
}

}  // namespace rqxx
