#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value_from.hpp>
#include <charconv>
#include <map>
#include <rqxx/job.hpp>
#include <rqxx/json.hpp>
#include <rqxx/operations.hpp>
#include <rqxx/value.hpp>

#include "base/task_group.hpp"
#include "base/wildcard.hpp"
#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"

namespace rqxx {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

namespace {

constexpr auto lease = 10s;
constexpr auto known_for = std::chrono::hours(24);
/// How often the progress is written down, and somebody's wish to stop is looked for.
constexpr auto beat = 500ms;
constexpr std::size_t sample_size = 10;

/// Ends the walk through the jobs from within an action.
struct Stopped {};

std::uint64_t number(const std::map<std::string, std::string>& fields, const std::string& name) {
    const auto found = fields.find(name);
    std::uint64_t value = 0;
    if (found != fields.end())
        std::from_chars(found->second.data(), found->second.data() + found->second.size(), value);
    return value;
}

std::string text(const std::map<std::string, std::string>& fields, const std::string& name) {
    const auto found = fields.find(name);
    return found == fields.end() ? std::string() : found->second;
}

/// Of a JSON list; nothing where it is none.
std::vector<std::string> texts(const std::string& list) {
    std::vector<std::string> result;
    boost::system::error_code malformed;
    const json::value value = json::parse(list, malformed);
    if (malformed || !value.is_array()) return result;
    for (const auto& item : value.get_array())
        if (item.is_string()) result.emplace_back(item.get_string());
    return result;
}

std::optional<Timestamp> time(const std::map<std::string, std::string>& fields,
                              const std::string& name) {
    const auto us = number(fields, name);
    // What is later than the year 9999 is nobody's time.
    if (us == 0 || us > 253'402'300'799'000'000) return std::nullopt;
    return Timestamp(std::chrono::microseconds(us));
}

std::optional<Operation> operation_of(std::string id, const Reply& reply, std::uint64_t now_us) {
    std::map<std::string, std::string> fields;
    if (!reply.is_array()) return std::nullopt;
    for (const auto& [name, value] : reply.as_pairs())
        fields.emplace(name, value);
    if (fields.empty()) return std::nullopt;
    Operation operation;
    operation.id = std::move(id);
    operation.action = text(fields, "action");
    operation.state = text(fields, "state");
    if (operation.state == "running" && number(fields, "lease_until") <= now_us)
        operation.state = "interrupted";
    operation.search = text(fields, "search");
    operation.by = text(fields, "by");
    operation.canceled_by = text(fields, "canceled_by");
    operation.error = text(fields, "error");
    operation.within = texts(text(fields, "within"));
    operation.progress = {number(fields, "looked_at"), number(fields, "total"),
                          number(fields, "matched"), number(fields, "done"),
                          number(fields, "refused")};
    operation.started_at = time(fields, "started_at");
    operation.ended_at = time(fields, "ended_at");
    return operation;
}

std::uint64_t microseconds_of(const Reply& time) {
    std::uint64_t result = 0;
    for (const auto& part : time.as_array()) {
        std::uint64_t value = 0;
        std::from_chars(part.text.data(), part.text.data() + part.text.size(), value);
        result = result * 1'000'000 + value;
    }
    return result;
}

json::value time_or_null(const std::optional<Timestamp>& time) {
    return time ? json::value(format_utc(*time)) : json::value();
}

json::value text_or_null(const std::string& text) {
    return text.empty() ? json::value() : to_json(Value(text));
}

JobFilter filter_of(const JobSearch& search, std::string queue, std::uint64_t limit) {
    JobFilter filter;
    filter.queue = std::move(queue);
    filter.status = search.status;
    filter.func = search.func;
    filter.error = search.error;
    filter.limit = limit;
    filter.own_status = !search.whole_place;
    return filter;
}

}  // namespace

std::string_view to_string(BulkAction action) noexcept {
    switch (action) {
        case BulkAction::cancel:
            return "cancel";
        case BulkAction::requeue:
            return "requeue";
        case BulkAction::remove:
            return "delete";
        case BulkAction::stop:
            return "stop";
    }
    return "";
}

Parsed<BulkAction> parse_bulk_action(std::string_view text) noexcept {
    for (const auto action :
         {BulkAction::cancel, BulkAction::requeue, BulkAction::remove, BulkAction::stop})
        if (text == to_string(action)) return action;
    return ParseError("must be one of cancel, requeue, delete, stop", "action");
}

/// Those with places of their own come first.
static constexpr std::array<std::string_view, 10> statuses{
    "queued",    "started",  "finished", "failed",       "deferred",
    "scheduled", "canceled", "stopped",  "rate_limited", "created"};
static constexpr std::ptrdiff_t places = 7;

bool JobSearch::by_place() const noexcept {
    if (whole_place) return true;
    const auto place = std::ranges::find(statuses, status);
    return place < statuses.begin() + places && queue.find('*') == std::string::npos &&
           group.empty() && worker.empty() && tag.empty() && id.empty() && !since && !until &&
           !min_duration && !max_duration;
}

json::object to_json(const JobSearch& search) {
    json::object result;
    const std::pair<std::string_view, const std::string*> fields[] = {
        {"queue", &search.queue}, {"status", &search.status}, {"func", &search.func},
        {"error", &search.error}, {"group", &search.group},   {"worker", &search.worker},
        {"tag", &search.tag},     {"id", &search.id}};
    for (const auto& [name, value] : fields)
        if (!value->empty()) result[name] = to_json(Value(*value));
    if (search.since) result["since"] = format_utc(*search.since);
    if (search.until) result["until"] = format_utc(*search.until);
    if (search.min_duration) result["min_duration"] = *search.min_duration;
    if (search.max_duration) result["max_duration"] = *search.max_duration;
    return result;
}

json::object to_json(const Operation& operation) {
    boost::system::error_code malformed;
    json::value search = json::parse(operation.search, malformed);
    if (malformed) search = nullptr;
    return {{"id", operation.id},
            {"action", to_json(Value(operation.action))},
            {"state", to_json(Value(operation.state))},
            {"filter", std::move(search)},
            {"looked_at", operation.progress.looked_at},
            {"total", operation.progress.total},
            {"matched", operation.progress.matched},
            {"done", operation.progress.done},
            {"refused", operation.progress.refused},
            {"started_at", time_or_null(operation.started_at)},
            {"ended_at", time_or_null(operation.ended_at)},
            {"by", text_or_null(operation.by)},
            {"canceled_by", text_or_null(operation.canceled_by)},
            {"error", text_or_null(operation.error)}};
}

static asio::awaitable<std::vector<ActionResult>> stop_all(JobActions& actions,
                                                           std::vector<std::string> ids,
                                                           bool dry_run) {
    std::vector<ActionResult> results;
    results.reserve(ids.size());
    for (auto& id : ids)
        results.push_back(co_await actions.stop(std::move(id), dry_run));
    co_return results;
}

static JobActions::Action any_action(JobActions& actions, const BulkOrder& order, bool dry_run) {
    switch (order.action) {
        case BulkAction::cancel:
            return [&actions, dependents = order.dependents, dry_run](std::vector<std::string> i) {
                return actions.cancel(std::move(i), {dependents, false, dry_run});
            };
        case BulkAction::requeue:
            return [&actions, front = order.at_front, dry_run](std::vector<std::string> i) {
                return actions.requeue(std::move(i), {front, dry_run});
            };
        case BulkAction::remove:
            return [&actions, dependents = order.dependents, dry_run](std::vector<std::string> i) {
                return actions.remove(std::move(i), {dependents, dry_run});
            };
        case BulkAction::stop:
            break;
    }
    return [&actions, dry_run](std::vector<std::string> i) {
        return stop_all(actions, std::move(i), dry_run);
    };
}

static asio::awaitable<std::vector<ActionResult>> act_within(JobActions& actions,
                                                             std::vector<std::string> queues,
                                                             JobActions::Action action,
                                                             std::vector<std::string> ids) {
    ids = co_await actions.of_queues(std::move(ids), std::move(queues));
    if (ids.empty()) co_return std::vector<ActionResult>();
    co_return co_await action(std::move(ids));
}

JobActions::Action bulk_action(JobActions& actions, const BulkOrder& order, bool dry_run) {
    auto action = any_action(actions, order, dry_run);
    if (order.search.within.empty()) return action;
    return [&actions, queues = order.search.within, action](std::vector<std::string> ids) {
        return act_within(actions, queues, action, std::move(ids));
    };
}

static bool is_within(const JobSearch& search, std::string_view queue) {
    return search.within.empty() ||
           std::ranges::any_of(search.within, [&](const std::string& pattern) {
               return matches_wildcard(pattern, queue);
           });
}

struct Operations::Impl {
    Impl(RedisClient& redis_, Logger& log_, IdSource source_)
        : redis(redis_),
          log(log_),
          source(std::move(source_)),
          pause(redis_.executor()),
          tasks(redis_.executor()) {}

