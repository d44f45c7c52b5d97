#include "runtime/executors.hpp"

#include <algorithm>

#include "base/wildcard.hpp"
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

void check(const WorkerOptions& options) {
    if (!options.python && any_in(options, FunctionRule::Place::python))
        throw Error(Errc::usage, "functions: one is to run in Python, and there is no interpreter");
}

}  // namespace

Way way_of(const Call& call, const WorkerOptions& options, const HandlerRegistry& handlers) {
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
    const bool registered = call.instance.is_none() && handlers.find(call.func_name) != nullptr;
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
      watch_(std::make_shared<ProcessWatch>(redis.executor())) {
    check(options);
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

void Executors::start(std::shared_ptr<Execution> execution) {
    const Way way = way_of(execution->call, options_, handlers_);
    execution->limits = way.limits;
    execution->output.set_limit(options_.max_output);
    Executor& chosen = executor_of(way.place);
    execution->runs_in = &chosen;
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
