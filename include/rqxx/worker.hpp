#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <rqxx/convert.hpp>
#include <rqxx/job.hpp>
#include <rqxx/log.hpp>
#include <rqxx/queue.hpp>
#include <rqxx/redis/client.hpp>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace rqxx {

/// What a handler knows of the job it runs, and how it talks back.
///
/// Thread safety: for the handler's thread, except `stop_token`, which may be copied anywhere.
class JobContext {
public:
    virtual ~JobContext() = default;
    [[nodiscard]] virtual const Job& job() const noexcept = 0;
    [[nodiscard]] virtual const std::string& execution_id() const noexcept = 0;
    /// Requested when the time limit has passed, the job was stopped or canceled, or its lease was
    /// lost. A handler that runs for long looks at it.
    [[nodiscard]] virtual std::stop_token stop_token() const noexcept = 0;
    /// When the time limit ends; nothing for an unlimited job.
    [[nodiscard]] virtual std::optional<std::chrono::steady_clock::time_point> deadline()
        const noexcept = 0;
    /// Shown by monitors while the job runs. `fraction` is 0…1. Cheap: the newest one is sent with
    /// the next heartbeat.
    virtual void progress(double fraction, std::string text) = 0;
    /// Adds to the output that is kept of this execution, as what a program writes to its stdout.
    virtual void print(std::string_view text) = 0;
    [[nodiscard]] virtual Logger& log() noexcept = 0;
};

/// Thrown by a handler that was told to come back later, as by an answer 429.
///
/// Its job runs again after `delay` (at least a second) without using an attempt, and the limits
/// under which it ran let nothing pass until then.
class RateLimited : public std::exception {
public:
    explicit RateLimited(std::chrono::seconds delay) : delay_(delay) {}
    [[nodiscard]] std::chrono::seconds delay() const noexcept { return delay_; }
    [[nodiscard]] const char* what() const noexcept override { return "told to come back later"; }

private:
    std::chrono::seconds delay_;
};

/// Thrown by a handler that wants to be run again: RQ's "return Retry(…)".
///
/// Counts apart from the retries that the producer granted. Source: rq/worker/base.py
/// handle_job_retry (RQ 2.10).
class RetryRequest : public std::exception {
public:
    explicit RetryRequest(Retry retry) : retry_(std::move(retry)) {}
    [[nodiscard]] const Retry& retry() const noexcept { return retry_; }
    [[nodiscard]] const char* what() const noexcept override {
        return "the handler asks for a retry";
    }

private:
    Retry retry_;
};

/// Why a callback is called.
struct CallbackEvent {
    enum class Kind { success, failure, stopped };
    Kind kind = Kind::success;
    Value result;       ///< Of a success.
    std::string error;  ///< Of a failure: one line.
};

/// How many jobs of a function one call takes. See docs/aggregation.md.
struct Aggregation {
    std::size_t max_size = 1;  ///< 1…1000.
    /// How long the first job of a call waits for others, from its claim on: 0…1 h.
    std::chrono::milliseconds max_wait{0};
};

/// One of the jobs that a call of an aggregated handler is given, and its answer.
///
/// A job is answered by a result or an error of its own; a later answer replaces an earlier one.
/// What has no answer when the handler returns fails with `rqxx.NoAnswer`; where the handler
/// throws, it ends as if it had thrown that itself, and jobs that have an answer keep it. An answer
/// that comes after the time limit does not count.
///
/// Thread safety: different jobs may be answered by different threads while the handler runs.
class AggregatedCall {
public:
    /// Made by whoever runs the handler. Both outlive it.
    AggregatedCall(JobContext& context, const Call& call) : context_(&context), call_(&call) {}

    [[nodiscard]] JobContext& context() const noexcept { return *context_; }
    [[nodiscard]] const Call& call() const noexcept { return *call_; }
    /// The positional arguments, as a typed handler gets them.
    /// @throws Error `Errc::usage` where the call does not fit
    template <class... Args>
    [[nodiscard]] std::tuple<Args...> arguments() const;

