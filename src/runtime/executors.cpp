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

void check(const WorkerOptions& options) {
    if (!options.python && any_in(options, FunctionRule::Place::python))
        throw Error(Errc::usage, "functions: one is to run in Python, and there is no interpreter");
}

}  // namespace

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

Executor& Executors::executor_of(const Call& call, const FunctionRule* rule) const {
    if (commands_ != nullptr && commands_->runs(call)) return *commands_;
    if (http_ != nullptr && http_->runs(call)) return *http_;
    switch (rule == nullptr ? FunctionRule::Place::any : rule->place) {
        case FunctionRule::Place::thread:
            return *threads_;
        case FunctionRule::Place::process:
            return *processes_;
        case FunctionRule::Place::python:
            return *python_;
        case FunctionRule::Place::any:
            break;
    }
    const bool registered = call.instance.is_none() && handlers_.find(call.func_name) != nullptr;
    if (!registered && python_ != nullptr) return *python_;
    return options_.native == NativeIsolation::process ? *processes_ : *threads_;
}

void Executors::start(std::shared_ptr<Execution> execution) {
    const auto found = std::ranges::find_if(options_.functions, [&](const FunctionRule& rule) {
        return matches_wildcard(rule.function, execution->call.func_name);
    });
    const FunctionRule* rule = found == options_.functions.end() ? nullptr : &*found;
    execution->limits = options_.limits;
    if (rule != nullptr && rule->limits.max_rss) execution->limits.max_rss = rule->limits.max_rss;
    if (rule != nullptr && rule->limits.max_cpu) execution->limits.max_cpu = rule->limits.max_cpu;
    execution->output.set_limit(options_.max_output);
    Executor& chosen = executor_of(execution->call, rule);
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
