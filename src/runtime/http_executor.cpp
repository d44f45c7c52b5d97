#include "runtime/http_executor.hpp"

#include <fmt/format.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/system/system_error.hpp>
#include <map>

#include "base/wildcard.hpp"
#include "runtime/http_job.hpp"
#include "runtime/job_document.hpp"

namespace rqxx::runtime {

namespace asio = boost::asio;

namespace {

RunOutcome unsupported_callback(const std::string& name) {
    return failed_with(
        RunOutcome::Kind::failure,
        fmt::format("rqxx.UnsupportedCallback: {} would not be called: the function runs by HTTP "
                    "(--callbacks skip runs it all the same)\n",
                    name));
}

RunOutcome interrupted(const Execution& execution) {
    RunOutcome outcome = ended_by_force(execution);
    if (execution.stop_reason == StopReason::time_limit) outcome.cause = "time limit (soft)";
    return outcome;
}

/// Whether the job has ended by it, whatever the server answers at the same time.
bool decides(StopReason reason) {
    return reason == StopReason::time_limit || reason == StopReason::stopped ||
           reason == StopReason::killed;
}

}  // namespace

struct HttpExecutor::Impl {
    struct Target {
        std::string function;
        HttpUrl url;
        std::vector<std::string> secrets;
    };
    struct Run {
        std::shared_ptr<Execution> execution;
        asio::cancellation_signal cancel;
        bool abandoned = false;
    };

    Impl(asio::any_io_executor executor_, std::size_t concurrency, CallbackPolicy callbacks_,
         Logger& log_, Events events_)
        : executor(executor_),
          callbacks(callbacks_),
          log(log_),
          events(std::move(events_)),
          http(executor_, {.connections = concurrency}) {}

    asio::any_io_executor executor;
    CallbackPolicy callbacks;
    Logger& log;
    Events events;  ///< Empty once the worker is gone.
    HttpClient http;
    std::vector<Target> targets;
    std::map<const Execution*, std::shared_ptr<Run>> running;

    [[nodiscard]] const Target* find(const Call& call) const {
        // A call that could not be read has no name, and Python may know more of it.
        if (call.func_name.empty() || !call.instance.is_none()) return nullptr;
        for (const auto& target : targets)
            if (matches_wildcard(target.function, call.func_name)) return &target;
        return nullptr;
    }

    static asio::awaitable<void> run(std::shared_ptr<Impl> self, std::shared_ptr<Run> run) {
        if (!self->events.on_done) co_return;
        const Execution& execution = *run->execution;
        const Target& target = *self->find(execution.call);
        RunOutcome outcome;
        try {
            outcome = co_await self->outcome_of(execution, target);
        } catch (const Cancelled&) {
            outcome = interrupted(execution);
        } catch (const boost::system::system_error& error) {
            // Cancelled between two operations, or before the first.
            outcome = error.code() == asio::error::operation_aborted
                          ? interrupted(execution)
                          : http_job_failure(target.url, fmt::format(": {}", error.what()));
        } catch (const std::exception& error) {
            outcome = http_job_failure(target.url, fmt::format(": {}", error.what()));
        }
        if (decides(execution.stop_reason)) outcome = interrupted(execution);
        self->running.erase(&execution);
        if (run->abandoned || !self->events.on_done) co_return;
        self->events.on_done(run->execution, std::move(outcome));
    }

    asio::awaitable<RunOutcome> outcome_of(const Execution& execution, const Target& target) {
        if (const std::string callback = callback_of(execution.job); !callback.empty()) {
            if (callbacks == CallbackPolicy::require) co_return unsupported_callback(callback);
            log.warning("Callback skipped", "id", execution.job.id, "callback", callback, "reason",
                        "the function runs by HTTP");
        }
        const HttpResponse response =
            co_await http.send(http_job_request(execution, target.url, target.secrets));
        co_return http_job_outcome(response, target.url, execution.serializer);
    }

    void cancel(const Execution& execution, bool abandon) {
        const auto found = running.find(&execution);
        if (found == running.end()) return;
        const auto run = found->second;
        if (abandon) run->abandoned = true;
        run->cancel.emit(asio::cancellation_type::all);
    }
};

HttpExecutor::HttpExecutor(asio::any_io_executor executor,
                           const std::vector<HttpFunction>& functions, std::size_t concurrency,
                           CallbackPolicy callbacks, Logger& log, Events events)
    : impl_(std::make_shared<Impl>(std::move(executor), concurrency, callbacks, log,
                                   std::move(events))) {
    for (const auto& one : functions) {
        if (one.function.empty()) throw Error(Errc::usage, "http: a function needs a name");
        auto url = parse_http_url(one.url);
        if (!url)
            throw Error(Errc::usage,
                        fmt::format("http: {}: url: {}", one.function, url.error().message));
        impl_->targets.push_back({one.function, std::move(*url), one.secrets});
    }
}

HttpExecutor::~HttpExecutor() {
    close();
}

asio::awaitable<void> HttpExecutor::prepare() {
    for (const auto& target : impl_->targets)
        impl_->log.info("Function runs by HTTP", "function", target.function, "url",
                        shown_url(target.url), "signed", target.secrets.empty() ? "no" : "yes");
    co_return;
}

void HttpExecutor::close() {
    impl_->events = {};
    impl_->http.close();
    for (const auto& [execution, run] : std::map(impl_->running))
        run->cancel.emit(asio::cancellation_type::all);
}

void HttpExecutor::start(std::shared_ptr<Execution> execution) {
    auto run = std::make_shared<Impl::Run>();
    run->execution = std::move(execution);
    impl_->running[run->execution.get()] = run;
    asio::co_spawn(impl_->executor, Impl::run(impl_, run),
                   asio::bind_cancellation_slot(run->cancel.slot(), [run](std::exception_ptr) {}));
}

void HttpExecutor::interrupt(const std::shared_ptr<Execution>& execution, StopReason) {
    impl_->cancel(*execution, false);
}

void HttpExecutor::abandon(const std::shared_ptr<Execution>& execution) {
    impl_->cancel(*execution, true);
}

}  // namespace rqxx::runtime
