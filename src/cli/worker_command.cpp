#include <fmt/format.h>

#include <signal.h>
#include <charconv>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <rqxx/rules.hpp>
#include <rqxx/scheduler.hpp>
#include <utility>

#include "base/task_group.hpp"
#include "cli/commands.hpp"
#include "cli/metrics_endpoint.hpp"

namespace rqxx::cli {

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

/// Each signal is one request to stop; the set is cancelled at the end.
void listen(asio::signal_set& signals, Worker& worker, TaskGroup& scheduling) {
    signals.async_wait([&](boost::system::error_code error, int) {
        if (error) return;
        scheduling.cancel();
        worker.request_stop();
        listen(signals, worker, scheduling);
    });
}

asio::awaitable<WorkerSummary> connect_and_run(RedisClient& redis, Worker& worker,
                                               Scheduler* scheduler, TaskGroup& scheduling,
                                               WebhookDeliverer* webhooks, MetricsEndpoint* metrics,
                                               bool burst) {
    co_await redis.connect(30s);
    TaskGroup delivering(redis.executor()), serving(redis.executor());
    if (metrics != nullptr) serving.spawn("metrics", metrics->run());
    if (webhooks != nullptr) delivering.spawn("webhooks", webhooks->run());
    if (scheduler != nullptr) {
        if (burst)
            co_await scheduler->run_once();
        else
            scheduling.spawn("scheduler", scheduler->run());
    }
    WorkerSummary summary;
    std::exception_ptr failure;
    try {
        summary = co_await worker.run();
    } catch (...) {
        failure = std::current_exception();
    }
    scheduling.cancel();
    co_await scheduling.join();
    if (webhooks != nullptr && burst && !failure) {
        try {
            co_await webhooks->run_once();
        } catch (const Error&) {
            // They stay in the outbox.
        }
    }
    delivering.cancel();
    co_await delivering.join();
    if (metrics != nullptr) metrics->stop();
    co_await serving.join();
    if (failure) std::rethrow_exception(failure);
    co_return summary;
}

/// Without an interpreter, what is only for it is refused.
std::optional<PythonOptions> python_options(const WorkerCommandOptions& options) {
    if (options.python.empty()) {
        for (const auto& [flag, list] :
             {std::pair{"path", &options.path}, std::pair{"preload", &options.preload},
              std::pair{"init", &options.init},
              std::pair{"exception-handler", &options.exception_handlers}})
            if (!list->empty()) throw Error(Errc::usage, fmt::format("--{}: needs --python", flag));
        return std::nullopt;
    }
    return PythonOptions{
        .interpreter = options.python,
        .path = options.path,
        .preload = options.preload,
        .isolation = options.isolation == "fork" ? Isolation::fork : Isolation::warm,
        .init = options.init,
        .exception_handlers = options.exception_handlers};
}

/// `QUEUE:N` or `QUEUE=N`, the last separator counts.
std::pair<std::string, std::int64_t> number_of_queue(std::string_view flag, const std::string& text,
                                                     char separator) {
    const auto at = text.rfind(separator);
    std::int64_t number = 0;
    const char* end = text.data() + text.size();
    if (at == std::string::npos || at == 0 ||
        std::from_chars(text.data() + at + 1, end, number).ptr != end || number < 1)
        throw Error(Errc::usage, fmt::format("{}: \"{}\" is not QUEUE{}N with N of at least 1",
                                             flag, printable(text), separator));
    return {text.substr(0, at), number};
}

void set_shares(WorkerOptions& settings, const WorkerCommandOptions& options) {
    for (const auto& text : options.weights)
        settings.weights.insert(number_of_queue("--weights", text, ':'));
    for (const auto& text : options.queue_slots) {
        const auto [queue, slots] = number_of_queue("--queue-slots", text, '=');
        settings.queue_slots[queue] = static_cast<std::size_t>(slots);
    }
    settings.ageing = duration_option("--ageing", options.ageing);
    for (const auto& text : options.fair_by) {
        // A key has no = but in quotes: kwargs['a=b'].
        const auto at = text.substr(0, text.find('[')).find('=');
        const auto key = at == std::string::npos ? text : text.substr(at + 1);
        if (auto parsed = KeyExpression::parse(key); !parsed)
            throw Error(Errc::usage, fmt::format("--fair-by: {}", parsed.error().message));
        if (at == std::string::npos) {
            for (const auto& queue : settings.queues)
                settings.fair_by[queue] = key;
        } else {
            settings.fair_by[text.substr(0, at)] = key;
        }
    }
}

MetricsEndpoint::Options metrics_options(const WorkerCommandOptions& options) {
    MetricsEndpoint::Options settings;
    settings.host = options.metrics_host;
    settings.port = *options.metrics_port;
    settings.functions = options.metrics_functions;
    if (!options.metrics_token_file.empty())
        settings.token = token_option("--metrics-token-file", options.metrics_token_file);
    return settings;
}

/// Starts and ends what jobs would run in.
void check(asio::io_context& context, RedisClient& redis, Worker& worker) {
    std::exception_ptr failure;
    asio::co_spawn(context, worker.check(), [&](std::exception_ptr error) {
        failure = error;
        redis.close();
    });
    context.run();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace

int work(const CommonOptions& common, const WorkerCommandOptions& options,
         const ApplicationFactory& make_application) {
    // In the environment or a file it may be meant for other commands.
    if (const auto json = options.sources.find("json");
        !options.check && json != options.sources.end() && json->second == "flag")
        throw Error(Errc::usage, "--json: goes with --check");
    Logger log(log_level(common), log_format(common));
    WorkerOptions settings;
    if (!options.queue_list.empty()) settings.queues = options.queue_list;
    if (!options.queues.empty()) settings.queues = options.queues;
    for (const auto& queue : settings.queues) {
        if (queue.empty() || queue.find(',') != std::string::npos)
            throw Error(Errc::usage, "QUEUE: a name must not be empty or contain a comma");
    }
    settings.name = options.name;
    settings.concurrency = options.concurrency;
    settings.burst = options.burst;
    if (options.max_jobs > 0) settings.max_jobs = options.max_jobs;
    settings.grace = duration_option("--grace", options.grace);
    settings.recover = options.recover == "fail" ? RecoverPolicy::fail : RecoverPolicy::requeue;
    const auto strategy = parse_strategy(options.strategy);
    if (!strategy) throw Error(Errc::usage, fmt::format("--{}", strategy.error().describe()));
    settings.strategy = *strategy;
    set_shares(settings, options);
    settings.callbacks =
        options.callbacks == "skip" ? CallbackPolicy::skip : CallbackPolicy::require;
    if (!options.max_idle_time.empty())
        settings.max_idle_time = duration_option("--max-idle-time", options.max_idle_time);
    settings.kill_after = duration_option("--kill-after", options.kill_after);
    settings.python = python_options(options);
    const auto functions = configured_functions(options);
    for (const auto& one : functions) {
        settings.functions.push_back(one.rule);
        if (one.command) settings.commands.push_back(*one.command);
        if (one.http) settings.http.push_back(*one.http);
    }
    if (options.native_isolation == "process") settings.native = NativeIsolation::process;
    if (options.max_rss > 0) settings.limits.max_rss = options.max_rss;
    if (!options.max_cpu.empty())
        settings.limits.max_cpu = duration_option("--max-cpu", options.max_cpu);
    settings.recycling = {options.recycle_jobs,
                          duration_option("--recycle-age", options.recycle_age),
                          options.recycle_growth};
    settings.max_output = options.max_output;
    settings.forward_output = options.forward_output;
    if (!options.serializer.empty()) {
        if (const auto known = parse_serializer(options.serializer))
            settings.serializer = *known;
        else if (options.serializer.find('.') == std::string::npos)
            throw Error(Errc::usage, fmt::format("--{}", known.error().describe()));
        else if (!settings.python)
            throw Error(Errc::usage, "--serializer: a dotted name needs --python");
        else
            settings.python->serializer = options.serializer;
    }

    const auto webhook_settings = webhook_options(options.webhooks);

    HandlerRegistry handlers;
    const auto application = make_application({common.data_dir, options.packages, true});
    application->register_handlers(handlers);
    for (const auto& one : functions) {
        if (one.rule.aggregate && !settings.python &&
            handlers.find_aggregated(one.rule.function) == nullptr)
            throw Error(Errc::usage, one.where + ": aggregate: needs --python");
    }

    asio::io_context context(1);
    RedisOptions redis_settings = redis_options(common, "rqxx-worker");
    redis_settings.max_backoff = 1s;
    // A check needs no Redis, and so does not tell that there is none.
    RedisClient redis(context.get_executor(), redis_settings, options.check ? null_logger() : log);
    Worker worker(redis, handlers, settings, log);
    if (options.check) {
        check_programs(functions);
        check(context, redis, worker);
        auto shown = options.settings;
        for (auto& setting : shown) {
            if (setting.name == "redis-url") setting.values = {redis_settings.url.redacted()};
            if (setting.name == "queues") setting.values = settings.queues;
        }
        print_worker(shown, settings, handlers, functions, options.json);
        return 0;
    }
    Scheduler scheduler(redis, {settings.queues, {}}, log);
    WebhookDeliverer webhooks(redis, webhook_settings, log);
    std::unique_ptr<MetricsEndpoint> metrics;
    if (options.metrics_port)
        metrics = std::make_unique<MetricsEndpoint>(redis, worker, metrics_options(options), log);
    TaskGroup scheduling(context.get_executor());
    asio::signal_set signals(context, SIGINT, SIGTERM);
    listen(signals, worker, scheduling);
    WorkerSummary summary;
    std::exception_ptr failure;
    asio::co_spawn(
        context,
        connect_and_run(redis, worker, options.with_scheduler ? &scheduler : nullptr, scheduling,
                        options.webhooks.off ? nullptr : &webhooks, metrics.get(), options.burst),
        [&](std::exception_ptr error, WorkerSummary result) {
            failure = error;
            summary = result;
            redis.close();
            signals.cancel();
        });
    context.run();
    if (failure) std::rethrow_exception(failure);
    return summary.returned + summary.unstored > 0 ? 1 : 0;
}

}  // namespace rqxx::cli
