#include "http/job_metrics.hpp"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>

#include <fmt/format.h>

namespace rqxx::http {
namespace {

constexpr std::size_t most_queues = 200;
constexpr std::size_t most_functions = 200;

}  // namespace

struct JobMetrics::Impl {
    explicit Impl(const Worker& worker_, bool functions_)
        : worker(worker_),
          functions(functions_),
          runs(prometheus::BuildCounter()
                   .Name("rqxx_job_runs_total")
                   .Help("Runs that ended in this process, by what became of the job")
                   .Register(registry)),
          run_seconds(prometheus::BuildHistogram()
                          .Name("rqxx_job_run_seconds")
                          .Help("How long runs in this process took")
                          .Register(registry)),
          wait_seconds(prometheus::BuildHistogram()
                           .Name("rqxx_job_wait_seconds")
                           .Help("How long jobs that this process ran had waited in their queues")
                           .Register(registry)),
          overhead_seconds(prometheus::BuildHistogram()
                               .Name("rqxx_job_overhead_seconds")
                               .Help("From the end of a run until its result stood in Redis")
                               .Register(registry)),
          overhead(overhead_seconds.Add({{"phase", "settle"}}, job_buckets())) {}

    const Worker& worker;
    bool functions;
    prometheus::Registry registry;
    prometheus::Family<prometheus::Counter>& runs;
    prometheus::Family<prometheus::Histogram>& run_seconds;
    prometheus::Family<prometheus::Histogram>& wait_seconds;
    prometheus::Family<prometheus::Histogram>& overhead_seconds;
    prometheus::Histogram& overhead;
    prometheus::Family<prometheus::Counter>* function_runs = nullptr;
    prometheus::Family<prometheus::Histogram>* function_seconds = nullptr;
    NameCap queue_names{most_queues}, function_names{most_functions};

    /// Looking a series up by its labels is slow; jobs are many and series few.
    template <class Metric>
    using Cache = std::map<std::string, Metric*>;
    Cache<prometheus::Counter> known_runs, known_function_runs;
    Cache<prometheus::Histogram> known_run_seconds, known_waits, known_function_seconds;

    void add_functions() {
        function_runs = &prometheus::BuildCounter()
                             .Name("rqxx_function_runs_total")
                             .Help("Runs of functions in this process, by outcome")
                             .Register(registry);
        function_seconds = &prometheus::BuildHistogram()
                                .Name("rqxx_function_run_seconds")
                                .Help("How long runs of functions in this process took")
                                .Register(registry);
    }

    template <class Metric, class Make>
    static Metric& find(Cache<Metric>& cache, std::string_view first, std::string_view second,
                        Make make) {
        std::string key = fmt::format("{}\n{}", second, first);
        auto found = cache.find(key);
        if (found == cache.end()) found = cache.emplace(std::move(key), &make()).first;
        return *found->second;
    }

    void observe(const RunRecord& run) {
        const std::string queue = queue_names(run.queue);
        const std::string executor(run.executor), outcome(run.outcome);
        find(known_runs, queue, outcome, [&]() -> auto& {
            return runs.Add({{"queue", queue}, {"outcome", outcome}});
        }).Increment();
        find(known_run_seconds, queue, executor, [&]() -> auto& {
            return run_seconds.Add({{"queue", queue}, {"executor", executor}}, job_buckets());
        }).Observe(run.run.count());
        if (run.waited) {
            find(known_waits, queue, "", [&]() -> auto& {
                return wait_seconds.Add({{"queue", queue}}, job_buckets());
            }).Observe(run.waited->count());
        }
        overhead.Observe(run.to_settle.count());
        if (!functions) return;
        const std::string function =
            function_names(run.function.empty() ? std::string_view("unknown") : run.function);
        find(known_function_runs, function, outcome, [&]() -> auto& {
            return function_runs->Add({{"func", function}, {"outcome", outcome}});
        }).Increment();
        find(known_function_seconds, function, "", [&]() -> auto& {
            return function_seconds->Add({{"func", function}}, job_buckets());
        }).Observe(run.run.count());
    }
};

JobMetrics::JobMetrics(Worker& worker, bool functions)
    : impl_(std::make_shared<Impl>(worker, functions)) {
    if (functions) impl_->add_functions();
    worker.on_run([impl = impl_](const RunRecord& run) { impl->observe(run); });
}

JobMetrics::~JobMetrics() = default;

Families JobMetrics::collect() const {
    auto families = impl_->registry.Collect();
    std::erase_if(families, [](const auto& family) { return family.metric.empty(); });
    const auto slots = static_cast<double>(impl_->worker.slots());
    const auto busy = std::min(static_cast<double>(impl_->worker.running()), slots);
    Series by_state("rqxx_worker_slots", "Jobs that this process' worker can run at once, by state",
                    prometheus::MetricType::Gauge, {"state"});
    by_state.add({"busy"}, busy);
    by_state.add({"idle"}, slots - busy);
    families.push_back(by_state.family());
    const Seconds age = std::chrono::steady_clock::now() - impl_->worker.lease_renewed();
    families.push_back(gauge("rqxx_worker_heartbeat_age_seconds",
                             "Since Redis last took a heartbeat of this process' worker",
                             age.count()));
    return families;
}

}  // namespace rqxx::http
