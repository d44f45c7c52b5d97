#include "http/live.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>
#include <deque>
#include <map>
#include <rqxx/audit.hpp>
#include <rqxx/error.hpp>
#include <rqxx/job.hpp>
#include <rqxx/time.hpp>

#include "base/task_group.hpp"
#include "base/utf8.hpp"
#include "http/api.hpp"
#include "http/job_json.hpp"
#include "http/job_log.hpp"
#include "http/monitor_answers.hpp"
#include "http/request_values.hpp"

namespace rqxx::http {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t recent_jobs = 50;
constexpr std::size_t longest_text = 300;
constexpr std::size_t most_operations = 20;
/// Entries of the audit log that are read at once, and kept for all readers.
constexpr std::size_t audit_page = 200;
/// Proxies cut connections on which nothing comes.
constexpr auto longest_silence = 15s;

/// What a reader wants to hear of.
struct Topics {
    bool overview = false, jobs = false, operations = false, audit = false;
};

/// @throws HttpError 422 naming one that there is not.
Topics parse_topics(std::string_view text) {
    Topics topics;
    const std::pair<std::string_view, bool*> known[] = {{"overview", &topics.overview},
                                                        {"jobs", &topics.jobs},
                                                        {"operations", &topics.operations},
                                                        {"audit", &topics.audit}};
    for (;;) {
        const auto comma = text.find(',');
        const std::string_view name = text.substr(0, comma);
        const auto found =
            std::ranges::find_if(known, [&](const auto& one) { return one.first == name; });
        if (found == std::end(known))
            throw HttpError(422,
                            fmt::format("topics: there is no \"{}\"; there are overview, jobs, "
                                        "operations, audit",
                                        to_valid_utf8(name.substr(0, 80))));
        *found->second = true;
        if (comma == std::string_view::npos) return topics;
        text.remove_prefix(comma + 1);
    }
}

std::uint64_t number_of(std::string_view text) {
    std::uint64_t number = 0;
    std::from_chars(text.data(), text.data() + text.size(), number);
    return number;
}

/// Whether the entry `a` of a Redis stream comes before `b`.
bool is_before(std::string_view a, std::string_view b) {
    const auto parts = [](std::string_view id) {
        const auto dash = std::min(id.find('-'), id.size());
        return std::pair(number_of(id.substr(0, dash)),
                         number_of(id.substr(std::min(dash + 1, id.size()))));
    };
    return parts(a) < parts(b);
}

/// How far a reader is in each topic; what `Last-Event-ID` says.
struct Place {
    std::uint64_t overview = 0, jobs = 0, operations = 0;
    std::string audit;  ///< Id of an entry; empty: not known yet.

    /// `begun` tells the numbers of one process from those of another.
    [[nodiscard]] std::string id(std::string_view begun) const {
        return fmt::format("{}:{}:{}:{}:{}", begun, overview, jobs, operations, audit);
    }
    /// True where it is of the same process; ids of the audit log are known to all.
    bool parse(std::string_view text, std::string_view begun) {
        std::array<std::string_view, 5> parts;
        for (auto& part : parts) {
            const auto colon = std::min(text.find(':'), text.size());
            part = text.substr(0, colon);
            text.remove_prefix(std::min(colon + 1, text.size()));
        }
        if (is_audit_place(parts[4])) audit = parts[4];
        if (parts[0] != begun) return false;
        overview = number_of(parts[1]);
        jobs = number_of(parts[2]);
        operations = number_of(parts[3]);
        return true;
    }
};

std::string event(std::string_view name, std::string_view id, std::string_view data) {
    return fmt::format("id: {}\nevent: {}\ndata: {}\n\n", id, name, data);
}

std::string event(std::string_view name, std::string_view data) {
    return fmt::format("event: {}\ndata: {}\n\n", name, data);
}

}  // namespace