    template <class T>
    void set_result(T&& result) {
        set(Convert<std::decay_t<T>>::to(std::forward<T>(result)), nullptr);
    }
    void set_result() { set({}, nullptr); }
    /// As if this job's handler had thrown it: a `RetryRequest` asks for this job alone.
    void set_error(std::exception_ptr error) { set({}, std::move(error)); }
    /// A std::runtime_error with this text.
    void set_error(const std::string& message);
    /// Answers with what `work()` returns or throws, so that one job's failure is its own.
    template <class F>
    void answer(F&& work);

    /// For whoever runs the handler.
    struct Answer {
        Value result;
        std::exception_ptr error;                  ///< Null: a success.
        std::chrono::steady_clock::time_point at;  ///< When it was given.
    };
    [[nodiscard]] const std::optional<Answer>& given() const noexcept { return answer_; }

private:
    void set(Value result, std::exception_ptr error);

    JobContext* context_;
    const Call* call_;
    std::optional<Answer> answer_;
};

/// Native functions by the names under which RQ jobs call them.
///
/// Filled before a worker runs; then read by its threads.
class HandlerRegistry {
public:
    using Handler = std::function<Value(JobContext&, const Call&)>;
    using AggregatedHandler = std::function<void(std::span<AggregatedCall>)>;

    /// The raw form: gets the decoded call, returns the result.
    void add_raw(std::string func_name, Handler handler);
    /// The typed form: `add("pkg.area", [](JobContext&, double w, double h) { return w * h; })`.
    /// Positional arguments only; a trailing std::optional parameter may be left out. The context
    /// parameter may be left out. A call that does not fit fails the job with a clear message.
    template <class F>
    void add(std::string func_name, F function);
    /// A function that runs up to `max_size` jobs in one call, and answers for each.
    /// @throws Error `Errc::usage` for a size or wait out of range
    void add_aggregated(std::string func_name, Aggregation most, AggregatedHandler handler);
    /// What runs under a name that producers give as `on_success`, `on_failure` or `on_stopped`.
    /// A success callback that throws fails the job, as in RQ; it runs before the result is stored,
    /// so that after a crash both may happen again.
    using CallbackFunction = std::function<void(JobContext&, const CallbackEvent&)>;
    void add_callback(std::string name, CallbackFunction function);
    [[nodiscard]] const Handler* find(std::string_view func_name) const noexcept;
    [[nodiscard]] const CallbackFunction* find_callback(std::string_view name) const noexcept;
    struct Aggregated {
        Aggregation most;
        AggregatedHandler handler;
    };
    [[nodiscard]] const Aggregated* find_aggregated(std::string_view func_name) const noexcept;
    [[nodiscard]] bool any_aggregated() const noexcept { return !aggregated_.empty(); }
    /// Of all functions, aggregated ones too.
    [[nodiscard]] std::vector<std::string> names() const;

private:
    void check_new(const std::string& func_name) const;

    std::map<std::string, Handler, std::less<>> handlers_;
    std::map<std::string, Aggregated, std::less<>> aggregated_;
    std::map<std::string, CallbackFunction, std::less<>> callbacks_;
};

/// What happens to a job without retries whose worker died.
enum class RecoverPolicy { requeue, fail };

/// What happens to a job whose callback is not registered: it fails, or runs without (and the log
/// says so).
enum class CallbackPolicy { require, skip };

/// In which order a worker serves its queues: as listed, one job of each in turn, shuffled for each
/// claim, or by their weights. Source of the first three: rq/worker DequeueStrategy (RQ 2.10).
enum class Strategy { strict, round_robin, random, weighted };
[[nodiscard]] Parsed<Strategy> parse_strategy(std::string_view text) noexcept;

