#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <rqxx/json.hpp>
#include <rqxx/monitor.hpp>

#include "base/task_group.hpp"
#include "cli/commands.hpp"

namespace rqxx::cli {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

void print_queues(const std::vector<QueueStats>& queues) {
    std::vector<std::string> headings{"QUEUE",  "QUEUED",   "STARTED",   "FINISHED",
                                      "FAILED", "DEFERRED", "SCHEDULED", "CANCELED"};
    const bool ruled = std::ranges::any_of(
        queues, [](const QueueStats& one) { return one.paused || one.waiting_under_limits > 0; });
    if (ruled) headings.insert(headings.end(), {"LIMITED", "STATE"});
    Table table(std::move(headings));
    const auto row = [&](std::string name, const QueueStats& stats) {
        std::vector<std::string> cells{std::move(name)};
        for (const auto count : {stats.queued, stats.started, stats.finished, stats.failed,
                                 stats.deferred, stats.scheduled, stats.canceled})
            cells.push_back(std::to_string(count));
        if (ruled) {
            cells.push_back(std::to_string(stats.waiting_under_limits));
            cells.emplace_back(stats.paused ? "paused" : "");
        }
        table.add(std::move(cells));
    };
    QueueStats total;
    for (const auto& queue : queues) {
        row(printable(queue.queue_name), queue);
        total += queue;
    }
    if (queues.size() > 1) row("total", total);
    if (queues.empty())
        fmt::print("No queues yet. The first job makes one: rqxx enqueue FUNC [ARG...]\n");
    else
        table.print(stdout);
}

void print_rate_limits(const std::vector<RateLimitInfo>& limits) {
    if (limits.empty()) return;
    Table table({"RATE LIMIT", "CONCURRENCY", "ALLOWED", "WAITING"});
    for (const auto& limit : limits)
        table.add({printable(limit.key), std::to_string(limit.concurrency),
                   std::to_string(limit.allowed), std::to_string(limit.rate_limited)});
    table.print(stdout);
    fmt::print("\n");
}

void print_workers(const std::vector<WorkerInfo>& workers) {
    if (workers.empty()) {
        fmt::print("No workers. Start one: rqxx worker\n");
        return;
    }
    Table table({"WORKER", "STATE", "QUEUES", "RUNNING", "DONE", "FAILED", "HOST", "PID"});
    for (const auto& worker : workers) {
        table.add({printable(worker.name), printable(worker.state),
                   printable(fmt::format("{}", fmt::join(worker.queues, ","))),
                   worker.jobs.empty() ? printable(worker.current_job)
                                       : std::to_string(worker.jobs.size()),
                   std::to_string(worker.successful_job_count),
                   std::to_string(worker.failed_job_count), printable(worker.hostname),
                   std::to_string(worker.pid)});
    }
    table.print(stdout);
}

json::object info_json(const std::vector<QueueStats>& queues,
                       const std::vector<RateLimitInfo>& limits,
                       const std::vector<WorkerInfo>& workers) {
    json::array queue_list, limit_list, worker_list;
    QueueStats total;
    for (const auto& queue : queues) {
        total += queue;
        queue_list.push_back(to_json_with_rules(queue));
    }
    for (const auto& limit : limits)
        limit_list.push_back(to_json(limit));
    for (const auto& worker : workers)
        worker_list.push_back(to_json(worker));
    json::object totals = to_json(total);
    totals.erase("queue_name");
    return {{"queues", std::move(queue_list)},
            {"totals", std::move(totals)},
            {"rate_limits", std::move(limit_list)},
            {"workers", std::move(worker_list)}};
}

void print_field(std::string_view name, std::string_view value) {
    if (!value.empty()) fmt::print("{:<12} {}\n", name, printable(value));
}

std::string text_of(const json::value& value) {
    if (value.is_null()) return {};
    return value.is_string() ? std::string(value.as_string()) : to_text(value);
}

int status_color(std::string_view status) {
    if (status == status::finished) return 32;
    if (status == status::failed || status == status::stopped) return 31;
    if (status == status::started) return 36;
    return 33;
}

void print_job(const JobInfo& info) {
    const json::object job = to_json(info);
    fmt::print("{}  {}\n", colored(printable(info.job.id), 1),
               colored(printable(info.job.status), status_color(info.job.status)));
    for (const std::string_view name :
         {"func_name", "description", "queue", "args", "kwargs", "created_at", "enqueued_at",
          "started_at", "ended_at", "timeout", "retry", "result_ttl", "failure_ttl", "worker_name",
          "rate_limit"})
        print_field(name, text_of(job.at(name)));
    for (const std::string_view name : {"queued_for", "duration"}) {
        if (!job.at(name).is_null())
            print_field(name, format_seconds(Seconds(job.at(name).to_number<double>())) + "s");
    }
    if (info.job.status == status::finished) print_field("result", to_text(job.at("result")));
    for (const auto& problem : info.problems)
        print_field("problem", problem.describe());
    for (const auto& execution : info.executions) {
        fmt::print("  execution  {}  {}  {}  {}\n", printable(execution.id),
                   printable(execution.outcome), printable(execution.worker),
                   execution.started_at ? format_utc(*execution.started_at) : "");
        print_field("  stop", execution.stop);
        if (!execution.cause.empty()) print_field("  cause", execution.cause);
        if (execution.max_rss_kb && execution.cpu_seconds)
            print_field("  used", fmt::format("{:.1f} MB at most, {:.2f}s of CPU",
                                              static_cast<double>(*execution.max_rss_kb) / 1024,
                                              *execution.cpu_seconds));
        if (!execution.error.empty()) fmt::print("{}\n", printable(execution.error));
    }
    for (const auto& hook : info.webhooks) {
        fmt::print(
            "  webhook  {}  {}  {} {}  attempt {}  {}  {}\n", printable(hook.job_status),
            printable(hook.outcome), printable(hook.method), printable(hook.url), hook.attempt,
            hook.at ? format_utc(*hook.at) : "",
            hook.error.empty() && hook.code ? std::to_string(*hook.code) : printable(hook.error));
    }
}

}  // namespace