    /// One that is carried out here.
    struct Running {
        std::string id;
        BulkOrder order;
        ActionProgress progress;
        bool over = false;
        bool canceled = false;
        bool forgotten = false;  ///< Redis has lost it: nobody would see how it goes on.
        std::string error;
    };

    RedisClient& redis;
    Logger& log;
    IdSource source;
    bool stopping = false;
    std::map<std::string, std::shared_ptr<Running>> running;
    Event pause;
    TaskGroup tasks;

    asio::awaitable<std::vector<std::string>> queues_of(const JobSearch& search) {
        std::vector<std::string> names;
        if (!search.queue.empty()) {
            if (is_within(search, search.queue)) names.push_back(search.queue);
            co_return names;
        }
        const Reply members = co_await redis.command("SMEMBERS", keys::queues);
        for (const auto& member : members.as_array())
            if (member.text.starts_with(keys::queue_prefix))
                names.push_back(member.text.substr(keys::queue_prefix.size()));
        std::erase_if(names, [&](const std::string& name) { return !is_within(search, name); });
        std::ranges::sort(names);
        co_return names;
    }

    asio::awaitable<int> note(const Running& one, std::string_view step, std::string_view state) {
        const ActionProgress& progress = one.progress;
        std::vector<std::string> args{one.id,
                                      std::string(step),
                                      std::to_string(std::chrono::milliseconds(lease).count()),
                                      std::to_string(std::chrono::seconds(known_for).count()),
                                      "state",
                                      std::string(state),
                                      "looked_at",
                                      std::to_string(progress.looked_at),
                                      "total",
                                      std::to_string(progress.total),
                                      "matched",
                                      std::to_string(progress.matched),
                                      "done",
                                      std::to_string(progress.done),
                                      "refused",
                                      std::to_string(progress.refused)};
        if (step == "begin")
            for (const auto& more :
                 {std::string("action"), std::string(to_string(one.order.action)),
                  std::string("by"), one.order.by, std::string("search"),
                  json::serialize(to_json(one.order.search)), std::string("within"),
                  json::serialize(json::value_from(one.order.search.within))})
                args.push_back(more);
        if (!one.error.empty()) {
            args.emplace_back("error");
            args.push_back(one.error);
        }
        const Reply reply = co_await redis.eval(
            lua::note_operation, {keys::operation(one.id), std::string(keys::operations)},
            std::move(args));
        co_return static_cast<int>(reply.as_array().at(0).as_integer());
    }

