#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <rqxx/codec.hpp>
#include <rqxx/time.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace rqxx {

/// Fields of a Redis hash, in the order in which they are to be written.
using FieldList = std::vector<std::pair<std::string, std::string>>;

/// RQ's status words. Kept as text in `Job::status`, because newer producers add words.
namespace status {
inline constexpr std::string_view created = "created";
inline constexpr std::string_view queued = "queued";
inline constexpr std::string_view started = "started";
inline constexpr std::string_view finished = "finished";
inline constexpr std::string_view failed = "failed";
inline constexpr std::string_view stopped = "stopped";
inline constexpr std::string_view scheduled = "scheduled";
inline constexpr std::string_view deferred = "deferred";
inline constexpr std::string_view canceled = "canceled";
inline constexpr std::string_view rate_limited = "rate_limited";
}  // namespace status

/// A job's hash `rq:job:<id>` with each known field typed.
///
/// Unknown fields are in `extra` and come back from `to_fields`. Durations in seconds use RQ's
/// conventions: `timeout` -1 is unlimited, `result_ttl`/`failure_ttl` -1 is for ever, 0 keeps none.
/// Source: rq/job.py Job.to_dict, Job.restore (RQ 2.10).
struct Job {
    std::string id;
    std::string data;  ///< As stored: see `decode_call`.
    std::string status = "created";
    std::string origin;  ///< The queue's name.
    std::string description;
    std::optional<Timestamp> created_at, enqueued_at, started_at, ended_at, last_heartbeat;
    std::string worker_name;
    std::optional<std::int64_t> timeout, result_ttl, failure_ttl, ttl;
    std::optional<std::int64_t> retries_left, number_of_retries, repeats_left;
    std::vector<std::int64_t> retry_intervals, repeat_intervals;
    std::optional<bool> enqueue_at_front, enqueue_at_front_on_retry, allow_dependency_failures;
    std::vector<std::string> dependency_ids;
    std::string success_callback_name, failure_callback_name, stopped_callback_name;
    std::optional<std::int64_t> success_callback_timeout, failure_callback_timeout,
        stopped_callback_timeout;
    std::string group_id;
    /// Of RQ 3.0: at most so many jobs with this key are queued or running. See `RateLimit`.
    std::string rate_limit_key;
    std::optional<std::int64_t> rate_limit_concurrency;
    std::string meta;      ///< Serializer bytes; empty for none.
    std::string webhooks;  ///< JSON text; empty for none.
    FieldList extra;       ///< Fields this version does not know, untouched.
};

/// `[A-Za-z0-9_-]+`, at most 512 bytes. Source: rq/job.py Job.set_id.
[[nodiscard]] bool is_valid_job_id(std::string_view id) noexcept;

/// Reads a job hash as HGETALL gives it. A malformed field is an error that names the field.
/// A hash without `data` is an error with field `data`.
[[nodiscard]] Parsed<Job> parse_job(
    std::string_view id,
    std::span<const std::pair<std::string_view, std::string_view>> fields) noexcept;

/// Like `parse_job`, but keeps going: a malformed field is left empty and reported in `problems`.
/// For monitors, which show what can be shown.
struct LenientJob {
    Job job;
    std::vector<ParseError> problems;
};
[[nodiscard]] LenientJob parse_job_leniently(
    std::string_view id,
    std::span<const std::pair<std::string_view, std::string_view>> fields) noexcept;

/// All fields that RQ's producer would write: those it always writes (maybe empty) and the optional
/// ones that carry a value, then `extra`.
[[nodiscard]] FieldList to_fields(const Job& job);
/// The same without a copy of each name. The names live as long as `job`.
[[nodiscard]] std::vector<std::pair<std::string_view, std::string>> field_values(const Job& job);

/// One entry of the stream `rq:results:<job id>`. Source: rq/results.py (RQ 2.10).
struct Result {
    enum class Type {
        successful = 1,
        failed = 2,
        stopped = 3,
        retried = 4,
        max_retries_exceeded = 5
    };
    std::string id;  ///< Stream entry id; its milliseconds are `created_at`.
    Type type = Type::successful;
    std::string worker_name;
    std::string execution_id;
    std::optional<Timestamp> created_at, execution_started_at, execution_ended_at;
    std::string return_value;  ///< Serializer bytes (base64 removed); empty for None.
    std::string exc_string;    ///< Traceback text (base64 and zlib removed).
    std::string cause;         ///< As rqxx tells: "time limit (hard)", "signal 11 (SIGSEGV)", …
    std::optional<std::int64_t> max_rss_kb;  ///< Peak of its process.
    std::optional<double> cpu_seconds;
};
[[nodiscard]] std::string_view to_string(Result::Type type) noexcept;

[[nodiscard]] Parsed<Result> parse_result(
    std::string_view entry_id,
    std::span<const std::pair<std::string_view, std::string_view>> fields) noexcept;

/// `return_value` as RQ stores it in a result entry: base64 of the serialized value; empty for
/// None. A value that the serializer cannot carry is stored as RQ does: "Unserializable return
/// value".
[[nodiscard]] std::string encode_return_value(const Value& value, Serializer serializer);
/// The result entry of a function that asked for a retry: a pickled `rq.job.Retry`, in base64.
/// With JSON, which cannot carry it, RQ's "Unserializable return value".
[[nodiscard]] std::string encode_retry(std::int64_t max, const std::vector<std::int64_t>& intervals,
                                       bool enqueue_at_front, Serializer serializer);
/// `exc_string` as RQ stores it: base64 of zlib of the text.
[[nodiscard]] std::string encode_exc_string(std::string_view traceback);

/// UUID4 text with dashes: RQ's default job id.
[[nodiscard]] std::string new_job_id();
/// 32 hex digits of a UUID version 7. RQ's own are version 4, so the digit at index 12 ('7' here)
/// tells whose execution a record belongs to.
[[nodiscard]] std::string new_execution_id();

}  // namespace rqxx
