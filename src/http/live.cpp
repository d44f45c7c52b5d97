#include "http/live.hpp"

#include <fmt/format.h>

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <rqxx/error.hpp>
#include <rqxx/job.hpp>
#include <rqxx/time.hpp>

#include "base/task_group.hpp"
#include "base/utf8.hpp"
#include "http/job_json.hpp"
#include "http/monitor_answers.hpp"

namespace rqxx::http {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t recent_jobs = 50;
constexpr std::size_t longest_text = 300;
/// Proxies cut connections on which nothing comes.
constexpr auto longest_silence = 15s;

}  // namespace

struct LiveFeed::Impl {
    Impl(asio::any_io_executor executor, Monitor& monitor_, Logger& log_,
         std::chrono::milliseconds interval_)
        : monitor(monitor_),
          log(log_),
          interval(interval_),
          begun(new_execution_id().substr(0, 8)),
          changed(executor),
          wanted(executor) {}

    Monitor& monitor;
    Logger& log;
    std::chrono::milliseconds interval;
    std::string begun;  ///< Tells the numbers of one process from those of another.
    Event changed;      ///< There is a newer state, or word that it is still the same.
    Event wanted;       ///< The first reader has come.
    std::size_t readers = 0;
    bool closed = false;

    std::string at;   ///< When it was read.
    Request anybody;  ///< With what is hidden from everybody.
    std::size_t hiding_readers = 0;
    std::string hidden_state;   ///< For those from whom all data is hidden; empty: nobody wants it.
    std::string state;          ///< The newest, as JSON; empty before the first.
    std::string problem;        ///< Why it could not be read; empty where it was.
    std::uint64_t version = 0;  ///< Goes up with each other state.
    std::uint64_t round = 0;    ///< Goes up with each reading.

    asio::awaitable<json::object> read() {
        json::object parts{
            {"stats", co_await stats_answer(monitor, anybody, "default")},
            {"workers", co_await workers_answer(monitor, anybody)},
            {"recent", co_await recent_answer(monitor, anybody, recent_jobs, "", "")}};
        for (auto& job : parts["recent"].as_object()["jobs"].as_array())
            job = outline(job.as_object());
        co_return parts;
    }

    /// What a list shows of a job: its arguments and results may be large.
    static json::object outline(const json::object& job) {
        json::object shown;
        for (const auto* field :
             {"id", "status", "queue", "func_name", "description", "created_at", "enqueued_at",
              "started_at", "ended_at", "duration", "queued_for", "worker_name"}) {
            const auto& value = job.at(field);
            const bool is_long = value.is_string() && value.get_string().size() > longest_text;
            shown[field] = is_long
                               ? json::value(to_valid_utf8(
                                     std::string_view(value.get_string()).substr(0, longest_text)))
                               : value;
        }
        // Of jobs that wait it changes all the time; `enqueued_at` says the same.
        if (shown["started_at"].is_null()) shown["queued_for"] = nullptr;
        return shown;
    }

    asio::awaitable<void> read_once() {
        try {
            monitor.require_connection();
            json::object parts = co_await read();
            std::string now = json::serialize(parts);
            problem.clear();
            hidden_state.clear();
            if (hiding_readers > 0) {
                for (auto& job : parts["recent"].as_object()["jobs"].as_array())
                    redact_job(job.as_object(), Redaction{.all = true, .names = {}});
                hidden_state = json::serialize(parts);
            }
            if (now != state) {
                state = std::move(now);
                ++version;
            }
            at = format_utc(utc_now());
        } catch (const Error& error) {
            log.debug("Reading the state for live pages failed", "error", error.message());
            problem = error.retryable() ? "Redis is not available"
                                        : "The state cannot be read; the server's log says why";
        }
        ++round;
        changed.notify();
    }

    [[nodiscard]] std::string id() const { return fmt::format("{}-{}", begun, version); }
};