/// The overview as those see it who may see the same queues.
struct LiveFeed::View {
    Request who;
    std::size_t readers = 0, hiding_readers = 0;
    std::string state;          ///< The newest, as JSON; empty before the first.
    std::string hidden_state;   ///< For those from whom all data is hidden; empty: nobody wants it.
    std::uint64_t version = 0;  ///< Another with each other state, whatever the view.
    std::uint64_t round = 0;    ///< Goes up with each reading.
};

struct LiveFeed::Impl {
    Impl(asio::any_io_executor executor, Monitor& monitor_, Logger& log_,
         std::chrono::milliseconds interval_)
        : monitor(monitor_),
          log(log_),
          interval(interval_),
          begun(new_execution_id().substr(0, 8)),
          changed(executor),
          wanted(executor) {}

    struct KnownOperation {
        std::string text;  ///< As JSON.
        bool running = false;
        std::uint64_t number = 0;  ///< Of its last change; 0: it ended before anybody looked.
    };

    Monitor& monitor;
    Logger& log;
    std::chrono::milliseconds interval;
    RedisClient* redis = nullptr;
    Operations* known_operations = nullptr;
    index::JobIndex* index = nullptr;
    std::function<void()> observer;
    std::string begun;  ///< Tells the numbers of one process from those of another.
    Event changed;      ///< There is something newer, or word that it is still the same.
    Event wanted;       ///< The first reader has come.
    std::size_t readers = 0, operations_readers = 0, audit_readers = 0;
    bool closed = false;

    std::string at;  ///< When it was read.
    Redaction redaction;
    std::map<std::vector<std::string>, std::shared_ptr<View>> views;  ///< By patterns of queues.
    std::uint64_t versions = 0;
    std::string problem;      ///< Why it could not be read; empty where it was.
    std::uint64_t round = 0;  ///< Goes up with each reading.

    JobLog jobs;
    std::map<std::string, KnownOperation> operations;
    std::uint64_t operation_changes = 0;

    std::deque<AuditEntry> audit;  ///< The newest.
    std::string audit_from;        ///< All behind this entry are in `audit`.
    std::string audit_last;        ///< Empty: it has not been looked at.

    std::shared_ptr<View> view_of(const Request& request) {
        std::vector<std::string> queues{"*"};
        if (!sees_all_queues(request)) queues = request.principal->queues;
        auto& view = views[queues];
        if (!view) {
            Principal anybody;
            anybody.queues = queues;
            anybody.redaction = redaction;
            view = std::make_shared<View>();
            view->who.principal = std::make_shared<const Principal>(std::move(anybody));
        }
        return view;
    }