    /// While it runs. A Redis that is away for a moment is waited for.
    asio::awaitable<void> keep_known(std::shared_ptr<Running> one) {
        while (!one->over) {
            co_await pause.wait(beat);
            if (one->over) co_return;
            try {
                const int answer = co_await note(*one, "go on", "running");
                if (one->over) co_return;
                one->canceled = one->canceled || answer == 1;
                one->forgotten = one->forgotten || answer == 2;
            } catch (const Error&) {
                // Whoever works on the jobs notices, too.
            }
        }
    }

    [[nodiscard]] bool ends(const Running& one) const {
        return stopping || one.canceled || one.forgotten;
    }

    asio::awaitable<void> walk_places(std::shared_ptr<Running> one, JobActions& actions) {
        const auto act = bulk_action(actions, one->order, false);
        const auto queues = co_await queues_of(one->order.search);
        for (const auto& queue : queues) {
            const ActionProgress before = one->progress;
            std::uint64_t left = 0;
            if (one->order.most > 0) {
                if (before.matched >= one->order.most) co_return;
                left = one->order.most - before.matched;
            }
            const JobActions::Action step = [&](std::vector<std::string> ids) {
                if (ends(*one)) throw Stopped();
                return act(std::move(ids));
            };
            // A job that was told to stop stays where it is until its worker has heard of it.
            const bool stays = one->order.action == BulkAction::stop;
            co_await actions.for_each(
                filter_of(one->order.search, queue, left), stays, step,
                [&](const ActionProgress& now) {
                    one->progress = {before.looked_at + now.looked_at, before.total + now.total,
                                     before.matched + now.matched, before.done + now.done,
                                     before.refused + now.refused};
                    if (ends(*one)) throw Stopped();
                });
        }
    }

