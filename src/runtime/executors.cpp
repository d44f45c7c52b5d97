#include "runtime/executors.hpp"

#include "runtime/http_executor.hpp"
#include "runtime/python_executor.hpp"
#include "runtime/thread_executor.hpp"

namespace rqxx::runtime {

Executors::Executors(RedisClient& redis, const HandlerRegistry& handlers,
                     const WorkerOptions& options, const std::string& worker, Logger& log,
                     Events events)
    : handlers_(handlers),
      threads_(std::make_unique<ThreadExecutor>(redis.executor(), handlers, options.callbacks, log,
                                                events)) {
    if (!options.http.empty())
        http_ = std::make_unique<HttpExecutor>(redis.executor(), options.http, options.concurrency,
                                               options.callbacks, log, events);
    if (options.python)
        python_ = std::make_unique<PythonExecutor>(redis.executor(), *options.python, worker,
                                                   redis.options(), log, std::move(events));
}

boost::asio::awaitable<void> Executors::prepare() {
    if (http_) co_await http_->prepare();
    co_await threads_->prepare();
    if (python_) co_await python_->prepare();
}

void Executors::close() {
    threads_->close();
    if (http_) http_->close();
    if (python_) python_->close();
}

Executors::~Executors() = default;

Executor* Executors::choose(const Call& call) const {
    if (http_ && http_->runs(call)) return http_.get();
    const bool native =
        !python_ || (call.instance.is_none() && handlers_.find(call.func_name) != nullptr);
    return native ? threads_.get() : python_.get();
}

void Executors::start(std::shared_ptr<Execution> execution) {
    Executor* chosen = execution->runs_in = choose(execution->call);
    chosen->start(std::move(execution));
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