/// A function that is a program. See docs/executors.md.
struct CommandFunction {
    std::string function;  ///< Its name; `*` stands for any text.
    /// The program and its arguments, with placeholders; of a shell, its line alone.
    std::vector<std::string> words;
    bool shell = false;
    /// What the last line of its stdout is: JSON, text, or of no interest.
    enum class Result { json, text, none };
    Result result = Result::json;
};

/// The words of a command line with quotes and backslashes as in a POSIX shell, which never sees
/// it: nothing is expanded. Source: POSIX.1-2017, Shell Command Language, 2.2.
[[nodiscard]] Parsed<std::vector<std::string>> split_command(std::string_view line);

/// What one job may use, where it runs in a process of its own or of its slot.
struct ResourceLimits {
    std::optional<std::uint64_t> max_rss;         ///< Resident bytes, with those of its children.
    std::optional<std::chrono::seconds> max_cpu;  ///< CPU time, with that of its children.
};

/// When a process that runs one job after the other is replaced by a fresh one, between jobs.
struct Recycling {
    std::uint64_t jobs = 0;               ///< After that many; 0: however many.
    std::chrono::seconds age{3600};       ///< 0: however old.
    std::uint64_t growth = 256ull << 20;  ///< Resident bytes more than at its beginning; 0: any.
};

/// Where native handlers run: in threads of the worker, or in processes of their own, whose crash
/// or excess ends nothing else.
enum class NativeIsolation { thread, process };

/// What holds for a function: where it runs, and what it may use.
struct FunctionRule {
    std::string function;  ///< Its name; `*` stands for any text.
    /// `any`: as for functions without a rule. `command` and `http`: by what the worker's options
    /// have for it there.
    enum class Place { any, thread, process, python, command, http };
    Place place = Place::any;
    ResourceLimits limits;  ///< In the place of the worker's, each by itself; 0: no limit.
    /// A call takes many jobs: of a function in Python, which then gets a list; of a native handler
    /// that was added so, in the place of its own figures.
    std::optional<Aggregation> aggregate{};
};

/// How much jobs in Python share: a process that runs one after the other, or only what had been
/// imported before.
enum class Isolation { warm, fork };

/// Where functions that are not registered run: an interpreter that has what they need.
struct PythonOptions {
    std::string interpreter = "python3";
    std::vector<std::string> path;     ///< Folders to import from, before the interpreter's own.
    std::vector<std::string> preload;  ///< Modules that every job finds imported.
    Isolation isolation = Isolation::warm;
    /// MODULE:CALLABLE, called without arguments before `preload`, once for all jobs.
    std::vector<std::string> init;
    /// Dotted name of what reads every job and writes every result; empty: pickle and JSON. With it
    /// all jobs run in Python: nobody else can tell which function they call.
    std::string serializer;
    /// Dotted names of RQ's exception handlers, called in this order before a failure is stored.
    std::vector<std::string> exception_handlers;
};

/// A function whose jobs run by a POST to a server. See docs/executors.md.
struct HttpFunction {
    std::string function;  ///< As jobs name it; `*` stands for any text.
    std::string url;       ///< http or https; `user:password@` is sent as Basic authorization.
    /// Keys of the signatures, as `parse_webhook_secrets` gives them. Empty: nothing is signed.
    std::vector<std::string> secrets{};
};

