#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <cmath>
#include <rqxx/job.hpp>
#include <rqxx/json.hpp>

#include "http/api.hpp"
#include "http/job_json.hpp"
#include "http/request_values.hpp"
#include "index/job_index.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using index::JobIndex;

constexpr std::size_t most_values = 20;
constexpr std::size_t longest_value = 200;

constexpr std::array statuses{
    status::created, status::queued,    status::started,  status::finished, status::failed,
    status::stopped, status::scheduled, status::deferred, status::canceled, status::rate_limited};

constexpr std::string_view item_schema =
    R"({"type":"object","required":["id","status","queue","func_name","description","created_at","enqueued_at","started_at","ended_at","duration","queued_for","worker_name","error","error_group","tags"],"properties":{"id":{"type":"string"},"status":{"type":"string"},"queue":{"type":"string"},"func_name":{"type":["string","null"]},"description":{"type":["string","null"]},"created_at":{"type":["string","null"],"format":"date-time"},"enqueued_at":{"type":["string","null"],"format":"date-time"},"started_at":{"type":["string","null"],"format":"date-time"},"ended_at":{"type":["string","null"],"format":"date-time"},"duration":{"type":["number","null"]},"queued_for":{"type":["number","null"]},"worker_name":{"type":["string","null"]},"error":{"type":["string","null"],"description":"last line of the error"},"error_group":{"type":["string","null"]},"tags":{"type":"array","items":{"type":"string"}}}})";

constexpr std::string_view counts_schema =
    R"({"type":"array","items":{"type":"object","required":["name","count"],"properties":{"name":{"type":"string"},"count":{"type":"integer"}}}})";

constexpr std::string_view state_schema =
    R"({"type":"object","required":["complete","jobs","progress","max_age"],"properties":{"complete":{"type":"boolean","description":"false while jobs are still being read for the first time"},"jobs":{"type":["integer","null"],"description":"of all queues; null for who may see some only"},"progress":{"type":"number"},"max_age":{"type":["number","null"],"description":"seconds: how old it may be which jobs are found; null while not complete"}}})";

json::value text_or_null(const std::string& text) {
    return text.empty() ? json::value(nullptr) : json::value(text);
}

json::value time_or_null(const std::optional<Timestamp>& time) {
    return time ? json::value(format_utc(*time)) : json::value(nullptr);
}

json::value moment_or_null(std::int64_t us) {
    return us == 0 ? json::value(nullptr)
                   : json::value(format_utc(Timestamp{std::chrono::microseconds(us)}));
}

double seconds_between(Timestamp from, Timestamp to) {
    return std::max(0.0, Seconds(to - from).count());
}

json::object item(const index::JobLine& job, Timestamp now) {
    const bool running = job.status == status::started;
    json::value duration = nullptr, queued_for = nullptr;
    if (job.started_at && running)
        duration = seconds_between(*job.started_at, now);
    else if (job.started_at && job.ended_at)
        duration = seconds_between(*job.started_at, *job.ended_at);
    if (job.enqueued_at && job.started_at && *job.started_at >= *job.enqueued_at)
        queued_for = seconds_between(*job.enqueued_at, *job.started_at);
    else if (job.enqueued_at && job.status == status::queued)
        queued_for = seconds_between(*job.enqueued_at, now);
    json::array tags;
    for (const auto& tag : job.tags)
        tags.emplace_back(tag);
    return {{"id", job.id},
            {"status", job.status},
            {"queue", job.queue},
            {"func_name", text_or_null(job.function)},
            {"description", text_or_null(job.description)},
            {"created_at", time_or_null(job.created_at)},
            {"enqueued_at", time_or_null(job.enqueued_at)},
            {"started_at", time_or_null(job.started_at)},
            {"ended_at", time_or_null(running ? std::nullopt : job.ended_at)},
            {"duration", std::move(duration)},
            {"queued_for", std::move(queued_for)},
            {"worker_name", text_or_null(job.worker)},
            {"error", text_or_null(job.error)},
            {"error_group", text_or_null(job.group)},
            {"tags", std::move(tags)}};
}

