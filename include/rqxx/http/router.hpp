#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/fwd.hpp>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <rqxx/log.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace rqxx::http {

enum class Method { get, head, post, put, patch, delete_, options, other };
[[nodiscard]] std::string_view to_string(Method method) noexcept;

using Headers = std::vector<std::pair<std::string, std::string>>;

/// The body of a request that is read piece by piece.
class BodyReader {
public:
    virtual ~BodyReader() = default;
    /// Some more of it; empty at its end. @throws HttpError where it ends too early, stalls or is
    /// too large.
    virtual boost::asio::awaitable<std::string> read() = 0;
};

/// What somebody may do. Each includes those before it.
enum class Scope {
    none,     ///< Nothing that needs to be asked for: health, the page, logging in.
    read,     ///< See queues, jobs and workers.
    operate,  ///< Enqueue jobs, change what happens to them and to queues.
    admin,    ///< Manage the tokens of others as well.
};
[[nodiscard]] std::string_view to_string(Scope scope) noexcept;
[[nodiscard]] std::optional<Scope> parse_scope(std::string_view word) noexcept;

/// What of jobs' data is not shown.
struct Redaction {
    bool all = false;  ///< No arguments, results, meta data, descriptions, output.
    /// Names of members, anywhere in arguments, results and meta data, whose values are hidden. `*`
    /// stands for any text; case does not matter.
    std::vector<std::string> names;

    [[nodiscard]] bool empty() const noexcept { return !all && names.empty(); }
};

/// Who asks.
struct Principal {
    std::string name = "local";
    Scope scope = Scope::admin;
    std::vector<std::string> queues{"*"};  ///< `*` stands for any text.
    Redaction redaction;
    std::string auth = "none";  ///< How it is known: none (nobody is asked), token or session.

    [[nodiscard]] bool may_see_queue(std::string_view queue) const noexcept;
    [[nodiscard]] bool sees_all_queues() const noexcept;
};

/// A parsed request. Everything in it is the client's word.
struct Request {
    Method method = Method::get;
    std::string target;  ///< As sent: path and query.
    std::string path;    ///< Percent-decoded, without the query.
    std::vector<std::pair<std::string, std::string>> query;  ///< Decoded, in order.
    Headers headers;
    std::vector<std::pair<std::string, std::string>> path_params;  ///< Decoded `{name}` segments.
    std::string body;
    std::shared_ptr<BodyReader> stream;  ///< Of a route that streams, instead of `body`.
    std::string request_id;              ///< Echoed as X-Request-Id.
    std::string remote;                  ///< Client's address.
    bool secure = false;                 ///< It came by TLS, to us or to a proxy that we trust.
    /// Who asks; set before a handler that needs more than `Scope::none`. Null stands for anybody
    /// where nobody is asked: see `may_see_queue`, `redaction_of`.
    std::shared_ptr<const Principal> principal;

    /// First query parameter of that name.
    [[nodiscard]] std::optional<std::string_view> query_value(std::string_view name) const noexcept;
    /// A query parameter that must be an integer in [min, max]. @throws HttpError 422 naming it.
    [[nodiscard]] std::int64_t query_integer(std::string_view name, std::int64_t fallback,
                                             std::int64_t min, std::int64_t max) const;
    [[nodiscard]] const std::string& path_param(std::string_view name) const;
    /// Case-insensitive.
    [[nodiscard]] std::optional<std::string_view> header(std::string_view name) const noexcept;
    [[nodiscard]] std::size_t header_count(std::string_view name) const noexcept;
    /// Whether a browser sent it for a page of another origin, as far as it says: pages that are
    /// sandboxed or local files (`Origin: null`) included.
    [[nodiscard]] bool from_another_site() const noexcept;
    /// The body as JSON, whatever its Content-Type says: `curl -d` sends forms. (Other sites' forms
    /// are held off by their origin.) @throws HttpError 422 for malformed JSON.
    [[nodiscard]] boost::json::value json() const;
};

/// The body of an answer that is made piece by piece, for as long as the client listens.
class BodySource {
public:
    virtual ~BodySource() = default;
    /// Some more of it; empty at its end. Not for longer than some seconds without anything, or a
    /// client that is gone is not noticed.
    virtual boost::asio::awaitable<std::string> next() = 0;
};

struct Response {
    int status = 200;
    std::string content_type = "application/json";
    std::string body;
    Headers headers;
    /// A body that outlives the response (embedded files); used instead of `body` where set.
    std::string_view static_body;
    /// A body without an end in sight, instead of the others where set; the connection closes
    /// behind it, and at once when the server stops.
    std::shared_ptr<BodySource> source;
    bool dry_run = false;  ///< A change that was only tried: nothing for the audit log.
};

/// Who asks, as the audit log and the timelines of jobs name them.
[[nodiscard]] std::string actor_of(const Request& request);

[[nodiscard]] Response json_response(int status, const boost::json::value& body);

/// Whether who asks may see and change what is of this queue. What he may not see is to look as if
/// it were not there.
[[nodiscard]] bool may_see_queue(const Request& request, std::string_view queue) noexcept;
[[nodiscard]] bool sees_all_queues(const Request& request) noexcept;
/// Names of the queues that who asks may see, `*` standing for any text; empty for all queues.
[[nodiscard]] std::vector<std::string> visible_queues(const Request& request);
/// What is to be hidden from who asks; lives as long as the request's principal.
[[nodiscard]] const Redaction& redaction_of(const Request& request) noexcept;

