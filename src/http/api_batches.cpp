#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <rqxx/batch.hpp>
#include <rqxx/error.hpp>
#include <rqxx/json.hpp>

#include "base/run_blocking.hpp"
#include "http/api.hpp"
#include "runtime/batch_upload.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

constexpr std::uint64_t max_upload = std::uint64_t{1} << 30;
constexpr int max_uploads = 4;  ///< At the same time; each has a file.

constexpr std::string_view progress_schema =
    R"({"type":"object","required":["id","state","total","done","pending","finished","failed","stopped","canceled","deleted"],"properties":{"id":{"type":"string"},"state":{"enum":["open","abandoned","running","complete"]},"successful":{"type":"boolean"},"total":{"type":"integer"},"done":{"type":"integer"},"pending":{"type":"integer"},"finished":{"type":"integer"},"failed":{"type":"integer"},"stopped":{"type":"integer"},"canceled":{"type":"integer"},"deleted":{"type":"integer"},"parent":{"type":["string","null"]},"children":{"type":"object"},"created_at":{"type":["string","null"],"format":"date-time"},"sealed_at":{"type":["string","null"],"format":"date-time"},"completed_at":{"type":["string","null"],"format":"date-time"},"first_failure_at":{"type":["string","null"],"format":"date-time"},"jobs_per_second":{"type":"number"},"eta":{"type":["number","null"],"description":"seconds"},"in_progress":{"enum":["cancel","retry",null]},"on_complete":{"type":["string","null"]},"on_success":{"type":["string","null"]},"on_first_failure":{"type":["string","null"]}}})";

constexpr std::string_view line_schema =
    R"({"type":"string","description":"one JSON object per line: func, args, kwargs, queue, priority, timeout, result_ttl, failure_ttl, ttl, retry, retry_intervals, retry_at_front, repeat, repeat_intervals, description, meta, at_front, job_id, depends_on, allow_failure, on_success, on_failure, on_stopped, webhooks, at, in"})";

RouteDoc describe(std::string summary, int good_status, std::vector<int> problems) {
    RouteDoc doc;
    doc.summary = std::move(summary);
    doc.tag = "batches";
    doc.good_status = good_status;
    doc.problems = std::move(problems);
    doc.problems.push_back(503);
    return doc;
}

RouteDoc::Param param(std::string name, std::string description, std::string type = "string") {
    RouteDoc::Param result;
    result.name = std::move(name);
    result.type = std::move(type);
    result.description = std::move(description);
    return result;
}

std::string answer_schema() {
    return fmt::format(
        R"({{"type":"object","required":["status","batch"],"properties":{{"status":{{"type":"string"}},"batch":{}}}}})",
        progress_schema);
}

Batch named(RedisClient& redis, const Request& request) {
    const std::string& id = request.path_param("batch_id");
    if (!is_valid_job_id(id) || id.size() > 200) throw HttpError(404, "Batch not found");
    return Batch(redis, id);
}

asio::awaitable<Response> progress_answer(Batch batch, int status = 200,
                                          json::object more = json::object()) {
    const auto progress = co_await batch.progress();
    if (!progress) throw HttpError(404, "Batch not found");
    json::object answer{{"status", "ok"}, {"batch", to_json(*progress)}};
    for (auto& [name, value] : more)
        answer[name] = std::move(value);
    co_return json_response(status, answer);
}

bool flag(const Request& request, std::string_view name) {
    const auto value = request.query_value(name);
    if (!value || *value == "0" || *value == "false") return false;
    if (*value == "1" || *value == "true" || value->empty()) return true;
    throw HttpError(422, fmt::format("{} must be true or false", name));
}

std::chrono::seconds duration(const Request& request, std::string_view name,
                              std::chrono::seconds fallback) {
    const auto text = request.query_value(name);
    if (!text) return fallback;
    const auto value = parse_duration(*text);
    if (!value) throw HttpError(422, fmt::format("{}: {}", name, value.error().message));
    return *value;
}

std::string text(const Request& request, std::string_view name) {
    return std::string(request.query_value(name).value_or(""));
}

