#include <fmt/format.h>
#include <unistd.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <rqxx/actions.hpp>
#include <rqxx/json.hpp>
#include <rqxx/monitor.hpp>
#include <rqxx/queue.hpp>

#include "base/task_group.hpp"
#include "cli/commands.hpp"

namespace rqxx::cli {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

/// How an action is told of: "canceled", "cannot be …".
struct Wording {
    std::string_view action;      ///< As the audit log calls it.
    std::string_view done;        ///< "canceled"
    std::string_view dry;         ///< "would be canceled"
    std::string_view impossible;  ///< "cannot be canceled"
};

constexpr Wording canceling{"job.cancel", "canceled", "would be canceled", "cannot be canceled"};
constexpr Wording deleting{"job.delete", "deleted", "would be deleted", "cannot be deleted"};
constexpr Wording requeueing{"job.requeue", "requeued", "would be requeued", "cannot be requeued"};

std::string_view word(ActionResult::Code code) {
    switch (code) {
        case ActionResult::Code::no_such_job:
            return "no such job";
        case ActionResult::Code::done:
            return "done";
        case ActionResult::Code::refused:
            return "refused";
    }
    return "";
}

std::string dependents_note(const ActionResult& result, const JobActionOptions& options) {
    const std::string jobs =
        fmt::format("{} dependent{}", result.dependents, result.dependents == 1 ? "" : "s");
    if (options.dependents == "cascade") return ", with " + jobs;
    if (options.dependents == "enqueue") return ", " + jobs + " released";
    return ", " + jobs + " left deferred (see --dependents)";
}

/// One line per job; what could not be done goes to stderr. The exit code.
int report(const std::vector<ActionResult>& results, const Wording& wording,
           const JobActionOptions& options) {
    int code = 0;
    json::array list;
    for (const auto& result : results) {
        if (result.code != ActionResult::Code::done) code = 1;
        if (options.json) {
            list.push_back({{"id", result.job_id},
                            {"outcome", word(result.code)},
                            {"status_before", result.status},
                            {"dependents", result.dependents}});
            continue;
        }
        switch (result.code) {
            case ActionResult::Code::no_such_job:
                fmt::print(stderr, "rqxx: there is no job {}\n", printable(result.job_id));
                break;
            case ActionResult::Code::refused:
                fmt::print(stderr, "rqxx: job {} {}: it is {}\n", result.job_id, wording.impossible,
                           printable(result.status));
                break;
            case ActionResult::Code::done:
                fmt::print("{} {}", result.job_id, options.dry_run ? wording.dry : wording.done);
                if (result.dependents > 0) fmt::print("{}", dependents_note(result, options));
                fmt::print("\n");
        }
    }
    if (options.json) fmt::print("{}\n", to_text(list));
    return code;
}

/// Lines of progress on a terminal, at most ten a second.
class ProgressLine {
public:
    void operator()(const ActionProgress& progress) {
        if (!terminal_) return;
        const auto now = std::chrono::steady_clock::now();
        if (now < next_ && progress.looked_at < progress.total) return;
        next_ = now + 100ms;
        fmt::print(stderr, "\r\x1b[K{} of {} looked at, {} done", progress.looked_at,
                   progress.total, progress.done);
    }
    void end() const {
        if (terminal_) fmt::print(stderr, "\r\x1b[K");
    }

private:
    bool terminal_ = ::isatty(STDERR_FILENO) == 1;
    std::chrono::steady_clock::time_point next_{};
};

int report(const ActionProgress& progress, const Wording& wording, bool dry_run, bool as_json) {
    if (as_json) {
        fmt::print("{}\n", to_text(json::object{{"looked_at", progress.looked_at},
                                                {"matched", progress.matched},
                                                {"done", progress.done},
                                                {"refused", progress.refused},
                                                {"dry_run", dry_run}}));
    } else {
        fmt::print("{} {} {}", progress.done, progress.done == 1 ? "job" : "jobs",
                   dry_run ? wording.dry : wording.done);
        if (progress.refused > 0)
            fmt::print(", {} could not be: their state had changed", progress.refused);
        fmt::print("\n");
    }
    return 0;
}

/// What was asked for, and how it went, for the audit log.
asio::awaitable<void> note(RedisClient& redis, const Wording& wording, const JobFilter& filter,
                           const ActionProgress& progress) {
    json::object details{
        {"status", filter.status}, {"done", progress.done}, {"refused", progress.refused}};
    if (!filter.func.empty()) details["func"] = filter.func;
    if (!filter.error.empty()) details["error"] = filter.error;
    return note_action(redis, std::string(wording.action), "queue " + filter.queue,
                       to_text(details));
}

asio::awaitable<void> note(RedisClient& redis, const Wording& wording,
                           const std::vector<ActionResult>& results) {
    std::string ids;
    for (const auto& result : results)
        if (result.code == ActionResult::Code::done)
            ids += (ids.empty() ? "" : " ") + result.job_id;
    if (!ids.empty()) co_await note_action(redis, std::string(wording.action), ids);
}

asio::awaitable<int> act_on_filter(RedisClient& redis, JobActions& actions, JobFilter filter,
                                   bool dry_run, bool as_json, Wording wording,
                                   JobActions::Action action) {
    ProgressLine line;
    const auto progress = co_await actions.for_each(filter, dry_run, std::move(action),
                                                    [&](const ActionProgress& now) { line(now); });
    line.end();
    if (!dry_run) co_await note(redis, wording, filter, progress);
    co_return report(progress, wording, dry_run, as_json);
}

/// Either ids or a filter, and which of the two.
bool uses_filter(const JobActionOptions& options) {
    const bool any = !options.queue.empty() || !options.status.empty() || !options.func.empty() ||
                     !options.error.empty() || options.limit > 0;
    if (any && !options.ids.empty())
        throw Error(Errc::usage, "ID: give either ids or a filter (--queue and --status)");
    if (!any && options.ids.empty())
        throw Error(Errc::usage, "ID: give ids, or a filter (--queue and --status)");
    if (any && options.queue.empty()) throw Error(Errc::usage, "--queue: a filter needs the queue");
    if (any && options.status.empty())
        throw Error(Errc::usage, "--status: a filter needs the status of the jobs");
    return any;
}

int act(const CommonOptions& common, const JobActionOptions& options, Wording wording,
        const std::function<JobActions::Action(JobActions&)>& make_action) {
    const bool filtered = uses_filter(options);
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        JobActions actions(redis, command_line_user());
        const auto action = make_action(actions);
        if (filtered)
            co_return co_await act_on_filter(
                redis, actions,
                {options.queue, options.status, options.func, options.error, options.limit},
                options.dry_run, options.json, wording, action);
        const auto results = co_await action(options.ids);
        if (!options.dry_run) co_await note(redis, wording, results);
        co_return report(results, wording, options);
    });
}

}  // namespace