struct WorkerOptions {
    std::vector<std::string> queues{"high", "default", "low"};  ///< In priority order.
    std::string name;                                   ///< Empty: host, pid and a random part.
    std::size_t concurrency = 8;                        ///< Jobs at once, 1…1024.
    bool burst = false;                                 ///< End when the queues are empty.
    std::optional<std::uint64_t> max_jobs;              ///< End after that many.
    std::optional<std::chrono::seconds> max_idle_time;  ///< End after so long without a job.
    Strategy strategy = Strategy::strict;
    /// Jobs of a queue for those of others while all have some, with `Strategy::weighted`; 1…10000.
    /// Of queues that are not named: twice as many as of the next in order.
    std::map<std::string, std::int64_t> weights{};
    /// A job that has waited for so long is served as if its queue stood one place higher; after
    /// twice as long, two. 0: never.
    std::chrono::seconds ageing{0};
    /// How many jobs of a queue may run here at once, at most.
    std::map<std::string, std::size_t> queue_slots{};
    /// Queues whose jobs take turns, by which `KeyExpression`. Set for all workers, and stays:
    /// `Rules::share_queue`.
    std::map<std::string, std::string> fair_by{};
    CallbackPolicy callbacks = CallbackPolicy::require;
    std::chrono::seconds grace{25};             ///< For running jobs at shutdown.
    std::chrono::milliseconds heartbeat{3000};  ///< Lease renewal.
    std::chrono::milliseconds lease{10000};     ///< Without a heartbeat, jobs are recovered.
    RecoverPolicy recover = RecoverPolicy::requeue;
    /// Before registered functions and Python; the first that fits.
    std::vector<HttpFunction> http{};
    std::optional<PythonOptions> python;    ///< None: no function runs in Python.
    std::vector<CommandFunction> commands;  ///< The first that fits counts.
    std::vector<FunctionRule> functions;    ///< The first that fits; it counts before all above.
    NativeIsolation native = NativeIsolation::thread;
    ResourceLimits limits;
    Recycling recycling;
    std::size_t max_output = std::size_t{1} << 20;  ///< Kept of what a job writes; 0: not captured.
    bool forward_output = false;  ///< What is captured also goes where the worker's output goes.
    std::optional<Serializer> serializer;          ///< Empty: sniff each job.
    std::chrono::seconds default_result_ttl{500};  ///< For jobs that carry none.
    std::chrono::seconds kill_after{
        5};  ///< After its time limit, or being asked to stop, a handler
             ///< that ignores its stop token loses job and thread.
};

/// What a worker did until it ended.
struct WorkerSummary {
    std::uint64_t finished = 0, failed = 0, retried = 0, stopped = 0;
    std::uint64_t returned = 0;  ///< Put back at shutdown.
    std::uint64_t lost = 0;      ///< Results refused because the lease had been lost.
    std::uint64_t unstored = 0;  ///< Results that Redis did not take before the end.
};

/// One run of a job, as it stands in Redis by now: what metrics are made of.
struct RunRecord {
    std::string_view queue, function;
    std::string_view executor;  ///< thread, process, python, command or http.
    /// success, failed, retried, stopped, timeout, killed_oom, canceled, deleted, returned,
    /// postponed or refused.
    std::string_view outcome;
    Seconds run{};                  ///< Of the function and its callbacks.
    std::optional<Seconds> waited;  ///< In its queue, where that is known.
    Seconds to_settle{};            ///< From its end until its result stood in Redis.
};