/// One reader.
class LiveFeed::Stream : public BodySource {
public:
    Stream(std::shared_ptr<Impl> feed, std::string last_id, bool hides)
        : feed_(std::move(feed)),
          last_id_(std::move(last_id)),
          round_(feed_->round),
          hides_(hides) {
        // What others have read is not older than an interval.
        if (feed_->readers > 0 && round_ > 0 && !(hides_ && feed_->hidden_state.empty())) --round_;
        if (hides_) ++feed_->hiding_readers;
        if (feed_->readers++ == 0) feed_->wanted.notify();
    }
    ~Stream() override {
        --feed_->readers;
        if (hides_) --feed_->hiding_readers;
    }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    asio::awaitable<std::string> next() override {
        if (!greeted_) {
            greeted_ = true;
            // How long a browser waits before it comes back.
            co_return "retry: 2000\n\n";
        }
        const auto until = std::chrono::steady_clock::now() + longest_silence;
        while (!feed_->closed && round_ == feed_->round) {
            const auto left = until - std::chrono::steady_clock::now();
            if (left <= 0s) co_return ": still here\n\n";
            co_await feed_->changed.wait(left);
        }
        if (feed_->closed) co_return std::string();
        round_ = feed_->round;
        if (!feed_->problem.empty())
            co_return event("problem", json::serialize(json::object{{"detail", feed_->problem}}));
        const std::string& state = hides_ ? feed_->hidden_state : feed_->state;
        if (const std::string id = feed_->id(); id != last_id_ && !state.empty()) {
            last_id_ = id;
            // The state is an object: the time goes in front of its members.
            co_return fmt::format("id: {}\nevent: overview\ndata: {{\"at\":\"{}\",{}\n\n", id,
                                  feed_->at, std::string_view(state).substr(1));
        }
        co_return event("unchanged", json::serialize(json::object{{"at", feed_->at}}));
    }

private:
    static std::string event(std::string_view name, std::string_view data) {
        return fmt::format("event: {}\ndata: {}\n\n", name, data);
    }

    std::shared_ptr<Impl> feed_;
    std::string last_id_;
    std::uint64_t round_;
    bool hides_;
    bool greeted_ = false;
};

LiveFeed::LiveFeed(asio::any_io_executor executor, Monitor& monitor, Logger& log,
                   std::chrono::milliseconds interval)
    : impl_(std::make_shared<Impl>(std::move(executor), monitor, log, interval)) {}
LiveFeed::~LiveFeed() {
    close();
}

void LiveFeed::hide(Redaction redaction) {
    Principal anybody;
    anybody.redaction = std::move(redaction);
    impl_->anybody.principal = std::make_shared<const Principal>(std::move(anybody));
}

void LiveFeed::add_route(Router& router) {
    RouteDoc doc;
    doc.summary = "What is going on, as it happens";
    doc.tag = "monitor";
    RouteDoc::Param topics;
    topics.name = "topics";
    topics.description =
        "what to tell of, separated by commas; there is `overview`: queues, workers and recent "
        "jobs";
    doc.params = {topics};
    doc.response_type = "text/event-stream";
    doc.personal = true;
    doc.response_schema =
        R"({"type":"string","description":"server-sent events: `overview` with the whole state (stats, workers, recent: as the routes of these names tell them, jobs in outline) whenever it has changed, `unchanged` with the time where it has not, `problem` while it cannot be read. With Last-Event-ID only what has changed since"})";
    doc.problems = {422, 503};
    router.add(Method::get, "/api/v1/events", doc,
               [feed = impl_](Request request) -> asio::awaitable<Response> {
                   const auto wanted = request.query_value("topics").value_or("overview");
                   if (wanted != "overview") throw HttpError(422, "topics: there is overview");
                   if (feed->closed) throw HttpError(503, "The server is stopping");
                   Response response;
                   response.content_type = "text/event-stream";
                   response.headers = {{"X-Accel-Buffering", "no"}};
                   response.source = std::make_shared<Stream>(
                       feed, std::string(request.header("Last-Event-ID").value_or("")),
                       redaction_of(request).all);
                   co_return response;
               });
}

asio::awaitable<void> LiveFeed::run() {
    const auto feed = impl_;
    Event pause(co_await asio::this_coro::executor);
    for (;;) {
        if (feed->readers == 0) {
            co_await feed->wanted.wait();
            continue;
        }
        co_await feed->read_once();
        co_await pause.wait(feed->interval);
    }
}

void LiveFeed::close() {
    impl_->closed = true;
    impl_->changed.notify();
}

std::size_t LiveFeed::readers() const noexcept {
    return impl_->readers;
}

}  // namespace rqxx::http