    asio::awaitable<void> walk_index(std::shared_ptr<Running> one, JobActions& actions) {
        const auto act = bulk_action(actions, one->order, false);
        std::string cursor;
        for (;;) {
            if (ends(*one)) throw Stopped();
            auto ids = co_await source(one->order.search, cursor);
            ActionProgress& progress = one->progress;
            progress.looked_at += ids.size();
            if (one->order.most > 0)
                ids.resize(std::min<std::size_t>(ids.size(), one->order.most - progress.matched));
            if (ends(*one)) throw Stopped();
            progress.matched += ids.size();
            progress.total = std::max(progress.total, progress.looked_at);
            if (!ids.empty())
                for (const auto& result : co_await act(std::move(ids)))
                    ++(result.code == ActionResult::Code::done ? progress.done : progress.refused);
            if (cursor.empty()) co_return;
            if (one->order.most > 0 && progress.matched >= one->order.most) co_return;
        }
    }

    asio::awaitable<void> carry_out(std::shared_ptr<Running> one) {
        JobActions actions(redis, one->order.by);
        std::string_view state = "done";
        try {
            if (one->order.search.by_place())
                co_await walk_places(one, actions);
            else
                co_await walk_index(one, actions);
        } catch (const Stopped&) {
            state = one->canceled ? "canceled" : "interrupted";
        } catch (const Error& error) {
            state = "failed";
            one->error = error.retryable() ? "Redis was not available" : error.message();
        }
        one->over = true;
        running.erase(one->id);
        log.info("Operation ended", "id", one->id, "action", to_string(one->order.action), "state",
                 state, "done", one->progress.done, "refused", one->progress.refused);
        // Without this it is shown as interrupted once its lease has run out.
        for (int attempt = 0; attempt < 30; ++attempt) {
            bool noted = true;
            try {
                co_await note(*one, "end", state);
            } catch (const Error&) {
                noted = false;
            }
            if (noted || stopping) co_return;
            co_await pause.wait(1s);
        }
    }
};

Operations::Operations(RedisClient& redis, Logger& log, IdSource source)
    : impl_(std::make_unique<Impl>(redis, log, std::move(source))) {}
Operations::~Operations() = default;

void Operations::check(const JobSearch& search) const {
    if (to_json(search).empty()) throw Error(Errc::usage, "filter: must not be empty");
    if (!search.status.empty() && std::ranges::find(statuses, search.status) == statuses.end())
        throw Error(Errc::usage,
                    fmt::format("filter.status: must be one of {}", fmt::join(statuses, ", ")));
    if (search.by_place() || impl_->source) return;
    throw Error(Errc::usage,
                "filter: needs the index of jobs, which this server is without; with one of the "
                "statuses queued, started, finished, failed, deferred, scheduled and canceled, and "
                "beside it a queue, func or error, it does not");
}

asio::awaitable<BulkPreview> Operations::preview(BulkOrder order) {
    BulkPreview result;
    const auto keep = [&](std::vector<std::string>& ids) {
        for (auto& id : ids)
            if (result.sample.size() < sample_size) result.sample.push_back(std::move(id));
    };
    if (!order.search.by_place()) {
        std::string cursor;
        std::size_t pages = 0;
        do {
            auto ids = co_await impl_->source(order.search, cursor);
            result.looked_at += ids.size();
            result.matched += ids.size();
            keep(ids);
        } while (!cursor.empty() && ++pages < most_pages && result.looked_at < most_looked_at);
        result.exact = cursor.empty();
    } else {
        // The place of failed jobs holds others, too; elsewhere its size will do.
        const bool all = order.search.func.empty() && order.search.error.empty() &&
                         (order.search.whole_place || order.search.status != status::failed);
        JobActions actions(impl_->redis);
        for (const auto& queue : co_await impl_->queues_of(order.search)) {
            JobFilter filter = filter_of(order.search, queue, all ? sample_size : 0);
            filter.most_looked_at = most_looked_at - std::min(most_looked_at, result.looked_at);
            if (filter.most_looked_at == 0) {
                result.exact = false;
                break;
            }
            const JobActions::Action look =
                [&](std::vector<std::string> ids) -> asio::awaitable<std::vector<ActionResult>> {
                if (!order.search.within.empty())
                    ids = co_await actions.of_queues(std::move(ids), order.search.within);
                keep(ids);
                co_return std::vector<ActionResult>();
            };
            const auto progress = co_await actions.for_each(std::move(filter), true, look);
            result.matched += all ? progress.total : progress.matched;
            result.looked_at += progress.looked_at;
            if (!all && progress.looked_at < progress.total) result.exact = false;
        }
    }
    if (order.most > 0 && result.matched > order.most) result.matched = order.most;
    co_return result;
}

asio::awaitable<std::optional<std::string>> Operations::start(BulkOrder order) {
    check(order.search);
    if (impl_->stopping || impl_->running.size() >= most_at_once) co_return std::nullopt;
    const auto one = std::make_shared<Impl::Running>();
    one->id = new_job_id();
    one->order = std::move(order);
    impl_->running.emplace(one->id, one);
    std::exception_ptr failure;
    try {
        co_await impl_->note(*one, "begin", "running");
    } catch (...) {
        failure = std::current_exception();
    }
    if (failure) {
        impl_->running.erase(one->id);
        std::rethrow_exception(failure);
    }
    impl_->log.info("Operation started", "id", one->id, "action", to_string(one->order.action),
                    "by", one->order.by);
    impl_->tasks.spawn("operation", impl_->carry_out(one));
    impl_->tasks.spawn("operation progress", impl_->keep_known(one));
    co_return one->id;
}

asio::awaitable<std::optional<Operation>> Operations::find(std::string id) {
    Pipeline pipeline;
    pipeline.add("TIME").add("HGETALL", keys::operation(id));
    const auto replies = co_await impl_->redis.run(std::move(pipeline));
    co_return operation_of(std::move(id), replies.at(1), microseconds_of(replies.at(0)));
}

asio::awaitable<std::vector<Operation>> Operations::list(std::size_t limit) {
    const Reply ids = co_await impl_->redis.command("ZREVRANGE", keys::operations, 0, limit - 1);
    std::vector<Operation> result;
    Pipeline pipeline;
    pipeline.add("TIME");
    for (const auto& id : ids.as_array())
        pipeline.add("HGETALL", keys::operation(id.text));
    const auto replies = co_await impl_->redis.run(std::move(pipeline));
    for (std::size_t i = 0; i < ids.elements.size(); ++i)
        if (auto operation = operation_of(ids.elements[i].text, replies.at(i + 1),
                                          microseconds_of(replies.at(0))))
            result.push_back(std::move(*operation));
    co_return result;
}

asio::awaitable<std::optional<std::string>> Operations::cancel(std::string id, std::string by) {
    const Reply reply = co_await impl_->redis.eval(lua::cancel_operation, {keys::operation(id)},
                                                   std::vector<std::string>{std::move(by)});
    const auto code = reply.as_array().at(0).as_integer();
    if (code == 0) co_return std::nullopt;
    if (const auto here = impl_->running.find(id); code == 1 && here != impl_->running.end())
        here->second->canceled = true;
    co_return reply.as_array().at(1).as_text();
}

void Operations::request_stop() {
    impl_->stopping = true;
    impl_->pause.notify();
}

asio::awaitable<void> Operations::join() {
    request_stop();
    co_await impl_->tasks.join();
}

}  // namespace rqxx
