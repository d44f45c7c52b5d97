#include "runtime/executors.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/wildcard.hpp"
#include "runtime/aggregation.hpp"
#include "runtime/command_executor.hpp"
#include "runtime/http_executor.hpp"
#include "runtime/native_zygote.hpp"
#include "runtime/python_zygote.hpp"
#include "runtime/slot_executor.hpp"
#include "runtime/thread_executor.hpp"

namespace rqxx::runtime {

namespace {

bool any_in(const WorkerOptions& options, FunctionRule::Place place) {
    return std::ranges::any_of(options.functions,
                               [&](const FunctionRule& rule) { return rule.place == place; });
}

/// Methods never go out: nobody else has the object. A call that could not be read has no name, and
/// Python may know more of it.
template <class T>
bool any_fits(const std::vector<T>& functions, const Call& call) {
    return !call.func_name.empty() && call.instance.is_none() &&
           std::ranges::any_of(functions, [&](const T& one) {
               return matches_wildcard(one.function, call.func_name);
           });
}

template <class T>
std::optional<T> limit(const std::optional<T>& own, const std::optional<T>& general) {
    if (!own) return general;
    return *own == T{} ? std::nullopt : own;
}

void check_aggregated(const FunctionRule& rule, const WorkerOptions& options,
                      const HandlerRegistry& handlers) {
    const auto refuse = [&](const char* why) {
        throw Error(Errc::usage, fmt::format("{}: aggregate: {}", rule.function, why));
    };
    check_aggregation(*rule.aggregate, rule.function + ": aggregate");
    if (rule.place == FunctionRule::Place::command || rule.place == FunctionRule::Place::http)
        refuse("a command or server takes one job at a time");
    if (options.python && !options.python->serializer.empty())
        refuse("does not go with a serializer of the application's own");
    if (rule.place != FunctionRule::Place::python && handlers.find(rule.function) != nullptr)
        refuse("its native handler takes one job at a time");
    if (!options.python && !handlers.any_aggregated())
        refuse("needs an interpreter: no native handler takes a list of jobs");
}

void check(const WorkerOptions& options, const HandlerRegistry& handlers) {
    if (!options.python && any_in(options, FunctionRule::Place::python))
        throw Error(Errc::usage, "functions: one is to run in Python, and there is no interpreter");
    for (const auto& rule : options.functions) {
        if (rule.aggregate) check_aggregated(rule, options, handlers);
    }
}

/// For functions in Python, who calls them is told to give a list; native handlers know themselves.
std::optional<Aggregation> aggregate(const Way& way, const Call& call,
                                     const HandlerRegistry& handlers) {
    if (!call.instance.is_none()) return std::nullopt;
    const auto said = way.rule != nullptr ? way.rule->aggregate : std::nullopt;
    if (way.place == FunctionRule::Place::python)
        return call.func_name.empty() ? std::nullopt : said;
    if (way.place != FunctionRule::Place::thread && way.place != FunctionRule::Place::process)
        return std::nullopt;
    const auto* registered = handlers.find_aggregated(call.func_name);
    if (registered == nullptr) return std::nullopt;
    return said ? said : registered->most;
}

/// What a process writes while it runs a call is kept for each of its jobs.
std::size_t share_of_output(std::size_t most, std::size_t jobs) {
    constexpr std::size_t enough = std::size_t{16} << 10;
    return std::min(most, std::max(most / jobs, enough));
}

Way place_of(const Call& call, const WorkerOptions& options, const HandlerRegistry& handlers) {
    using enum FunctionRule::Place;
    const auto found = std::ranges::find_if(options.functions, [&](const FunctionRule& rule) {
        return matches_wildcard(rule.function, call.func_name);
    });
    Way way{any, options.limits};
    if (found != options.functions.end()) {
        way.rule = &*found;
        way.limits.max_rss = limit(found->limits.max_rss, options.limits.max_rss);
        way.limits.max_cpu = limit(found->limits.max_cpu, options.limits.max_cpu);
        if (!call.func_name.empty()) way.place = found->place;
    }
    if (way.place == command && !any_fits(options.commands, call)) way.place = any;
    if (way.place == http && !any_fits(options.http, call)) way.place = any;
    if (way.place != any) return way;
    const bool registered =
        call.instance.is_none() && (handlers.find(call.func_name) != nullptr ||
                                    handlers.find_aggregated(call.func_name) != nullptr);
    if (any_fits(options.commands, call))
        way.place = command;
    else if (any_fits(options.http, call))
        way.place = http;
    else if (!registered && options.python)
        way.place = python;
    else
        way.place = options.native == NativeIsolation::process ? process : thread;
    return way;
}

}  // namespace

Way way_of(const Call& call, const WorkerOptions& options, const HandlerRegistry& handlers) {
    Way way = place_of(call, options, handlers);
    way.aggregate = aggregate(way, call, handlers);
    return way;
}

template <class T, class... Args>
T* Executors::add(Args&&... args) {
    auto one = std::make_unique<T>(std::forward<Args>(args)...);
    T* added = one.get();
    all_.push_back(std::move(one));
    return added;
}

Executors::Executors(RedisClient& redis, const HandlerRegistry& handlers,
                     const WorkerOptions& options, const std::string& worker, Logger& log,
                     Events events)
    : handlers_(handlers),
      options_(options),
      aggregate_(handlers.any_aggregated() ||
                 std::ranges::any_of(options.functions,
                                     [](const auto& rule) { return rule.aggregate.has_value(); })),
      watch_(std::make_shared<ProcessWatch>(redis.executor())) {
    check(options, handlers);
    const auto executor = redis.executor();
    const bool in_processes =
        options.native == NativeIsolation::process || any_in(options, FunctionRule::Place::process);
    ProcessTools tools{.worker = worker,
                       .recycling = options.recycling,
                       .max_output = options.max_output,
                       .forward_output = options.forward_output,
                       .guardian = nullptr,
                       .watch = watch_};
    if (in_processes || options.python || !options.commands.empty())
        tools.guardian = std::make_shared<Guardian>();
    threads_ = add<ThreadExecutor>(executor, handlers, options.callbacks, log, events);
    if (in_processes)
        processes_ = add<SlotExecutor>(executor, native_zygote(handlers, options.callbacks, log),
                                       tools, log, events);
    if (!options.commands.empty())
        commands_ =
            add<CommandExecutor>(executor, options.commands, options.callbacks, tools, log, events);
    if (!options.http.empty())
        http_ = add<HttpExecutor>(executor, options.http, options.concurrency, options.callbacks,
                                  log, events);
    if (options.python)
        python_ = add<SlotExecutor>(executor, python_zygote(*options.python, redis.options()),
                                    tools, log, events);
}

Executors::~Executors() = default;

boost::asio::awaitable<void> Executors::prepare() {
    for (const auto& one : all_)
        co_await one->prepare();
}

bool Executors::available() const {
    return std::ranges::all_of(all_, [](const auto& one) { return one->available(); });
}

void Executors::close() {
    watch_->close();
    for (const auto& one : all_)
        one->close();
}

Executor& Executors::executor_of(FunctionRule::Place place) const {
    switch (place) {
        case FunctionRule::Place::process:
            return *processes_;
        case FunctionRule::Place::python:
            return *python_;
        case FunctionRule::Place::command:
            return *commands_;
        case FunctionRule::Place::http:
            return *http_;
        case FunctionRule::Place::any:
        case FunctionRule::Place::thread:
            break;
    }
    return *threads_;
}

std::string_view Executors::name_of(const Execution& execution) const noexcept {
    const Executor* one = execution.runs_in;
    if (one == nullptr) return {};
    if (one == processes_) return "process";
    if (one == python_) return "python";
    if (one == commands_) return "command";
    if (one == http_) return "http";
    return "thread";
}

std::optional<Aggregation> Executors::aggregation_of(const Call& call) const {
    return way_of(call, options_, handlers_).aggregate;
}

void Executors::start(std::shared_ptr<Execution> execution) {
    const Way way = way_of(execution->call, options_, handlers_);
    Executor& chosen = executor_of(way.place);
    const auto jobs = jobs_of_call(execution);
    for (const auto& job : jobs) {
        job->limits = way.limits;
        job->output.set_limit(share_of_output(options_.max_output, jobs.size()));
        job->runs_in = &chosen;
    }
    chosen.start(std::move(execution));
}

void Executors::interrupt(const std::shared_ptr<Execution>& execution, StopReason reason) {
    if (execution->runs_in != nullptr) execution->runs_in->interrupt(execution, reason);
}

bool Executors::kill(const std::shared_ptr<Execution>& execution) {
    return execution->runs_in != nullptr && execution->runs_in->kill(execution);
}

void Executors::abandon(const std::shared_ptr<Execution>& execution) {
    if (execution->runs_in != nullptr) execution->runs_in->abandon(execution);
}

}  // namespace rqxx::runtime