/// The same for who asks: descriptions have arguments as text, tags are meta data.
json::object item_for(const index::JobLine& job, Timestamp now, const Redaction& redaction) {
    json::object shown = item(job, now);
    if (!redaction.empty() && !shown["description"].is_null()) shown["description"] = hidden_text;
    if (is_hidden("tags", redaction)) shown["tags"] = json::array();
    return shown;
}

/// Leaves only queues that who asks may see. False: none of those that were asked for.
bool keep_to_queues(index::JobFilter& filter, const Request& request) {
    if (sees_all_queues(request)) return true;
    if (filter.queues.empty()) {
        filter.queues = request.principal->queues;
        return !filter.queues.empty();
    }
    for (const auto& queue : filter.queues)
        if (queue.find('*') != std::string::npos)
            throw HttpError(422, "queue: must be whole names, since this token is for some queues");
    std::erase_if(filter.queues, [&](const auto& queue) { return !may_see_queue(request, queue); });
    return !filter.queues.empty();
}

/// Parameters by name. What is empty counts as not given. @throws HttpError 422 naming the one that
/// is not known, or too long.
class Parameters {
public:
    Parameters(const Request& request, std::initializer_list<std::string_view> known)
        : request_(request) {
        for (const auto& [name, value] : request.query) {
            if (name.empty() && value.empty()) continue;  // Nothing behind `?`, or between `&&`.
            if (std::ranges::find(known, name) == known.end())
                throw HttpError(422, fmt::format("There is no parameter \"{}\"; known are {}",
                                                 plain(name), fmt::join(known, ", ")));
            if (value.size() > longest_value)
                throw HttpError(422,
                                fmt::format("{} is longer than {} bytes", name, longest_value));
        }
    }

    [[nodiscard]] std::vector<std::string> all(std::string_view name) const {
        std::vector<std::string> values;
        for (const auto& [key, value] : request_.query)
            if (key == name && !value.empty()) values.push_back(value);
        if (values.size() > most_values)
            throw HttpError(422, fmt::format("{} is given more than {} times", name, most_values));
        return values;
    }

    [[nodiscard]] std::string one(std::string_view name) const {
        auto values = all(name);
        if (values.size() > 1)
            throw HttpError(422, fmt::format("{} is given more than once", name));
        return values.empty() ? std::string() : std::move(values[0]);
    }

    [[nodiscard]] std::string word(std::string_view name,
                                   std::initializer_list<std::string_view> known) const {
        std::string value = one(name);
        if (!value.empty() && std::ranges::find(known, value) == known.end())
            throw HttpError(422, fmt::format("{} must be one of {}", name, fmt::join(known, ", ")));
        return value;
    }

    [[nodiscard]] std::optional<std::int64_t> time(std::string_view name) const {
        const std::string value = one(name);
        if (value.empty()) return std::nullopt;
        const auto moment = parse_time(value);
        if (!moment)
            throw HttpError(422, fmt::format("{} must be a time such as 2026-11-23T17:47:37Z: {}",
                                             name, moment.error().message));
        return moment->time_since_epoch().count();
    }

    /// Seconds, as microseconds.
    [[nodiscard]] std::optional<std::int64_t> seconds(std::string_view name) const {
        const std::string value = one(name);
        if (value.empty()) return std::nullopt;
        char* end = nullptr;
        const double number = std::strtod(value.c_str(), &end);
        if (end != value.c_str() + value.size() || !std::isfinite(number) || number < 0 ||
            number > 1e10)
            throw HttpError(422, fmt::format("{} must be a number of seconds", name));
        return static_cast<std::int64_t>(number * 1e6);
    }

private:
    static std::string plain(const std::string& text) {
        std::string shown;
        for (const char c : text.substr(0, 40))
            shown += c >= ' ' && c <= '~' ? c : '?';
        return shown;
    }

    const Request& request_;
};