runtime::UploadOptions upload_options(const Request& request, const std::filesystem::path& folder) {
    static constexpr std::array known{
        "name",       "queue",       "partial",    "parent",           "ttl",
        "serializer", "on_complete", "on_success", "on_first_failure", "follow_queue"};
    for (const auto& [name, value] : request.query)
        if (std::ranges::find(known, name) == known.end())
            throw HttpError(422, fmt::format("there is no parameter \"{}\"; known are {}",
                                             name.substr(0, 40), fmt::join(known, ", ")));
    runtime::UploadOptions options;
    options.name = text(request, "name");
    if (request.query_value("queue")) options.queue = text(request, "queue");
    options.partial = flag(request, "partial");
    options.parent = text(request, "parent");
    options.ttl = duration(request, "ttl", options.ttl);
    options.on_complete = text(request, "on_complete");
    options.on_success = text(request, "on_success");
    options.on_first_failure = text(request, "on_first_failure");
    options.follow_queue = text(request, "follow_queue");
    if (const auto name = request.query_value("serializer")) {
        const auto serializer = parse_serializer(*name);
        if (!serializer)
            throw HttpError(422, fmt::format("serializer: {}", serializer.error().message));
        options.serializer = *serializer;
    }
    options.folder = folder;
    return options;
}

json::array bad_lines(const runtime::JobLines& lines) {
    json::array list;
    for (const auto& [number, why] : lines.first_bad())
        list.push_back({{"line", number}, {"detail", to_json(Value(why))}});
    return list;
}

Response refusal(const Request& request, const runtime::JobLines& lines) {
    const auto& first = lines.first_bad().front();
    Response response =
        problem_response(request, 422,
                         fmt::format("{} bad {}; nothing was enqueued. Line {}: {}", lines.bad(),
                                     lines.bad() == 1 ? "line" : "lines", first.number, first.why),
                         "bad_lines");
    json::object problem = json::parse(response.body).as_object();
    problem["bad_lines"] = lines.bad();
    problem["errors"] = bad_lines(lines);
    response.body = to_text(problem);
    return response;
}

/// The routes' handlers, and what they share.
class Batches {
public:
    Batches(RedisClient& redis, std::filesystem::path folder, std::vector<std::string> functions,
            Logger& log)
        : redis_(redis), folder_(std::move(folder)), functions_(std::move(functions)), log_(log) {}
    ~Batches() { blocking_.join(); }

    asio::awaitable<Response> create(Request request) {
        redis_.require_connection();
        if (uploads_ >= max_uploads)
            throw HttpError(503, "Other batches are being uploaded", "busy",
                            {{"Retry-After", "1"}});
        const Slot slot(uploads_);
        auto options = upload_options(request, folder_);
        options.functions = functions_;
        runtime::BatchUpload upload(std::move(options));
        co_await upload.check(redis_);
        runtime::JobLines& lines = upload.lines();
        for (;;) {
            const std::string piece = co_await request.stream->read();
            if (piece.empty()) break;
            co_await run_blocking(blocking_, [&] { lines.feed(piece); });
        }
        co_await run_blocking(blocking_, [&] { lines.finish(); });
        if (!lines.acceptable()) co_return refusal(request, lines);
        const Batch batch = co_await upload.enqueue(redis_, blocking_);
        log_.info("Batch enqueued", "id", batch.id(), "jobs", upload.added());
        Response response =
            co_await progress_answer(batch, 201,
                                     json::object{{"batch_id", batch.id()},
                                                  {"jobs", upload.added()},
                                                  {"duplicates", upload.duplicates()},
                                                  {"bad_lines", lines.bad()},
                                                  {"errors", bad_lines(lines)}});
        response.headers = {{"Location", fmt::format("/api/v1/batches/{}", batch.id())}};
        co_return response;
    }