int cancel_jobs(const CommonOptions& common, const JobActionOptions& options) {
    const auto dependents = parse_dependents(options.dependents).value();
    return act(common, options, canceling, [&](JobActions& actions) -> JobActions::Action {
        return [&actions, &options, dependents](std::vector<std::string> ids) {
            return actions.cancel(std::move(ids),
                                  {dependents, options.remove_from_dependencies, options.dry_run});
        };
    });
}

int delete_jobs(const CommonOptions& common, const JobActionOptions& options) {
    const auto dependents = parse_dependents(options.dependents).value();
    return act(common, options, deleting, [&](JobActions& actions) -> JobActions::Action {
        return [&actions, &options, dependents](std::vector<std::string> ids) {
            return actions.remove(std::move(ids), {dependents, options.dry_run});
        };
    });
}

int requeue_jobs(const CommonOptions& common, const JobActionOptions& options) {
    return act(common, options, requeueing, [&](JobActions& actions) -> JobActions::Action {
        return [&actions, &options](std::vector<std::string> ids) {
            return actions.requeue(std::move(ids), {options.at_front, options.dry_run});
        };
    });
}

namespace {

/// How far a request to stop a job has got.
struct Stopping {
    StopResult result;
    std::string_view state = "stopping";  ///< then "acknowledged" by its worker, "stopped"
};

void tell_state(const Stopping& stopping, const JobActionOptions& options) {
    if (!options.json)
        fmt::print(stderr, "{} {}\n", printable(stopping.result.job_id), stopping.state);
}

/// The command has no answer: the job's status tells.
asio::awaitable<void> wait_until_stopped(RedisClient& redis, Stopping& stopping,
                                         const JobActionOptions& options) {
    Monitor monitor(redis);
    Event pause(redis.executor());
    const auto begin = std::chrono::steady_clock::now();
    std::string_view told;
    for (;;) {
        const auto job = co_await monitor.job_info(stopping.result.job_id);
        if (!job || job->job.status != status::started) {
            stopping.state = "stopped";
            if (job && job->job.status != status::stopped) {
                stopping.state = "";
                stopping.result.code = ActionResult::Code::refused;
                stopping.result.status = job->job.status;
            }
            co_return;
        }
        for (const auto& execution : job->executions)
            if (execution.stop == "acknowledged") stopping.state = "acknowledged";
        const auto waited = std::chrono::steady_clock::now() - begin;
        // Most jobs have stopped by then.
        if (waited >= 500ms && std::exchange(told, stopping.state) != stopping.state)
            tell_state(stopping, options);
        if (waited >= 15s) {
            stopping.result.code = ActionResult::Code::refused;
            stopping.result.status =
                stopping.state == "acknowledged" ? "still running after 15 s, and its worker knows"
                : stopping.result.acknowledges
                    ? "still running after 15 s, and its worker has not answered"
                    : "still running after 15 s";
            co_return;
        }
        co_await pause.wait(50ms);
    }
}

int report(const std::vector<Stopping>& stopped, const JobActionOptions& options) {
    int code = 0;
    json::array list;
    for (const auto& [result, state] : stopped) {
        const bool done = result.code == ActionResult::Code::done;
        if (!done) code = 1;
        if (options.json)
            list.push_back({{"id", result.job_id},
                            {"outcome", word(result.code)},
                            {"status_before", result.status},
                            {"dependents", result.dependents},
                            {"stop", state.empty() ? json::value(nullptr) : json::value(state)}});
        else if (result.code == ActionResult::Code::no_such_job)
            fmt::print(stderr, "rqxx: there is no job {}\n", printable(result.job_id));
        else if (!done)
            fmt::print(stderr, "rqxx: job {} cannot be stopped: it is {}\n", result.job_id,
                       printable(result.status));
        else
            fmt::print("{} {}\n", result.job_id, state);
    }
    if (options.json) fmt::print("{}\n", to_text(list));
    return code;
}

}  // namespace

