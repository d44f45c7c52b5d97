// Any fields as a job hash and as a result entry: the strict parser, the lenient one, JSON, and
// back.
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cstdlib>
#include <rqxx/monitor.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace rqxx;
    const std::string input(reinterpret_cast<const char*>(data), size);
    // Fields are separated by 0x1e, a name from its value by 0x1f.
    std::vector<std::pair<std::string_view, std::string_view>> fields;
    std::string_view rest = input;
    while (!rest.empty() && fields.size() < 100) {
        const auto end = std::min(rest.find('\x1e'), rest.size());
        const auto field = rest.substr(0, end);
        const auto equals = std::min(field.find('\x1f'), field.size());
        fields.emplace_back(field.substr(0, equals),
                            field.substr(std::min(equals + 1, field.size())));
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    JobInfo info;
    auto [job, problems] = parse_job_leniently("id", fields);
    info.job = job;
    info.problems = problems;
    const auto strict = parse_job("id", fields);
    if (strict.has_value() != problems.empty()) std::abort();
    if (strict) {
        // What was read is what is written.
        const FieldList written = to_fields(*strict);
        const std::vector<std::pair<std::string_view, std::string_view>> views(written.begin(),
                                                                               written.end());
        const auto again = parse_job("id", views);
        if (!again || to_fields(*again) != written) std::abort();
    }
    if (const auto result = parse_result("1795456544977-0", fields)) {
        info.executions.push_back({result->execution_id,
                                   result->worker_name,
                                   result->execution_started_at,
                                   result->execution_ended_at,
                                   std::string(to_string(result->type)),
                                   result->return_value,
                                   result->exc_string,
                                   {},
                                   result->cause,
                                   result->max_rss_kb,
                                   result->cpu_seconds});
    }
    (void)boost::json::serialize(to_json(info));
    return 0;
}