int info(const CommonOptions& common, const InfoOptions& options) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        Monitor monitor(redis);
        Event pause(redis.executor());
        for (;;) {
            const auto queues = co_await monitor.all_queue_stats();
            const auto limits = co_await monitor.rate_limits();
            const auto workers = co_await monitor.workers();
            if (options.json) {
                fmt::print("{}\n", to_text(info_json(queues, limits, workers)));
            } else {
                if (options.interval > 0 && ::isatty(STDOUT_FILENO)) fmt::print("\x1b[H\x1b[2J");
                print_queues(queues);
                fmt::print("\n");
                print_rate_limits(limits);
                print_workers(workers);
            }
            std::fflush(stdout);
            if (options.interval <= 0) co_return 0;
            co_await pause.wait(
                std::chrono::duration_cast<std::chrono::milliseconds>(Seconds(options.interval)));
        }
    });
}

int show_jobs(const CommonOptions& common, const JobShowOptions& options) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        Monitor monitor(redis);
        json::array found;
        int code = 0;
        for (const auto& id : options.ids) {
            const auto job = co_await monitor.job_info(id);
            if (!job) {
                fmt::print(stderr, "rqxx: job {} was not found\n", printable(id));
                code = 1;
            } else if (options.json) {
                found.push_back(to_json(*job));
            } else {
                print_job(*job);
            }
        }
        if (options.json) fmt::print("{}\n", to_text(found));
        co_return code;
    });
}

int explain_job(const CommonOptions& common, const JobWhyOptions& options) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        Monitor monitor(redis);
        const auto report = co_await monitor.why(options.id);
        if (!report) {
            fmt::print(stderr, "rqxx: job {} was not found\n", printable(options.id));
            co_return 1;
        }
        if (options.json) {
            fmt::print("{}\n", to_text(to_json(*report)));
            co_return 0;
        }
        fmt::print("{}  {}\n", colored(printable(report->job_id), 1),
                   colored(printable(report->status), status_color(report->status)));
        for (const auto& reason : report->reasons)
            fmt::print("  {}\n", printable(reason.text));
        if (report->estimated_start)
            fmt::print("  It starts at about {}\n", format_utc(*report->estimated_start));
        co_return 0;
    });
}

int list_queues(const CommonOptions& common, const QueueListOptions& options) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        Monitor monitor(redis);
        const auto queues = co_await monitor.all_queue_stats();
        if (options.json) {
            json::array list;
            for (const auto& queue : queues)
                list.push_back(to_json_with_rules(queue));
            fmt::print("{}\n", to_text(list));
        } else {
            print_queues(queues);
        }
        co_return 0;
    });
}

}  // namespace rqxx::cli