int stop_jobs(const CommonOptions& common, const JobActionOptions& options) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        JobActions actions(redis, command_line_user());
        std::vector<Stopping> stopped;
        for (const auto& id : options.ids) {
            stopped.push_back({co_await actions.stop(id)});
            Stopping& stopping = stopped.back();
            if (!stopping.result.listens)
                stopping.result.status = "started, but its worker does not listen";
            if (stopping.result.code == ActionResult::Code::done)
                co_await note_action(redis, "job.stop", id);
            if (stopping.result.code != ActionResult::Code::done)
                stopping.state = "";
            else if (!options.no_wait)
                co_await wait_until_stopped(redis, stopping, options);
        }
        co_return report(stopped, options);
    });
}

int empty_queue(const CommonOptions& common, const QueueActionOptions& options) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        JobActions actions(redis, command_line_user());
        co_return co_await act_on_filter(
            redis, actions, {options.queue, "queued", options.func, {}, 0}, options.dry_run,
            options.json, deleting, [&](std::vector<std::string> ids) {
                return actions.remove(std::move(ids), {Dependents::leave, options.dry_run});
            });
    });
}

int requeue_failed(const CommonOptions& common, const QueueActionOptions& options) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        JobActions actions(redis, command_line_user());
        co_return co_await act_on_filter(
            redis, actions, {options.queue, "failed", options.func, options.error, 0},
            options.dry_run, options.json, requeueing, [&](std::vector<std::string> ids) {
                return actions.requeue(std::move(ids), {false, options.dry_run});
            });
    });
}

int compact_queue(const CommonOptions& common, const QueueActionOptions& options) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        JobActions actions(redis, command_line_user());
        const auto removed = co_await actions.compact(options.queue, options.dry_run);
        if (!options.dry_run)
            co_await note_action(redis, "queue.compact", options.queue,
                                 fmt::format("{} ids removed", removed));
        if (options.json)
            fmt::print("{}\n",
                       to_text(json::object{{"removed", removed}, {"dry_run", options.dry_run}}));
        else
            fmt::print("{} {} without a job {}\n", removed, removed == 1 ? "id" : "ids",
                       options.dry_run ? "would be removed" : "removed");
        co_return 0;
    });
}

}  // namespace rqxx::cli