index::JobFilter job_filter(const Parameters& parameters) {
    index::JobFilter filter;
    filter.statuses = parameters.all("status");
    for (const auto& word : filter.statuses)
        if (std::ranges::find(statuses, word) == statuses.end())
            throw HttpError(422,
                            fmt::format("status must be one of {}", fmt::join(statuses, ", ")));
    filter.queues = parameters.all("queue");
    filter.functions = parameters.all("func");
    filter.workers = parameters.all("worker");
    filter.groups = parameters.all("group");
    filter.tags = parameters.all("tag");
    filter.error = parameters.one("error");
    filter.id_prefix = parameters.one("id");
    if (!filter.id_prefix.empty() && !is_valid_job_id(filter.id_prefix))
        throw HttpError(422, "id must be the beginning of a job id: letters, digits, - and _");
    filter.since = parameters.time("since");
    filter.until = parameters.time("until");
    filter.min_duration = parameters.seconds("min_duration");
    filter.max_duration = parameters.seconds("max_duration");
    filter.newest_first = parameters.word("order", {"newest", "oldest"}) != "oldest";
    return filter;
}

/// The index, or the answer that there is none.
JobIndex& require(JobIndex* index) {
    if (index == nullptr)
        throw HttpError(404, "The job index is switched off here (--no-index)", "index_off");
    return *index;
}

/// Runs `action`; the index' own trouble is for the client to wait for.
template <class T>
asio::awaitable<T> ask(asio::awaitable<T> action) {
    std::optional<Error> failed;
    try {
        co_return co_await std::move(action);
    } catch (const Error& error) {
        if (error.code() != Errc::io) throw;
        failed = error;
    }
    throw HttpError(503, "The job index is not ready yet", "index_not_ready",
                    {{"Retry-After", "1"}});
}

/// All jobs that fit, a line each. Holds one page at a time.
class JobLinesBody : public BodySource {
public:
    JobLinesBody(JobIndex& index, index::JobFilter filter, index::JobLines first,
                 Redaction redaction)
        : index_(index),
          filter_(std::move(filter)),
          page_(std::move(first)),
          redaction_(std::move(redaction)) {}

    asio::awaitable<std::string> next() override {
        while (page_) {
            std::string lines;
            for (const auto& job : page_->jobs) {
                lines += to_text(item_for(job, page_->now, redaction_));
                lines += '\n';
            }
            const auto cursor = page_->next;
            page_.reset();
            if (cursor) page_ = co_await index_.list(filter_, *cursor, JobIndex::most_keys);
            if (!lines.empty()) co_return lines;
        }
        co_return std::string();
    }

private:
    JobIndex& index_;
    index::JobFilter filter_;
    std::optional<index::JobLines> page_;  ///< Read, and not sent yet.
    Redaction redaction_;
};

json::object state_json(const index::IndexState& state, const Request& request) {
    return {{"complete", state.complete},
            {"jobs", sees_all_queues(request) ? json::value(state.jobs) : json::value(nullptr)},
            {"progress", std::round(state.progress * 1000) / 1000},
            {"max_age", state.max_age ? json::value(*state.max_age) : json::value(nullptr)}};
}

asio::awaitable<Response> list_jobs(JobIndex* maybe, RedisClient& redis, Request request) {
    JobIndex& index = require(maybe);
    const Parameters parameters(
        request, {"status", "queue", "func", "worker", "group", "tag", "error", "id", "since",
                  "until", "min_duration", "max_duration", "order", "limit", "cursor", "format"});
    index::JobFilter filter = job_filter(parameters);
    if (!filter.tags.empty() && is_hidden("tags", redaction_of(request)))
        throw HttpError(422, "tag: tags are not shown here");
    const std::string format = parameters.word("format", {"json", "ndjson"});
    const auto limit = static_cast<std::size_t>(request.query_integer("limit", 25, 1, 50));
    const bool lines = format.empty()
                           ? request.header("Accept").value_or("").find("application/x-ndjson") !=
                                 std::string_view::npos
                           : format == "ndjson";
    redis.require_connection();
    if (!keep_to_queues(filter, request)) throw HttpError(404, "Queue not found");
    auto page = co_await ask(
        index.list(filter, parameters.one("cursor"), lines ? JobIndex::most_keys : limit));
    Response response;
    if (lines) {
        response.content_type = "application/x-ndjson";
        response.source = std::make_shared<JobLinesBody>(index, std::move(filter), std::move(page),
                                                         redaction_of(request));
        co_return response;
    }
    const auto state = co_await ask(index.state());
    json::array items;
    for (const auto& job : page.jobs)
        items.push_back(item_for(job, page.now, redaction_of(request)));
    co_return json_response(
        200, json::object{{"items", std::move(items)},
                          {"next", page.next ? json::value(*page.next) : json::value(nullptr)},
                          {"approx_total", page.approx_total},
                          {"total_is_exact", page.total_is_exact},
                          {"index", state_json(state, request)}});
}

