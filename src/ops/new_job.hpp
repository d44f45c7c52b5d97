#pragma once

#include <rqxx/queue.hpp>
#include <string>
#include <string_view>

/// Jobs as every producer of rqxx makes them.
namespace rqxx::ops {

/// @throws Error `Errc::usage` that names the option.
[[noreturn]] void refuse(std::string_view option, std::string_view why);
/// @throws Error `Errc::usage` for a name with a comma or a control character, or without any.
void check_queue_name(std::string_view name, std::string_view option = "queue");
/// @throws Error `Errc::usage` for an option out of range.
void check(const EnqueueOptions& options);
/// A job about to be queued. `now` is the producer's clock, as in RQ.
/// @throws Error `Errc::usage` for a call without a function.
[[nodiscard]] Job make_job(const Call& call, const EnqueueOptions& options,
                           const std::string& queue, Serializer serializer, Timestamp now);

/// Tells of a job that was enqueued, or took another's place.
void log_enqueued(Logger& log, const Enqueued& enqueued, std::string_view session,
                  std::string_view queue, std::chrono::seconds timeout);

}  // namespace rqxx::ops