    asio::awaitable<json::object> read(const Request& who) {
        json::object parts{{"stats", co_await stats_answer(monitor, who, "default")},
                           {"workers", co_await workers_answer(monitor, who)},
                           {"recent", co_await recent_answer(monitor, who, recent_jobs, "", "")}};
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

    asio::awaitable<void> read_view(std::shared_ptr<View> view) {
        json::object parts = co_await read(view->who);
        std::string now = json::serialize(parts);
        view->hidden_state.clear();
        if (view->hiding_readers > 0) {
            for (auto& job : parts["recent"].as_object()["jobs"].as_array())
                redact_job(job.as_object(), Redaction{.all = true, .names = {}});
            redact_rate_limits(parts["stats"].as_object()["rate_limits"].as_array(),
                               Redaction{.all = true, .names = {}});
            view->hidden_state = json::serialize(parts);
        }
        ++view->round;
        if (now == view->state) co_return;
        view->state = std::move(now);
        view->version = ++versions;
        if (observer) observer();
    }

    /// @param news  false: what ended before anybody looked is nothing to tell.
    asio::awaitable<void> read_operations(bool news) {
        std::map<std::string, KnownOperation> now;
        for (const auto& one : co_await known_operations->list(most_operations)) {
            KnownOperation known{json::serialize(to_json(one)), one.state == "running", 0};
            const auto before = operations.find(one.id);
            const bool same = before != operations.end() && before->second.text == known.text;
            if (same)
                known.number = before->second.number;
            else if (news || before != operations.end() || known.running)
                known.number = ++operation_changes;
            now.emplace(one.id, std::move(known));
        }
        operations = std::move(now);
    }

    asio::awaitable<void> read_audit() {
        if (audit_readers == 0) {
            // Who comes back finds what is missing in Redis.
            audit.clear();
            audit_last.clear();
            co_return;
        }
        AuditLog log_in_redis(*redis);
        if (audit_last.empty()) {
            audit_from = audit_last = co_await log_in_redis.last();
            co_return;
        }
        for (auto& entry : co_await log_in_redis.after(audit_last, audit_page)) {
            audit_last = entry.id;
            audit.push_back(std::move(entry));
        }
        while (audit.size() > audit_page) {
            audit_from = audit.front().id;
            audit.pop_front();
        }
    }

    asio::awaitable<void> read_once() {
        try {
            monitor.require_connection();
            std::vector<std::shared_ptr<View>> read_by;
            for (const auto& [queues, view] : views)
                if (view->readers > 0) read_by.push_back(view);
            for (const auto& view : read_by)
                co_await read_view(view);
            if (operations_readers > 0) co_await read_operations(true);
            co_await read_audit();
            problem.clear();
            at = format_utc(utc_now());
        } catch (const Error& error) {
            log.debug("Reading the state for live pages failed", "error", error.message());
            problem = error.retryable() ? "Redis is not available"
                                        : "The state cannot be read; the server's log says why";
        }
        ++round;
        changed.notify();
    }
};

/// One reader.
class LiveFeed::Stream : public BodySource {
public:
    Stream(std::shared_ptr<Impl> feed, const Request& request, Topics topics, Place place,
           bool resumes)
        : feed_(std::move(feed)),
          topics_(topics),
          place_(std::move(place)),
          principal_(request.principal),
          hides_(redaction_of(request).all),
          awaits_operations_(!resumes),
          round_(feed_->round) {
        if (!resumes) place_.jobs = feed_->jobs.last();
        if (!resumes) place_.operations = feed_->operation_changes;
        if (topics_.overview) {
            view_ = feed_->view_of(request);
            view_round_ = view_->round;
            // What others have read is not older than an interval.
            if (view_->readers > 0 && view_->round > 0 && feed_->problem.empty() &&
                !(hides_ && view_->hidden_state.empty()))
                --view_round_;
            ++view_->readers;
            if (hides_) ++view_->hiding_readers;
        }
        if (topics_.operations) ++feed_->operations_readers;
        if (topics_.audit) ++feed_->audit_readers;
        if (feed_->readers++ == 0) feed_->wanted.notify();
    }
    ~Stream() override {
        --feed_->readers;
        if (topics_.operations) --feed_->operations_readers;
        if (topics_.audit) --feed_->audit_readers;
        if (!view_) return;
        if (hides_) --view_->hiding_readers;
        // The state that all see is kept for those who come back.
        if (--view_->readers == 0 && !view_->who.principal->sees_all_queues())
            feed_->views.erase(view_->who.principal->queues);
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
        while (!feed_->closed) {
            if (std::string news = co_await all_news(); !news.empty()) co_return news;
            const auto left = until - std::chrono::steady_clock::now();
            if (left <= 0s) co_return ": still here\n\n";
            if (!feed_->closed) co_await feed_->changed.wait(left);
        }
        co_return std::string();
    }

private:
    asio::awaitable<std::string> all_news() {
        std::string news;
        if (!feed_->problem.empty() && round_ != feed_->round)
            news = event("problem", json::serialize(json::object{{"detail", feed_->problem}}));
        const bool is_new_round = std::exchange(round_, feed_->round) != feed_->round;
        if (topics_.overview) news += overview_news();
        if (topics_.jobs) news += job_news();
        if (topics_.operations) news += operation_news(is_new_round);
        // The last, as it may suspend.
        if (topics_.audit && feed_->problem.empty()) news += co_await audit_news();
        co_return news;
    }

