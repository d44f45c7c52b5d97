#include "runtime/job_document.hpp"

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <charconv>
#include <rqxx/codec.hpp>
#include <rqxx/json.hpp>

namespace rqxx::runtime {
namespace {

namespace json = boost::json;

/// Which run of the job this is. RQ counts those that the function asked for; ours the others.
std::int64_t attempt_of(const Job& job) {
    std::int64_t retries = std::max<std::int64_t>(job.number_of_retries.value_or(0), 0);
    for (const auto& [name, value] : job.extra) {
        std::int64_t more = 0;
        if (name == "rqxx_retries" &&
            std::from_chars(value.data(), value.data() + value.size(), more).ec == std::errc{})
            retries += std::clamp<std::int64_t>(more, 0, 1'000'000'000);
    }
    return retries + 1;
}

json::value meta_of(const Job& job) {
    if (job.meta.empty()) return json::object{};
    const auto meta = decode(job.meta);
    return meta ? to_json(*meta) : json::object{{"$undecodable", meta.error().describe()}};
}

json::value timeout_of(const Job& job) {
    const auto timeout = job.timeout.value_or(180);
    return timeout > 0 ? json::value(timeout) : json::value(nullptr);
}

}  // namespace

std::string job_document(const Execution& execution) {
    const Job& job = execution.job;
    return json::serialize(
        json::object{{"job_id", to_json(Value(job.id))},
                     {"execution_id", execution.id},
                     {"function", to_json(Value(execution.call.func_name))},
                     {"args", to_json(execution.call.args)},
                     {"kwargs", to_json(execution.call.kwargs)},
                     {"meta", meta_of(job)},
                     {"queue", to_json(Value(job.origin))},
                     {"attempt", attempt_of(job)},
                     {"timeout", timeout_of(job)},
                     {"enqueued_at", job.enqueued_at ? json::value(format_utc(*job.enqueued_at))
                                                     : json::value(nullptr)}});
}

std::string callback_of(const Job& job) {
    for (const auto* name :
         {&job.success_callback_name, &job.failure_callback_name, &job.stopped_callback_name})
        if (!name->empty()) return *name;
    return {};
}

}  // namespace rqxx::runtime