json::array counts(const std::vector<index::NameCount>& names, const char* name) {
    json::array list;
    for (const auto& one : names)
        list.push_back(json::object{{name, one.name}, {"count", one.count}});
    return list;
}

json::object failure_json(const index::FailureReport& report) {
    const auto& failure = report.failure;
    json::array samples, hours;
    for (const auto& id : failure.samples)
        samples.emplace_back(id);
    for (const std::int64_t count : failure.hours)
        hours.emplace_back(count);
    return {{"id", failure.group.id},
            {"title", failure.title},
            {"exception", text_or_null(failure.group.exception)},
            {"message", failure.group.message},
            {"frame", text_or_null(failure.group.frame)},
            {"count", failure.count},
            {"first_seen", moment_or_null(failure.first_seen)},
            {"last_seen", moment_or_null(failure.last_seen)},
            {"queues", counts(failure.queues, "name")},
            {"functions", counts(failure.functions, "name")},
            {"sample_job_ids", std::move(samples)},
            {"spark", std::move(hours)},
            {"state", report.triage.state},
            {"decided_by", text_or_null(report.triage.by)},
            {"decided_at", time_or_null(report.triage.at)}};
}

asio::awaitable<Response> list_failures(JobIndex* maybe, RedisClient& redis, Request request) {
    JobIndex& index = require(maybe);
    const Parameters parameters(request, {"state", "queue", "func", "sort", "limit", "cursor"});
    index::FailureFilter filter;
    filter.queue = parameters.one("queue");
    filter.function = parameters.one("func");
    filter.within = visible_queues(request);
    filter.by_count = parameters.word("sort", {"last_seen", "count"}) == "count";
    const std::string state = parameters.word("state", {"open", "muted", "resolved"});
    const auto limit = static_cast<std::size_t>(request.query_integer("limit", 25, 1, 50));
    redis.require_connection();
    const auto page =
        co_await ask(index.failures(std::move(filter), state, parameters.one("cursor"), limit));
    const auto kept = co_await ask(index.state());
    json::array items;
    for (const auto& report : page.failures)
        items.push_back(failure_json(report));
    co_return json_response(
        200, json::object{{"items", std::move(items)},
                          {"next", page.next ? json::value(*page.next) : json::value(nullptr)},
                          {"index", state_json(kept, request)}});
}

asio::awaitable<json::object> failure_answer(JobIndex& index, std::string id,
                                             std::vector<std::string> within = {}) {
    const auto report = co_await ask(index.failure(std::move(id), std::move(within)));
    if (!report) throw HttpError(404, "Failure group not found");
    json::object failure = failure_json(*report);
    failure["traceback"] = text_or_null(report->traceback);
    failure["workers"] = counts(report->failure.workers, "name");
    co_return json::object{{"status", "ok"}, {"failure", std::move(failure)}};
}

asio::awaitable<Response> decide(JobIndex* maybe, RedisClient& redis, Request request,
                                 std::string state) {
    JobIndex& index = require(maybe);
    std::ignore = body_members(request, {});
    redis.require_connection();
    const std::string id = request.path_param("group_id");
    co_await failure_answer(index, id);  // Nothing is noted of a group that is not there.
    co_await index.decide(id, std::move(state), actor_of(request));
    co_return json_response(200, co_await failure_answer(index, id));
}

asio::awaitable<Response> suggest(JobIndex* maybe, Request request) {
    JobIndex& index = require(maybe);
    const Parameters parameters(request, {"field", "prefix"});
    const std::string field =
        parameters.word("field", {"func", "queue", "worker", "tag", "status", "group"});
    if (field.empty())
        throw HttpError(422, "field must be one of func, queue, worker, tag, status, group");
    const std::string prefix = parameters.one("prefix");
    if (field == "tag" && is_hidden("tags", redaction_of(request)))
        co_return json_response(200, json::object{{"values", json::array()}});
    std::vector<index::NameCount> names;
    if (field == "group") {
        names = co_await ask(index.suggest_groups(prefix));
    } else {
        const auto kind = field == "func"     ? index::NameKind::function
                          : field == "queue"  ? index::NameKind::queue
                          : field == "worker" ? index::NameKind::worker
                          : field == "tag"    ? index::NameKind::tag
                                              : index::NameKind::status;
        names = co_await ask(index.suggest(kind, prefix));
    }
    co_return json_response(200, json::object{{"values", counts(names, "value")}});
}

