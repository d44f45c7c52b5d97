#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <set>

#include "http/api.hpp"
#include "http/job_json.hpp"
#include "http/monitor_answers.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

constexpr std::int64_t max_hours = 8760;

constexpr std::string_view job_schema =
    R"({"type":"object","required":["id","status","queue"],"properties":{"id":{"type":"string"},"status":{"type":"string"},"queue":{"type":"string"},"func_name":{"type":["string","null"]},"description":{"type":["string","null"]},"args":{},"kwargs":{},"created_at":{"type":["string","null"],"format":"date-time"},"enqueued_at":{"type":["string","null"],"format":"date-time"},"started_at":{"type":["string","null"],"format":"date-time"},"ended_at":{"type":["string","null"],"format":"date-time"},"duration":{"type":["number","null"]},"queued_for":{"type":["number","null"]},"result":{},"exc_info":{"type":["string","null"]},"timeout":{"type":["integer","null"]},"retry":{"type":["integer","null"]},"result_ttl":{"type":["integer","null"]},"failure_ttl":{"type":["integer","null"]},"worker_name":{"type":["string","null"]},"meta":{},"depends_on":{"type":"array","items":{"type":"string"}},"executions":{"type":"array","items":{"type":"object"}},"webhooks":{"type":"array","items":{"type":"object"}}}})";

std::string answer_schema(std::string_view member, std::string_view schema) {
    return fmt::format(
        R"({{"type":"object","required":["status","{0}"],"properties":{{"status":{{"type":"string"}},"{0}":{1}}}}})",
        member, schema);
}

RouteDoc::Param integer_param(std::string name, std::string description, std::int64_t fallback,
                              std::int64_t min, std::int64_t max) {
    RouteDoc::Param param;
    param.name = std::move(name);
    param.type = "integer";
    param.description = std::move(description);
    param.fallback = fallback;
    param.minimum = min;
    param.maximum = max;
    return param;
}

RouteDoc::Param text_param(std::string name, std::string description) {
    RouteDoc::Param param;
    param.name = std::move(name);
    param.description = std::move(description);
    return param;
}

std::string optional_text(const Request& request, std::string_view name) {
    return std::string(request.query_value(name).value_or(""));
}

std::string status_filter(const Request& request) {
    std::string word = optional_text(request, "status");
    static constexpr std::array known{status::created,     status::queued,   status::started,
                                      status::finished,    status::failed,   status::stopped,
                                      status::scheduled,   status::deferred, status::canceled,
                                      status::rate_limited};
    if (!word.empty() && std::find(known.begin(), known.end(), word) == known.end())
        throw HttpError(422, fmt::format("status must be one of {}", fmt::join(known, ", ")));
    return word;
}

constexpr std::string_view output_schema =
    R"({"type":"object","required":["status","job_id","job_status","execution","executions","entries","next_after","ended"],"properties":{"status":{"type":"string"},"job_id":{"type":"string"},"job_status":{"type":"string"},"execution":{"type":["string","null"],"description":"whose output this is"},"executions":{"type":"array","items":{"type":"string"},"description":"those with output, newest first"},"entries":{"type":"array","items":{"type":"object","required":["id","at","stream"],"properties":{"id":{"type":"string"},"at":{"type":"string","format":"date-time"},"stream":{"enum":["stdout","stderr","cut"]},"text":{"type":"string"},"missing_bytes":{"type":"integer","description":"of `cut`: so many are not kept"}}}},"next_after":{"type":"string"},"ended":{"type":"boolean","description":"nothing comes behind these entries"}}})";

constexpr std::string_view why_schema =
    R"({"type":"object","required":["status","why"],"properties":{"status":{"type":"string"},"why":{"type":"object","required":["id","status","queue","reasons","estimated_start","at"],"properties":{"id":{"type":"string"},"status":{"type":"string"},"queue":{"type":"string"},"reasons":{"type":"array","items":{"type":"object","required":["code","text","data"],"properties":{"code":{"type":"string"},"text":{"type":"string"},"data":{"type":"object"}}}},"estimated_start":{"type":["string","null"],"format":"date-time"},"at":{"type":"string","format":"date-time"}}}}})";

