// Any bytes as an HTTP request, through gate and router: an answer with a status, never an
// exception.
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json/object.hpp>
#include <cstdlib>
#include <http/gate.hpp>

namespace {

using namespace rqxx;
using namespace rqxx::http;

Router& routes() {
    static Router router;
    static const bool filled = [] {
        const auto handler = [](Request request) -> boost::asio::awaitable<Response> {
            if (request.method == Method::post) (void)request.json();
            const auto limit = request.query_integer("limit", 10, 1, 100);
            co_return json_response(200, boost::json::object{{"limit", limit}});
        };
        router.add(Method::get, "/api/rq/stats", {}, handler);
        router.add(Method::get, "/api/rq/jobs/recent", {}, handler);
        router.add(Method::get, "/api/rq/jobs/{job_id}", {}, handler);
        router.add(Method::post, "/api/sessions/{id}/comments", {}, handler);
        return true;
    }();
    (void)filled;
    return router;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    ServerOptions options;
    options.max_body_bytes = 4096;
    options.max_header_bytes = 4096;
    const ParsedRequest parsed =
        parse_request(std::string_view(reinterpret_cast<const char*>(data), size), options);
    if (!parsed.request) return 0;
    (void)Gate(options).check(*parsed.request);
    boost::asio::io_context context(1);
    int status = 0;
    boost::asio::co_spawn(context, routes().dispatch(*parsed.request),
                          [&](std::exception_ptr error, Response response) {
                              if (error) std::abort();
                              status = response.status;
                          });
    context.run();
    if (status < 200 || status > 599) std::abort();
    return 0;
}