/// Thrown by a handler to answer with a problem (RFC 9457).
class HttpError : public std::exception {
public:
    /// @param detail  what the client did wrong, in one sentence that names the field.
    HttpError(int status, std::string detail, std::string code = {}, Headers headers = {});
    [[nodiscard]] const char* what() const noexcept override { return detail_.c_str(); }
    [[nodiscard]] int status() const noexcept { return status_; }
    [[nodiscard]] const std::string& detail() const noexcept { return detail_; }
    [[nodiscard]] const std::string& code() const noexcept { return code_; }
    [[nodiscard]] const Headers& headers() const noexcept { return headers_; }

private:
    int status_;
    std::string detail_;
    std::string code_;
    Headers headers_;
};

/// 403 for a change that another site's page asks for. Other methods than GET, HEAD and OPTIONS are
/// held off before they reach a handler.
[[nodiscard]] HttpError cross_site_refusal();

/// `application/problem+json` with type, title, status, detail, instance, request_id.
[[nodiscard]] Response problem_response(const Request& request, int status, std::string_view detail,
                                        std::string_view code = {});
/// The same with further members.
[[nodiscard]] Response problem_response(const Request& request, int status, std::string_view detail,
                                        std::string_view code, const boost::json::object& members);

/// Fills `path`, `query` from `target`; a whole URL becomes path and query, and its host the
/// request's. False for a malformed target.
[[nodiscard]] bool parse_target(Request& request);

using Handler = std::function<boost::asio::awaitable<Response>(Request)>;
/// Says who asks (`Request::principal`). `changes`: the route changes something. @throws HttpError
/// for who may not.
using Guard =
    std::function<boost::asio::awaitable<void>(Request& request, Scope needed, bool changes)>;

/// What the OpenAPI document says of a route.
struct RouteDoc {
    struct Param {
        std::string name;
        std::string in = "query";     ///< "query" or "path".
        std::string type = "string";  ///< JSON schema type.
        std::string description;
        std::optional<std::int64_t> minimum, maximum, fallback;
        bool required = false;
    };
    std::string summary;
    std::string tag;
    std::vector<Param> params;                      ///< Path parameters are added by the router.
    std::string request_type = "application/json";  ///< Of the body.
    std::string request_schema;  ///< JSON schema text of the body; empty for none.
    std::string response_type = "application/json";
    std::string response_schema;  ///< JSON schema text of the good answer; empty for any object.
    int good_status = 200;
    std::string accepted_schema{};  ///< Of the answer 202, where that may come as well.
    std::vector<int> problems;      ///< Further statuses it may answer with.
    bool deprecated = false;
    bool hidden = false;  ///< Not in the OpenAPI document (pages, assets).
    /// What it needs; unless given `read` for GET, `operate` for others.
    std::optional<Scope> scope{};
    /// The handler shows and changes nothing of queues that `may_see_queue` excludes. Other routes
    /// are for those who may see all queues.
    bool keeps_to_queues = false;
    /// What the audit log calls it (`job.cancel`); empty for what is no action.
    std::string action{};
    /// A GET whose answer depends on more of who asks than what they may see.
    bool personal = false;
};

/// An action that somebody asked for, and how it went.
struct ActionRecord {
    std::string by;            ///< Who asked.
    std::string action;        ///< `RouteDoc::action`.
    std::string target;        ///< The path's parameters.
    std::string details;       ///< Query and body, as sent, at most some kB.
    std::string_view outcome;  ///< done, accepted, refused, failed.
};

/// Routes by method and pattern (`/api/rq/jobs/{job_id}`); literal segments win over parameters.
/// HEAD is answered wherever GET is; another method gets 405 with `Allow`, no match 404.
class Router {
public:
    /// @param log  where errors that the client is not told are written; outlives the router.
    explicit Router(Logger& log = null_logger());
    ~Router();
    void add(Method method, std::string pattern, RouteDoc doc, Handler handler);
    /// A route whose handler reads the body itself, from `Request::stream`. @param max_bytes  of
    /// it.
    void add_streaming(Method method, std::string pattern, std::uint64_t max_bytes, RouteDoc doc,
                       Handler handler);
    /// How large the body of such a route may be; nothing for other routes.
    [[nodiscard]] std::optional<std::uint64_t> streams(Method method,
                                                       std::string_view target) const;
    /// Called after each action, before it is answered: not for one that asks for something that
    /// does not exist or makes no sense, nor for a dry run.
    void on_action(std::function<boost::asio::awaitable<void>(ActionRecord)> observer);
    /// Never throws for anything a client or handler does: HttpError becomes its problem, `Error`
    /// 503 (Redis away, with Retry-After) or 500, without internals in `detail`. `guard` is asked
    /// before anything is told of the routes; without one everybody may do everything.
    ///
    /// Who says `Cache-Control: max-age=…` with a GET may be given an answer, up to a second old,
    /// that another has got who may see the same; a change through this router ends that.
    [[nodiscard]] boost::asio::awaitable<Response> dispatch(Request request,
                                                            Guard guard = {}) const;
    /// What was read up to now is told to nobody any more.
    void forget_shared() const;
    /// The pattern that this request matches, for logs and metrics; empty for none.
    [[nodiscard]] std::string_view pattern_of(Method method, std::string_view path) const;
    /// OpenAPI 3.1, generated from the routes.
    [[nodiscard]] boost::json::object openapi(std::string_view title,
                                              std::string_view version) const;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace rqxx::http