/// Takes jobs from queues and runs them: in native handlers, by HTTP, or in Python.
///
/// One RQ worker record with N slots. Claims, completions and retries are one atomic script each,
/// fenced by the execution id. Lifetime: everything given by reference outlives it.
class Worker {
public:
    /// @throws Error `Errc::usage` for options that cannot be.
    Worker(RedisClient& redis, const HandlerRegistry& handlers, WorkerOptions options, Logger& log);
    ~Worker();
    /// Works until stopped (or, in burst mode, until the queues are empty).
    /// @throws Error `Errc::usage` when a live worker of this name exists.
    boost::asio::awaitable<WorkerSummary> run();
    /// Starts what `run` would run jobs in, such as an interpreter with its modules, and ends it.
    /// Without Redis, and instead of `run`. @throws Error `Errc::usage` when that is impossible.
    boost::asio::awaitable<void> check();
    /// First call: drain. Second call: put running jobs back at once. On the client's executor.
    void request_stop();
    /// Called after each run that began, on the client's executor. Before `run`.
    void on_run(std::function<void(const RunRecord&)> observer);
    [[nodiscard]] const std::string& name() const noexcept;
    [[nodiscard]] std::size_t running() const noexcept;
    /// How many jobs it runs at once.
    [[nodiscard]] std::size_t slots() const noexcept;
    /// When Redis last took a heartbeat of it.
    [[nodiscard]] std::chrono::steady_clock::time_point lease_renewed() const noexcept;
    /// When Redis last answered a claim or a wait.
    [[nodiscard]] std::chrono::steady_clock::time_point last_poll() const noexcept;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// ---- the typed form ----------------------------------------------------------------------------

namespace detail {

[[noreturn]] void bad_argument(std::size_t index, const std::string& reason);
[[noreturn]] void wrong_argument_count(std::size_t expected, std::size_t got);
void refuse_kwargs(const Call& call);

template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {};

template <class T>
T argument(const Call& call, std::size_t index) {
    const auto& items = call.args.items();
    if (index >= items.size()) {
        if constexpr (is_optional<T>::value)
            return std::nullopt;
        else
            wrong_argument_count(index + 1, items.size());
    }
    try {
        return Convert<T>::from(items[index]);
    } catch (const Error& error) {
        bad_argument(index, error.message());
    }
}

template <class... Args, std::size_t... I>
std::tuple<Args...> arguments(const Call& call, std::index_sequence<I...>) {
    refuse_kwargs(call);
    if (call.args.items().size() > sizeof...(Args))
        wrong_argument_count(sizeof...(Args), call.args.items().size());
    return {argument<Args>(call, I)...};
}

template <class F, class Result, bool WithContext, class... Args>
struct TypedHandler {
    F function;
    Value operator()(JobContext& context, const Call& call) const {
        return invoke(context, call, std::index_sequence_for<Args...>{});
    }
    template <std::size_t... I>
    Value invoke(JobContext& context, const Call& call, std::index_sequence<I...> indexes) const {
        auto args = arguments<Args...>(call, indexes);
        auto run = [&]() -> Result {
            if constexpr (WithContext)
                return function(context, std::move(std::get<I>(args))...);
            else
                return function(std::move(std::get<I>(args))...);
        };
        if constexpr (std::is_void_v<Result>) {
            run();
            return {};
        } else {
            return Convert<std::decay_t<Result>>::to(run());
        }
    }
};

template <class F, class Signature>
struct HandlerFor;
template <class F, class C, class R, class... A>
struct HandlerFor<F, R (C::*)(JobContext&, A...) const> {
    using type = TypedHandler<F, R, true, std::decay_t<A>...>;
};
template <class F, class C, class R, class... A>
struct HandlerFor<F, R (C::*)(A...) const> {
    using type = TypedHandler<F, R, false, std::decay_t<A>...>;
};
template <class F, class R, class... A>
struct HandlerFor<F, R (*)(JobContext&, A...)> {
    using type = TypedHandler<F, R, true, std::decay_t<A>...>;
};
template <class F, class R, class... A>
struct HandlerFor<F, R (*)(A...)> {
    using type = TypedHandler<F, R, false, std::decay_t<A>...>;
};

}  // namespace detail

template <class... Args>
std::tuple<Args...> AggregatedCall::arguments() const {
    return detail::arguments<Args...>(*call_, std::index_sequence_for<Args...>{});
}

template <class F>
void AggregatedCall::answer(F&& work) {
    try {
        if constexpr (std::is_void_v<decltype(work())>) {
            work();
            set_result();
        } else {
            set_result(work());
        }
    } catch (...) {
        set_error(std::current_exception());
    }
}

template <class F>
void HandlerRegistry::add(std::string func_name, F function) {
    if constexpr (std::is_pointer_v<F>) {
        add_raw(std::move(func_name), typename detail::HandlerFor<F, F>::type{function});
    } else {
        add_raw(
            std::move(func_name),
            typename detail::HandlerFor<F, decltype(&F::operator())>::type{std::move(function)});
    }
}

}  // namespace rqxx