constexpr std::string_view graph_schema =
    R"({"type":"object","required":["status","graph"],"properties":{"status":{"const":"ok"},"graph":{"type":"object","required":["nodes","edges","complete"],"properties":{"nodes":{"type":"array","description":"the job itself first","items":{"type":"object","required":["id","status","queue","description","missing"],"properties":{"id":{"type":"string"},"missing":{"type":"boolean"}}}},"edges":{"type":"array","items":{"type":"object","required":["from","to"],"properties":{"from":{"type":"string","description":"goes first"},"to":{"type":"string"}}}},"complete":{"type":"boolean","description":"false: there are more"}}}}})";

/// @throws HttpError 404 for none, and for one that who asks may not see.
asio::awaitable<JobInfo> find_job(Monitor& monitor, const Request& request) {
    const std::string& id = request.path_param("job_id");
    std::optional<JobInfo> info;
    if (is_valid_job_id(id)) info = co_await monitor.job_info(id);
    if (!info || !may_see_queue(request, info->job.origin)) throw HttpError(404, "Job not found");
    co_return std::move(*info);
}

/// The same for who needs nothing of it.
asio::awaitable<void> check_job(Monitor& monitor, const Request& request) {
    if (!sees_all_queues(request)) co_await find_job(monitor, request);
}

/// The newest jobs of the queues that who asks may see: of those that match, the first 32 by name.
asio::awaitable<std::vector<JobInfo>> recent_of_queues(Monitor& monitor, const Request& request,
                                                       std::size_t limit, std::string status) {
    constexpr std::size_t most_queues = 32;
    std::vector<JobInfo> jobs;
    std::size_t looked_at = 0;
    for (const auto& queue : co_await monitor.all_queue_stats()) {
        if (!may_see_queue(request, queue.queue_name)) continue;
        if (++looked_at > most_queues) break;
        auto some = co_await monitor.recent_jobs(limit, queue.queue_name, status);
        std::ranges::move(some, std::back_inserter(jobs));
    }
    std::ranges::stable_sort(jobs, std::ranges::greater(),
                             [](const JobInfo& info) { return info.job.created_at; });
    if (jobs.size() > limit) jobs.resize(limit);
    co_return jobs;
}

/// Without jobs of queues that who asks may not see, and without what is hidden from them.
void keep_to_queues(DependencyGraph& graph, const Request& request) {
    // It has the arguments as text.
    if (!redaction_of(request).empty())
        for (auto& node : graph.nodes)
            node.description = hidden_text;
    if (sees_all_queues(request)) return;
    std::set<std::string, std::less<>> hidden;
    for (const auto& node : graph.nodes)
        if (!may_see_queue(request, node.queue)) hidden.insert(node.job_id);
    std::erase_if(graph.nodes, [&](const auto& node) { return hidden.contains(node.job_id); });
    std::erase_if(graph.edges, [&](const auto& edge) {
        return hidden.contains(edge.first) || hidden.contains(edge.second);
    });
}

asio::awaitable<json::object> job_output(Monitor& monitor, Request request) {
    co_await check_job(monitor, request);
    const std::string& id = request.path_param("job_id");
    OutputQuery query;
    query.execution = optional_text(request, "execution");
    query.after = optional_text(request, "after");
    query.max_bytes = static_cast<std::size_t>(
        request.query_integer("limit", static_cast<std::int64_t>(query.max_bytes), 1,
                              static_cast<std::int64_t>(OutputQuery::most_bytes)));
    if (!is_output_place(query.after))
        throw HttpError(422, "after must be the next_after of an earlier answer");
    std::optional<JobOutput> output;
    if (is_valid_job_id(id)) output = co_await monitor.job_output(id, query);
    if (!output) throw HttpError(404, "Job not found");
    if (output->found == JobOutput::Found::several)
        throw HttpError(422, "execution: several executions of the job begin like this");
    if (output->found == JobOutput::Found::no_such_execution)
        throw HttpError(404, "Execution not found");
    json::object answer{{"status", "ok"}};
    for (auto& [name, value] : to_json(std::move(*output)))
        answer[name] = std::move(value);
    if (redaction_of(request).all)
        for (auto& entry : answer.at("entries").as_array())
            if (auto* text = entry.as_object().if_contains("text")) *text = hidden_text;
    co_return answer;
}

}  // namespace