RouteDoc::Param parameter(std::string name, std::string description) {
    RouteDoc::Param param;
    param.name = std::move(name);
    param.description = std::move(description);
    return param;
}

RouteDoc::Param limit_parameter() {
    RouteDoc::Param param = parameter("limit", "how many at most");
    param.type = "integer";
    param.minimum = 1;
    param.maximum = 50;
    param.fallback = 25;
    return param;
}

RouteDoc failure_doc(std::string summary) {
    RouteDoc doc;
    doc.summary = std::move(summary);
    doc.tag = "failures";
    doc.problems = {404, 422, 503};
    doc.response_schema =
        R"({"type":"object","required":["status","failure"],"properties":{"status":{"type":"string"},"failure":{"type":"object","description":"as in the list, with `traceback` of one job and `workers`"}}})";
    return doc;
}

}  // namespace

index::JobFilter index_filter(const JobSearch& search) {
    index::JobFilter filter;
    const auto one = [](const std::string& text) {
        return text.empty() ? std::vector<std::string>() : std::vector<std::string>{text};
    };
    const auto micros = [](const std::optional<Timestamp>& time) {
        return time ? std::optional(time->time_since_epoch().count()) : std::nullopt;
    };
    const auto length = [](std::optional<double> seconds) {
        return seconds ? std::optional(static_cast<std::int64_t>(*seconds * 1e6)) : std::nullopt;
    };
    filter.statuses = one(search.status);
    filter.queues = search.queue.empty() ? search.within : one(search.queue);
    filter.functions = one(search.func);
    filter.workers = one(search.worker);
    filter.groups = one(search.group);
    filter.tags = one(search.tag);
    filter.error = search.error;
    filter.id_prefix = search.id;
    filter.since = micros(search.since);
    filter.until = micros(search.until);
    filter.min_duration = length(search.min_duration);
    filter.max_duration = length(search.max_duration);
    return filter;
}