    std::string overview_news() {
        if (view_round_ == view_->round) return {};
        view_round_ = view_->round;
        const std::string& state = hides_ ? view_->hidden_state : view_->state;
        if (place_.overview == view_->version || state.empty())
            return event("unchanged", json::serialize(json::object{{"at", feed_->at}}));
        place_.overview = view_->version;
        // The state is an object: the time goes in front of its members.
        return event(
            "overview", id(),
            fmt::format(R"({{"at":"{}",{})", feed_->at, std::string_view(state).substr(1)));
    }

    std::string job_news() {
        if (place_.jobs == feed_->jobs.last()) return {};
        std::function<bool(std::string_view)> sees;
        if (principal_ && !principal_->sees_all_queues())
            sees = [this](std::string_view queue) { return principal_->may_see_queue(queue); };
        auto news = feed_->jobs.after(place_.jobs, sees);
        place_.jobs = news.last;
        if (news.jobs.empty()) return {};
        return event("jobs", id(),
                     json::serialize(json::object{
                         {"at", format_utc(utc_now())},
                         {"jobs", std::move(news.jobs)},
                         {"dropped", news.dropped ? json::value(*news.dropped) : nullptr}}));
    }

    std::string operation_news(bool is_new_round) {
        std::map<std::uint64_t, const std::string*> changed;
        for (const auto& [id, one] : feed_->operations)
            if (one.number > place_.operations ||
                (awaits_operations_ && is_new_round && one.running))
                changed[one.number] = &one.text;
        if (is_new_round) awaits_operations_ = false;
        place_.operations = feed_->operation_changes;
        if (changed.empty()) return {};
        std::string list;
        for (const auto& [number, text] : changed)
            list += (list.empty() ? "" : ",") + *text;
        return event("operations", id(),
                     fmt::format(R"({{"at":"{}","operations":[{}]}})", feed_->at, list));
    }

    asio::awaitable<std::string> audit_news() {
        if (feed_->audit_last.empty() || !is_before(place_.audit, feed_->audit_last))
            co_return std::string();
        json::array items;
        const auto add = [&](const AuditEntry& entry) {
            place_.audit = entry.id;
            const Principal* principal = principal_.get();
            items.push_back(audit_json(entry, principal ? principal->redaction : Redaction{}));
        };
        if (is_before(place_.audit, feed_->audit_from)) {
            const std::string upto = feed_->audit_from;
            const auto missed = co_await AuditLog(*feed_->redis).after(place_.audit, audit_page);
            for (const auto& entry : missed)
                add(entry);
            // Redis has cut it.
            if (missed.empty()) place_.audit = upto;
        } else {
            for (const auto& entry : feed_->audit)
                if (is_before(place_.audit, entry.id)) add(entry);
        }
        if (items.empty()) co_return std::string();
        co_return event("audit", id(),
                        json::serialize(json::object{{"at", format_utc(utc_now())},
                                                     {"items", std::move(items)}}));
    }

    [[nodiscard]] std::string id() const { return place_.id(feed_->begun); }