asio::awaitable<json::object> stats_answer(Monitor& monitor, const Request& request,
                                           std::string wanted) {
    const auto all = co_await monitor.all_queue_stats();
    QueueStats totals{.queue_name = "total"};
    QueueStats shown{.queue_name = wanted};
    json::array queues;
    for (const auto& queue : all) {
        if (!may_see_queue(request, queue.queue_name)) continue;
        totals += queue;
        if (queue.queue_name == wanted) shown = queue;
        queues.push_back(to_json_with_rules(queue));
    }
    json::array limits;
    // Their jobs may be of any queue.
    if (sees_all_queues(request))
        for (const auto& limit : co_await monitor.rate_limits())
            limits.push_back(to_json(limit));
    redact_rate_limits(limits, redaction_of(request));
    json::object sum = to_json(totals);
    sum.erase("queue_name");
    co_return json::object{{"status", "ok"},
                           {"stats", to_json(shown)},
                           {"queues", std::move(queues)},
                           {"totals", std::move(sum)},
                           {"rate_limits", std::move(limits)}};
}

asio::awaitable<json::object> recent_answer(Monitor& monitor, const Request& request,
                                            std::size_t limit, std::string queue,
                                            std::string status) {
    std::vector<JobInfo> infos;
    if (queue.empty() && !sees_all_queues(request))
        infos = co_await recent_of_queues(monitor, request, limit, std::move(status));
    else if (queue.empty() || may_see_queue(request, queue))
        infos = co_await monitor.recent_jobs(limit, std::move(queue), std::move(status));
    json::array jobs;
    for (const auto& info : infos)
        jobs.push_back(job_json(info, redaction_of(request)));
    const std::size_t count = jobs.size();
    co_return json::object{{"status", "ok"}, {"jobs", std::move(jobs)}, {"count", count}};
}

asio::awaitable<json::object> workers_answer(Monitor& monitor, const Request& request) {
    json::array list;
    for (auto& worker : co_await monitor.workers()) {
        // Which of its jobs are of which of its queues is not known here.
        if (std::erase_if(worker.queues, [&](const std::string& queue) {
                return !may_see_queue(request, queue);
            }) > 0) {
            if (worker.queues.empty()) continue;
            worker.jobs.clear();
            worker.current_job.clear();
        }
        if (worker.queues.empty() && !sees_all_queues(request)) continue;
        list.push_back(to_json(worker));
    }
    const std::size_t count = list.size();
    co_return json::object{{"status", "ok"}, {"workers", std::move(list)}, {"count", count}};
}