    asio::awaitable<Response> list(Request request) {
        redis_.require_connection();
        const auto limit = request.query_integer("limit", 50, 1, 500);
        const auto offset = request.query_integer("offset", 0, 0, 1'000'000'000);
        const auto batches = co_await list_batches(redis_, static_cast<std::size_t>(limit),
                                                   static_cast<std::size_t>(offset));
        json::array items;
        for (const auto& batch : batches)
            items.push_back(to_json(batch));
        const std::size_t count = items.size();
        co_return json_response(
            200, json::object{{"status", "ok"}, {"batches", std::move(items)}, {"count", count}});
    }

    asio::awaitable<Response> show(Request request) {
        redis_.require_connection();
        co_return co_await progress_answer(named(redis_, request));
    }

    asio::awaitable<Response> cancel(Request request) {
        redis_.require_connection();
        Batch batch = named(redis_, request);
        const auto result = co_await batch.cancel();
        if (result.complete) throw HttpError(409, "The batch is complete", "complete");
        co_return co_await progress_answer(batch, 200, json::object{{"canceled", result.done}});
    }

    asio::awaitable<Response> retry_failed(Request request) {
        redis_.require_connection();
        Batch batch = named(redis_, request);
        const auto result = co_await batch.retry_failed();
        co_return co_await progress_answer(batch, 200, json::object{{"requeued", result.done}});
    }

private:
    struct Slot {
        explicit Slot(int& count_) : count(count_) { ++count; }
        ~Slot() { --count; }
        Slot(const Slot&) = delete;
        Slot& operator=(const Slot&) = delete;
        int& count;
    };

    RedisClient& redis_;
    std::filesystem::path folder_;
    std::vector<std::string> functions_;  ///< That may be enqueued; empty: all.
    Logger& log_;
    int uploads_ = 0;
    asio::thread_pool blocking_{1};
};

}  // namespace

void add_batch_routes(Router& router, RedisClient& redis, std::filesystem::path folder,
                      EnqueueRights rights, Logger& log) {
    const auto batches =
        std::make_shared<Batches>(redis, std::move(folder), std::move(rights.functions), log);
    const auto handler = [&](asio::awaitable<Response> (Batches::*method)(Request)) -> Handler {
        return
            [batches, method](Request request) { return ((*batches).*method)(std::move(request)); };
    };

    RouteDoc create =
        describe("Enqueue jobs as a batch, one JSON object per line; all of them or none", 201,
                 {400, 408, 413, 422});
    create.params = {
        param("name", "id of the batch; a new UUID unless given"),
        param("queue", "of lines that name none; `default` unless given"),
        param("partial", "take the good lines where some are bad", "boolean"),
        param("parent", "batch that is not complete before this one is"),
        param("ttl", "how long it is known after it is complete; `7d` unless given"),
        param("serializer", "pickle or json"),
        param("on_complete", "function that is enqueued with the batch's id when all have ended"),
        param("on_success", "the same when all have finished"),
        param("on_first_failure", "the same when the first has failed"),
        param("follow_queue", "queue of these functions; that of the jobs unless given")};
    create.request_type = "application/x-ndjson";
    create.request_schema = line_schema;
    create.response_schema = fmt::format(
        R"({{"type":"object","required":["batch_id","jobs","batch"],"properties":{{"batch_id":{{"type":"string"}},"jobs":{{"type":"integer"}},"duplicates":{{"type":"integer"}},"bad_lines":{{"type":"integer"}},"errors":{{"type":"array","items":{{"type":"object"}}}},"batch":{}}}}})",
        progress_schema);
    if (rights.any)
        router.add_streaming(Method::post, "/api/v1/batches", max_upload, create,
                             handler(&Batches::create));

    RouteDoc list = describe("The newest batches", 200, {422});
    RouteDoc::Param limit = param("limit", "how many", "integer");
    limit.minimum = 1;
    limit.maximum = 500;
    limit.fallback = 50;
    RouteDoc::Param offset = param("offset", "how many to pass over", "integer");
    offset.minimum = 0;
    offset.fallback = 0;
    list.params = {limit, offset};
    router.add(Method::get, "/api/v1/batches", list, handler(&Batches::list));

    RouteDoc show = describe("How a batch stands", 200, {404});
    show.response_schema = answer_schema();
    router.add(Method::get, "/api/v1/batches/{batch_id}", show, handler(&Batches::show));
    router.add(Method::get, "/api/rq/batches/{batch_id}", show, handler(&Batches::show));

    RouteDoc cancel = describe("Cancel what has not ended", 200, {404, 409});
    cancel.response_schema = answer_schema();
    cancel.action = "batch.cancel";
    router.add(Method::post, "/api/v1/batches/{batch_id}/cancel", cancel,
               handler(&Batches::cancel));
    RouteDoc retry = describe("Put failed and stopped jobs back on their queues", 200, {404, 422});
    retry.response_schema = answer_schema();
    retry.action = "batch.retry-failed";
    router.add(Method::post, "/api/v1/batches/{batch_id}/retry-failed", retry,
               handler(&Batches::retry_failed));
}

}  // namespace rqxx::http
