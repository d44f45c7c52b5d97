#include "runtime/executors.hpp"

#include <algorithm>

#include "runtime/command_executor.hpp"
#include "runtime/native_zygote.hpp"
#include "runtime/python_zygote.hpp"
#include "runtime/slot_executor.hpp"
#include "runtime/thread_executor.hpp"

namespace rqxx::runtime {

Executors::Executors(RedisClient& redis, const HandlerRegistry& handlers,
                     const WorkerOptions& options, const std::string& worker, Logger& log,
                     Events events)
    : handlers_(handlers),
      limits_(options.limits),
      max_output_(options.max_output),
      watch_(std::make_shared<ProcessWatch>(redis.executor())) {
    const auto executor = redis.executor();
    const bool in_processes = options.native == NativeIsolation::process;
    ProcessTools tools{.worker = worker,
                       .recycling = options.recycling,
                       .max_output = options.max_output,
                       .forward_output = options.forward_output,
                       .guardian = nullptr,
                       .watch = watch_};
    if (in_processes || options.python || !options.commands.empty())
        tools.guardian = std::make_shared<Guardian>();
    const auto add = [&]<class T>(std::unique_ptr<T> one) {
        T* added = one.get();
        all_.push_back(std::move(one));
        return added;
    };
    if (in_processes)
        native_ = add(std::make_unique<SlotExecutor>(
            executor, native_zygote(handlers, options.callbacks, log), tools, log, events));
    else
        native_ = add(
            std::make_unique<ThreadExecutor>(executor, handlers, options.callbacks, log, events));
    if (!options.commands.empty())
        commands_ = add(std::make_unique<CommandExecutor>(executor, options.commands,
                                                          options.callbacks, tools, log, events));
    if (options.python)
        python_ = add(std::make_unique<SlotExecutor>(
            executor, python_zygote(*options.python, redis.options()), tools, log, events));
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

Executor& Executors::executor_of(const Call& call) const {
    if (commands_ != nullptr && commands_->runs(call)) return *commands_;
    const bool registered = call.instance.is_none() && handlers_.find(call.func_name) != nullptr;
    return registered || python_ == nullptr ? *native_ : *python_;
}

void Executors::start(std::shared_ptr<Execution> execution) {
    execution->limits = limits_;
    execution->output.set_limit(max_output_);
    Executor& chosen = executor_of(execution->call);
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