    std::shared_ptr<Impl> feed_;
    Topics topics_;
    Place place_;
    std::shared_ptr<const Principal> principal_;
    std::shared_ptr<View> view_;
    bool hides_;
    bool awaits_operations_;  ///< Those that run have not been told of yet.
    std::uint64_t round_, view_round_ = 0;
    bool greeted_ = false;
};

namespace {

void check_rights(const Topics& topics, const Request& request, bool has_index) {
    if (topics.jobs && !has_index)
        throw HttpError(422, "topics: jobs come from the index, which is switched off (--no-index)",
                        "index_off");
    if ((topics.operations || topics.audit) && !sees_all_queues(request))
        throw HttpError(403, "topics: operations and audit are for those who may see all queues",
                        "all_queues");
    if (topics.audit && request.principal && request.principal->scope < Scope::admin)
        throw HttpError(403, "topics: audit needs the scope \"admin\"", "scope");
}

}  // namespace

LiveFeed::LiveFeed(asio::any_io_executor executor, Monitor& monitor, Logger& log,
                   std::chrono::milliseconds interval)
    : impl_(std::make_shared<Impl>(std::move(executor), monitor, log, interval)) {}
LiveFeed::~LiveFeed() {
    close();
}

void LiveFeed::hide(Redaction redaction) {
    impl_->redaction = std::move(redaction);
}

void LiveFeed::tell_of(RedisClient& redis, Operations& operations, index::JobIndex* index) {
    impl_->redis = &redis;
    impl_->known_operations = &operations;
    impl_->index = index;
    if (index == nullptr) return;
    index->on_transition([feed = impl_](std::vector<index::JobTransition> transitions) {
        feed->jobs.add(std::move(transitions));
    });
}

void LiveFeed::on_change(std::function<void()> observer) {
    impl_->observer = std::move(observer);
}

void LiveFeed::add_route(Router& router) {
    RouteDoc doc;
    doc.summary = "What is going on, as it happens";
    doc.tag = "monitor";
    doc.keeps_to_queues = true;
    doc.personal = true;
    doc.params = {text_param(
        "topics",
        "what to tell of, separated by commas; `overview` unless given: queues, workers and recent "
        "jobs. `jobs`: each job that comes into another status (needs the index). `operations`: "
        "how actions on many jobs go on. `audit`: what was done by whom (for the scope `admin`). "
        "The last two are for those who may see all queues")};
    doc.response_type = "text/event-stream";
    doc.response_schema =
        R"({"type":"string","description":"server-sent events: `overview` with the whole state (stats, workers, recent: as the routes of these names tell them, jobs in outline) whenever it has changed, `unchanged` with the time where it has not; `jobs` with `jobs` (id, queue, func_name, status, at) and `dropped`, how many older ones were left out (null: some, it is not told how many); `operations` with `operations`, `audit` with `items`, as the routes of these names tell them; `problem` while the state cannot be read. With Last-Event-ID only what has happened since"})";
    doc.problems = {422, 503};
    router.add(Method::get, "/api/v1/events", doc,
               [feed = impl_](Request request) -> asio::awaitable<Response> {
                   const Topics topics =
                       parse_topics(request.query_value("topics").value_or("overview"));
                   check_rights(topics, request, feed->index != nullptr);
                   if (feed->closed) throw HttpError(503, "The server is stopping");
                   Place place;
                   const bool resumes =
                       place.parse(request.header("Last-Event-ID").value_or(""), feed->begun);
                   if (topics.operations || topics.audit) feed->redis->require_connection();
                   if (topics.operations && feed->operations_readers == 0)
                       co_await feed->read_operations(false);
                   if (topics.audit && place.audit.empty())
                       place.audit = co_await AuditLog(*feed->redis).last();
                   Response response;
                   response.content_type = "text/event-stream";
                   response.headers = {{"X-Accel-Buffering", "no"}};
                   response.source =
                       std::make_shared<Stream>(feed, request, topics, std::move(place), resumes);
                   co_return response;
               });
}

asio::awaitable<void> LiveFeed::run() {
    const auto feed = impl_;
    Event pause(co_await asio::this_coro::executor);
    std::uint64_t told = 0;
    for (;;) {
        if (feed->readers == 0) {
            co_await feed->wanted.wait();
            continue;
        }
        co_await feed->read_once();
        co_await pause.wait(feed->interval / 2);
        // Transitions come by themselves.
        if (std::exchange(told, feed->jobs.last()) != feed->jobs.last()) feed->changed.notify();
        co_await pause.wait(feed->interval / 2);
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