void add_index_routes(Router& router, index::JobIndex* index, RedisClient& redis) {
    const auto add = [&](Method method, std::string pattern, RouteDoc doc, Handler handler) {
        doc.hidden = index == nullptr;  // The page and others look there for what there is.
        router.add(method, std::move(pattern), std::move(doc), std::move(handler));
    };
    RouteDoc jobs;
    jobs.summary = "Jobs that fit a filter, page by page; 404 where the index is switched off";
    jobs.tag = "jobs";
    jobs.problems = {404, 422, 503};
    jobs.keeps_to_queues = true;
    jobs.params = {
        parameter("status", "may be repeated: one of them"),
        parameter("queue", "may be repeated; `*` stands for any text"),
        parameter("func", "name of the function; may be repeated; `*` stands for any text"),
        parameter("worker", "who ran it last; may be repeated"),
        parameter("group", "group of failures; may be repeated"),
        parameter("tag", "of the job's meta, a list `tags`; may be repeated"),
        parameter("error", "part of the error's last line, in any case"),
        parameter("id", "beginning of the id"),
        parameter("since", "created at or after, RFC 3339 or seconds since 1970"),
        parameter("until", "created before"),
        parameter("min_duration", "seconds that it ran at least"),
        parameter("max_duration", "seconds that it ran at most"),
        parameter("order", "newest (unless given) or oldest: by creation"),
        limit_parameter(),
        parameter("cursor", "`next` of the page before"),
        parameter("format", "json or ndjson; else the header Accept decides")};
    jobs.response_schema = fmt::format(
        R"({{"type":"object","description":"with Accept: application/x-ndjson all jobs that fit, one a line. A page may be short, even empty, before the last","required":["items","next","approx_total","total_is_exact","index"],"properties":{{"items":{{"type":"array","items":{0}}},"next":{{"type":["string","null"]}},"approx_total":{{"type":"integer"}},"total_is_exact":{{"type":"boolean"}},"index":{1}}}}})",
        item_schema, state_schema);
    add(Method::get, "/api/v1/jobs", std::move(jobs),
        [index, &redis](Request request) -> asio::awaitable<Response> {
            return list_jobs(index, redis, std::move(request));
        });

    RouteDoc failures;
    failures.summary = "Failed jobs grouped by their cause; 404 where the index is switched off";
    failures.tag = "failures";
    failures.problems = {404, 422, 503};
    failures.keeps_to_queues = true;
    failures.params = {parameter("state", "open, muted or resolved; all unless given"),
                       parameter("queue", "only groups with jobs of it; `*` stands for any text"),
                       parameter("func", "only groups with jobs of it; `*` stands for any text"),
                       parameter("sort", "last_seen (unless given) or count"),
                       limit_parameter(),
                       parameter("cursor", "`next` of the page before")};
    failures.response_schema = fmt::format(
        R"({{"type":"object","required":["items","next","index"],"properties":{{"items":{{"type":"array","items":{{"type":"object","required":["id","title","exception","message","frame","count","first_seen","last_seen","queues","functions","sample_job_ids","spark","state"],"properties":{{"id":{{"type":"string"}},"title":{{"type":"string"}},"exception":{{"type":["string","null"]}},"message":{{"type":"string"}},"frame":{{"type":["string","null"]}},"count":{{"type":"integer","description":"failed jobs that are kept"}},"first_seen":{{"type":["string","null"],"format":"date-time"}},"last_seen":{{"type":["string","null"],"format":"date-time"}},"queues":{0},"functions":{0},"sample_job_ids":{{"type":"array","items":{{"type":"string"}}}},"spark":{{"type":"array","items":{{"type":"integer"}},"description":"failed in each of the last 24 hours, the oldest first"}},"state":{{"enum":["open","muted","resolved"]}}}}}}}},"next":{{"type":["string","null"]}},"index":{1}}}}})",
        counts_schema, state_schema);
    add(Method::get, "/api/v1/failures", std::move(failures),
        [index, &redis](Request request) -> asio::awaitable<Response> {
            return list_failures(index, redis, std::move(request));
        });
    RouteDoc failure = failure_doc("One group of failures");
    failure.keeps_to_queues = true;
    add(Method::get, "/api/v1/failures/{group_id}", std::move(failure),
        [index, &redis](Request request) -> asio::awaitable<Response> {
            JobIndex& there = require(index);
            redis.require_connection();
            co_return json_response(200,
                                    co_await failure_answer(there, request.path_param("group_id"),
                                                            visible_queues(request)));
        });
    const std::pair<const char*, std::pair<const char*, const char*>> decisions[] = {
        {"mute", {"muted", "Want to hear no more of a group of failures"}},
        {"resolve", {"resolved", "Take a group of failures for mended, until it fails again"}},
        {"reopen", {"open", "Take back what was decided about a group of failures"}}};
    for (const auto& [verb, what] : decisions) {
        RouteDoc doc = failure_doc(what.second);
        doc.action = fmt::format("failure.{}", verb);
        add(Method::post, fmt::format("/api/v1/failures/{{group_id}}/{}", verb), std::move(doc),
            [index, &redis, state = what.first](Request request) -> asio::awaitable<Response> {
                return decide(index, redis, std::move(request), state);
            });
    }

    RouteDoc values;
    values.summary = "Values of a filter that jobs have, the most frequent first";
    values.tag = "jobs";
    values.problems = {404, 422, 503};
    values.params = {parameter("field", "func, queue, worker, tag, status or group"),
                     parameter("prefix", "their beginning")};
    values.params[0].required = true;
    values.response_schema =
        R"({"type":"object","required":["values"],"properties":{"values":{"type":"array","items":{"type":"object","required":["value","count"],"properties":{"value":{"type":"string"},"count":{"type":"integer"}}}}}})";
    add(Method::get, "/api/v1/suggest", std::move(values),
        [index](Request request) -> asio::awaitable<Response> {
            return suggest(index, std::move(request));
        });
}

}  // namespace rqxx::http