void add_monitor_routes(Router& router, Monitor& monitor) {
    const auto add_get = [&](std::string pattern, RouteDoc doc, Handler handler) {
        doc.problems.push_back(503);
        doc.keeps_to_queues = !doc.tag.starts_with("performance");
        router.add(
            Method::get, std::move(pattern), std::move(doc),
            [&monitor, handler = std::move(handler)](Request request) -> asio::awaitable<Response> {
                monitor.require_connection();
                co_return co_await handler(std::move(request));
            });
    };
    RouteDoc stats;
    stats.summary = "How many jobs are where, per queue and in all";
    stats.tag = "monitor";
    stats.params = {text_param("queue", "the queue shown in `stats`; `default` unless given")};
    stats.response_schema = R"({"type":"object","required":["status","stats","queues","totals"]})";
    add_get("/api/rq/stats", stats, [&monitor](Request request) -> asio::awaitable<Response> {
        std::string wanted = optional_text(request, "queue");
        co_return json_response(
            200, co_await stats_answer(monitor, request,
                                       wanted.empty() ? "default" : std::move(wanted)));
    });

    RouteDoc recent;
    recent.summary = "The newest jobs";
    recent.tag = "monitor";
    recent.params = {integer_param("limit", "how many", 10, 1, 100),
                     text_param("queue", "only of this queue"),
                     text_param("status", "only in this status")};
    recent.response_schema =
        answer_schema("jobs", fmt::format(R"({{"type":"array","items":{}}})", job_schema));
    recent.problems = {422};
    add_get(
        "/api/rq/jobs/recent", recent, [&monitor](Request request) -> asio::awaitable<Response> {
            const auto limit = request.query_integer("limit", 10, 1, 100);
            co_return json_response(
                200,
                co_await recent_answer(monitor, request, static_cast<std::size_t>(limit),
                                       optional_text(request, "queue"), status_filter(request)));
        });

    RouteDoc one;
    one.summary = "One job";
    one.tag = "monitor";
    one.response_schema = answer_schema("job", job_schema);
    one.problems = {404};
    const Handler show_job = [&monitor](Request request) -> asio::awaitable<Response> {
        const auto info = co_await find_job(monitor, request);
        co_return json_response(
            200, json::object{{"status", "ok"}, {"job", job_json(info, redaction_of(request))}});
    };
    add_get("/api/rq/jobs/{job_id}", one, show_job);
    add_get("/api/v1/jobs/{job_id}", one, show_job);

    RouteDoc output;
    output.summary = "What a job writes to stdout and stderr, piece by piece";
    output.tag = "monitor";
    output.params = {
        text_param("execution", "id of an execution or its beginning; the newest unless given"),
        text_param("after", "`next_after` of the answer before; all unless given"),
        integer_param("limit", "bytes of text; one entry always fits",
                      static_cast<std::int64_t>(OutputQuery{}.max_bytes), 1,
                      static_cast<std::int64_t>(OutputQuery::most_bytes))};
    output.response_schema = output_schema;
    output.problems = {404, 422};
    add_get("/api/v1/jobs/{job_id}/output", output,
            [&monitor](Request request) -> asio::awaitable<Response> {
                co_return json_response(200, co_await job_output(monitor, std::move(request)));
            });

    RouteDoc why;
    why.summary = "Why a job does not run just now, the most telling reason first";
    why.tag = "monitor";
    why.response_schema = why_schema;
    why.problems = {404};
    add_get(
        "/api/v1/jobs/{job_id}/why", why, [&monitor](Request request) -> asio::awaitable<Response> {
            co_await check_job(monitor, request);
            const std::string& id = request.path_param("job_id");
            std::optional<WaitReport> report;
            if (is_valid_job_id(id)) report = co_await monitor.why(id);
            if (!report) throw HttpError(404, "Job not found");
            json::object why = to_json(*report);
            // Keys of limits are arguments.
            if (redaction_of(request).all)
                for (auto& reason : why.at("reasons").as_array()) {
                    reason.at("text") = reason.at("code").as_string();
                    reason.at("data").emplace_object();
                }
            co_return json_response(200, json::object{{"status", "ok"}, {"why", std::move(why)}});
        });

    RouteDoc graph;
    graph.summary = "The jobs that a job depends on, those that wait for it, and so on";
    graph.tag = "monitor";
    graph.response_schema = graph_schema;
    graph.problems = {404};
    add_get("/api/v1/jobs/{job_id}/dependencies", graph,
            [&monitor](Request request) -> asio::awaitable<Response> {
                const std::string& id = request.path_param("job_id");
                std::optional<DependencyGraph> found;
                if (is_valid_job_id(id)) found = co_await monitor.dependencies(id);
                if (!found || !may_see_queue(request, found->nodes.front().queue))
                    throw HttpError(404, "Job not found");
                keep_to_queues(*found, request);
                co_return json_response(200,
                                        json::object{{"status", "ok"}, {"graph", to_json(*found)}});
            });

    RouteDoc poll;
    poll.summary = "Status and result of one job, for clients that poll";
    poll.tag = "monitor";
    poll.response_schema = answer_schema("result", "{}");
    poll.problems = {404};
    add_get("/api/jobs/{job_id}", poll, [&monitor](Request request) -> asio::awaitable<Response> {
        const auto info = co_await find_job(monitor, request);
        const json::object job = job_json(info, redaction_of(request));
        json::object answer{{"status", job.at("status")}, {"result", job.at("result")}};
        if (info.job.status == status::failed || info.job.status == status::stopped)
            answer["error"] = job.at("exc_info");
        co_return json_response(200, answer);
    });

    RouteDoc performance;
    performance.summary = "Figures of the jobs that ended in the last hours";
    performance.tag = "performance";
    performance.params = {integer_param("hours", "how many hours back", 24, 1, max_hours)};
    performance.response_schema = answer_schema("metrics", R"({"type":"object"})");
    performance.problems = {422};
    add_get("/api/rq/performance", performance,
            [&monitor](Request request) -> asio::awaitable<Response> {
                const auto figures =
                    co_await monitor.performance(request.query_integer("hours", 24, 1, max_hours));
                co_return json_response(
                    200, json::object{{"status", "ok"}, {"metrics", to_json(figures, utc_now())}});
            });

    RouteDoc trends;
    trends.summary = "The same figures for a row of periods, newest first";
    trends.tag = "performance";
    trends.params = {integer_param("periods", "how many periods", 6, 1, 100),
                     integer_param("hours_per_period", "length of each", 4, 1, max_hours)};
    trends.response_schema = answer_schema("trends", R"({"type":"object"})");
    trends.problems = {422};
    add_get("/api/rq/performance/trends", trends,
            [&monitor](Request request) -> asio::awaitable<Response> {
                const auto periods = request.query_integer("periods", 6, 1, 100);
                const auto hours = request.query_integer("hours_per_period", 4, 1, max_hours);
                std::vector<std::int64_t> lengths(static_cast<std::size_t>(periods), hours);
                const auto figures = co_await monitor.performance_periods(std::move(lengths));
                co_return json_response(
                    200, json::object{{"status", "ok"}, {"trends", trends_json(figures)}});
            });

    RouteDoc compare;
    compare.summary = "The last hours against the hours right before them";
    compare.tag = "performance";
    compare.params = {
        integer_param("current_hours", "length of the current period", 1, 1, max_hours),
        integer_param("previous_hours", "length of the one before", 1, 1, max_hours)};
    compare.response_schema = answer_schema("comparison", R"({"type":"object"})");
    compare.problems = {422};
    add_get("/api/rq/performance/compare", compare,
            [&monitor](Request request) -> asio::awaitable<Response> {
                std::vector<std::int64_t> lengths{
                    request.query_integer("current_hours", 1, 1, max_hours),
                    request.query_integer("previous_hours", 1, 1, max_hours)};
                const auto figures = co_await monitor.performance_periods(std::move(lengths));
                co_return json_response(
                    200, json::object{
                             {"status", "ok"},
                             {"comparison", comparison_json(figures[0], figures[1], utc_now())}});
            });

    RouteDoc workers;
    workers.summary = "The workers registered, stock ones included";
    workers.tag = "monitor";
    workers.response_schema =
        answer_schema("workers", R"({"type":"array","items":{"type":"object"}})");
    add_get("/api/rq/workers", workers, [&monitor](Request request) -> asio::awaitable<Response> {
        co_return json_response(200, co_await workers_answer(monitor, request));
    });
}

}  // namespace rqxx::http
