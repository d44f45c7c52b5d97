#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <rqxx/timeline.hpp>

#include "http/api.hpp"
#include "http/job_json.hpp"

namespace rqxx::http {

namespace asio = boost::asio;
namespace json = boost::json;

void add_timeline_route(Router& router, Monitor& monitor) {
    RouteDoc doc;
    doc.summary = "What happened to a job, oldest first: attempts, retries, and who acted on it";
    doc.tag = "jobs";
    doc.response_schema =
        R"({"type":"object","required":["status","job_id","items"],"properties":{"status":{"type":"string"},"job_id":{"type":"string"},"items":{"type":"array","items":{"type":"object","required":["at","event","worker","execution","by","details"],"properties":{"at":{"type":"string","format":"date-time"},"event":{"type":"string"},"worker":{"type":["string","null"]},"execution":{"type":["string","null"]},"by":{"type":["string","null"]},"details":{"type":["string","null"]}}}}}})";
    doc.problems = {404, 503};
    doc.keeps_to_queues = true;
    router.add(Method::get, "/api/v1/jobs/{job_id}/timeline", doc,
               [&monitor](Request request) -> asio::awaitable<Response> {
                   monitor.require_connection();
                   const std::string& id = request.path_param("job_id");
                   std::optional<JobInfo> info;
                   if (is_valid_job_id(id)) info = co_await monitor.job_info(id);
                   if (!info || !may_see_queue(request, info->job.origin))
                       throw HttpError(404, "Job not found");
                   json::array items;
                   for (const auto& event : timeline_of(*info)) {
                       json::object item = to_json(event);
                       // Text that a job has reported: nobody can look for names in it.
                       if (event.event == "progress" && !redaction_of(request).empty())
                           item["details"] = hidden_text;
                       items.push_back(std::move(item));
                   }
                   co_return json_response(
                       200,
                       json::object{{"status", "ok"}, {"job_id", id}, {"items", std::move(items)}});
               });
}

}  // namespace rqxx::http
