#include <fmt/format.h>
#include <signal.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <rqxx/cron_entries.hpp>
#include <rqxx/scheduler.hpp>

#include "base/task_group.hpp"
#include "cli/commands.hpp"
#include "http/access.hpp"
#include "http/api.hpp"
#include "http/live.hpp"
#include "index/job_index.hpp"
#include "runtime/embedded_redis.hpp"
#include "runtime/examiner.hpp"
#include "runtime/janitor.hpp"

namespace rqxx::cli {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

/// A server that changes nothing has no part that would.
ServeOptions consistent(ServeOptions options) {
    if (!options.read_only) return options;
    if (options.demo) throw Error(Errc::usage, "--demo: makes jobs, which --read-only forbids");
    options.no_worker = options.no_sampler = options.no_scheduler = options.no_maintenance = true;
    options.no_cron = true;
    options.webhooks.off = true;
    return options;
}

std::string read_token(const ServeOptions& options) {
    if (options.token_file.empty()) return options.token;
    if (!options.token.empty()) throw Error(Errc::usage, "--token: give either it or --token-file");
    return token_option("--token-file", options.token_file);
}

/// Everything that `serve` runs, in the order in which it is made; taken down the other way round.
class ServeCommand {
public:
    ServeCommand(const CommonOptions& common, const ServeOptions& options,
                 const ApplicationFactory& make_application)
        : options_(consistent(options)),
          log_(log_level(common), log_format(common)),
          directory_(common.data_dir),
          redis_settings_(settings(common)),
          redis_(context_.get_executor(), redis_settings_, log_),
          monitor_(redis_),
          queue_(redis_, log_),
          application_(make_application(application_settings(common, options, directory_.path()))),
          metrics_(redis_, {true, options.metrics_rq_exporter, options.metrics_functions}),
          pulse_(redis_),
          live_(context_.get_executor(), monitor_, log_),
          scheduler_(redis_, {}, log_),
          sampler_(redis_, log_),
          janitor_(redis_, {}, RecoverPolicy::requeue, log_),
          webhooks_(redis_, webhook_options(options.webhooks), log_),
          index_(make_index()),
          operations_(redis_, log_, id_source()),
          cron_(redis_, log_),
          examiner_(redis_, log_),
          tasks_(context_.get_executor()),
          signals_(context_, SIGINT, SIGTERM),
          reload_(context_, SIGHUP) {
        make_access();
        make_routes();
        make_server();
        make_worker();
    }

    int run() {
        int code = 0;
        std::exception_ptr failure;
        asio::co_spawn(context_, main(), [&](std::exception_ptr error, int result) {
            failure = error;
            code = result;
            redis_.close();
            signals_.cancel();
            reload_.cancel();
        });
        context_.run();
        if (failure) std::rethrow_exception(failure);
        return code;
    }

private:
    RedisOptions settings(const CommonOptions& common) {
        if (!common.redis_url.empty()) return redis_options(common, "rqxx-serve");
        embedded_ =
            std::make_unique<runtime::EmbeddedRedis>(directory_, log_, options_.redis_server);
        RedisOptions options;
        options.client_name = "rqxx-serve";
        options.url = embedded_->url();
        return options;
    }

    static ApplicationSettings application_settings(const CommonOptions&,
                                                    const ServeOptions& options,
                                                    const std::filesystem::path& data_dir) {
        return {data_dir, options.packages, !options.no_legacy_evaluate};
    }

    std::unique_ptr<index::JobIndex> make_index() {
        if (options_.no_index) return nullptr;
        using index::JobIndex;
        return std::make_unique<JobIndex>(
            redis_, directory_.path() / "job_index.db", log_,
            options_.read_only ? JobIndex::Mode::reads_only : JobIndex::Mode::asks_for_changes);
    }

    /// Finds jobs for actions on many: those that fit by now, not as the index remembers them.
    IdSource id_source() {
        if (!index_) return {};
        return [this](const JobSearch& search,
                      std::string& cursor) -> asio::awaitable<std::vector<std::string>> {
            const auto page = co_await index_->list(http::index_filter(search), cursor,
                                                    index::JobIndex::most_keys);
            cursor = page.next.value_or("");
            std::vector<std::string> ids;
            ids.reserve(page.jobs.size());
            for (const auto& job : page.jobs)
                ids.push_back(job.id);
            co_return ids;
        };
    }

    void make_access() {
        http::AccessOptions settings;
        settings.token = read_token(options_);
        settings.required = options_.auth || !settings.token.empty();
        settings.read_only = options_.read_only;
        settings.cookie_path = options_.path_prefix + "/";
        settings.redaction = {options_.redact_all, options_.redact};
        authenticated_ = settings.required;
        live_.hide(settings.redaction);
        access_ = std::make_unique<http::Access>(redis_, std::move(settings), log_);
        access_->add_routes(router_);
    }

    void make_routes() {
        http::add_monitor_routes(router_, monitor_);
        const http::EnqueueRights rights{!options_.no_enqueue, options_.allow_func};
        live_.tell_of(redis_, operations_, index_.get());
        live_.on_change([this] { router_.forget_shared(); });
        live_.add_route(router_);
        http::add_job_routes(router_, redis_, rights, log_);
        http::add_batch_routes(router_, redis_, directory_.path(), rights, log_);
        http::add_rule_routes(router_, redis_);
        http::add_index_routes(router_, index_.get(), redis_);
        http::add_history_routes(router_, redis_);
        http::add_redis_routes(router_, redis_, pulse_);
        http::add_doctor_route(router_, redis_, examiner_);
        http::add_action_routes(router_, redis_, operations_);
        http::add_schedule_routes(router_, redis_);
        http::add_queue_routes(router_, monitor_, redis_, operations_);
        http::add_timeline_route(router_, monitor_);
        http::add_raw_routes(router_, redis_, monitor_, rights.any);
        http::add_audit_routes(router_, redis_, log_);
        http::add_health_routes(router_, redis_, [this] {
            return worker_ ? std::optional(worker_->last_poll()) : std::nullopt;
        });
        http::add_openapi_route(router_);
        http::add_page_routes(router_);
        if (!options_.no_scheduler) metrics_.observe(scheduler_);
        metrics_.observe(live_);
        metrics_.observe(pulse_);
        metrics_.add_route(router_);
        application_->register_routes(router_, queue_);
    }

    void make_server() {
        http::ServerOptions settings;
        settings.host = options_.host;
        settings.port = options_.port;
        settings.guard = access_->guard();
        settings.authenticated = authenticated_;
        settings.trust_proxy = options_.trust_proxy;
        settings.tls_certificate = options_.tls_cert;
        settings.tls_key = options_.tls_key;
        settings.path_prefix = options_.path_prefix;
        settings.access_log = !options_.no_access_log;
        server_ = std::make_unique<http::Server>(context_.get_executor(), router_, settings, log_);
        server_->on_request(
            [this](const http::RequestRecord& record) { metrics_.observe(record); });
        server_->listen();
    }

    void make_worker() {
        if (options_.no_worker) return;
        application_->register_handlers(handlers_);
        WorkerOptions settings;
        settings.concurrency = options_.concurrency;
        settings.grace = duration_option("--grace", options_.grace);
        worker_ = std::make_unique<Worker>(redis_, handlers_, settings, log_);
        metrics_.observe(*worker_);
        if (!embedded_)
            log_.warning(
                "The worker in this process runs native handlers only and fails other jobs of its "
                "queues; --no-worker leaves all jobs to your own workers");
    }

    asio::awaitable<int> main() {
        co_await connect();
        TaskGroup serving(context_.get_executor());
        serving.spawn("http", server_->run());
        tasks_.spawn("live", live_.run());
        if (!options_.tls_cert.empty()) tasks_.spawn("reload", reload_on_hangup());
        tasks_.spawn("pulse", pulse_.run());
        if (!options_.no_sampler) tasks_.spawn("sampler", sampler_.run());
        if (!options_.no_maintenance) tasks_.spawn("janitor", janitor_.run());
        if (!options_.webhooks.off) tasks_.spawn("webhooks", webhooks_.run());
        if (index_) tasks_.spawn("index", index_->run());
        if (embedded_) tasks_.spawn("redis-server", keep_redis());
        WorkerSummary summary;
        TaskGroup workers(context_.get_executor());
        if (worker_) workers.spawn("worker", run_worker(*worker_, summary));
        TaskGroup scheduling(context_.get_executor());
        if (!options_.no_scheduler) scheduling.spawn("scheduler", scheduler_.run());
        TaskGroup firing(context_.get_executor());
        if (!options_.no_cron) firing.spawn("cron", cron_.run());
        fmt::print("Dashboard: {}\nRedis: {}\n", server_->url(), redis_settings_.url.redacted());
        std::fflush(stdout);
        if (options_.demo) co_await run_demo();

        co_await wait_for_stop(workers);
        // Takers stop before what they depend on: requests, then jobs, then Redis.
        const auto grace = duration_option("--grace", options_.grace);
        live_.close();
        server_->stop(std::min<std::chrono::milliseconds>(grace, 5s));
        scheduling.cancel();
        cron_.request_stop();
        if (worker_) worker_->request_stop();
        asio::co_spawn(context_, second_signal(), asio::detached);
        std::exception_ptr failure;
        try {
            co_await workers.join();
        } catch (...) {
            failure = std::current_exception();
        }
        co_await scheduling.join();
        co_await firing.join();
        co_await serving.join();  // What is being answered has its grace.
        co_await operations_.join();
        co_await examiner_.join();
        tasks_.cancel();
        co_await tasks_.join();
        if (failure) std::rethrow_exception(failure);
        log_.info("Server stopped");
        co_return summary.returned + summary.unstored > 0 ? 1 : 0;
    }

    /// An embedded Redis may take long to load a large append-only file; as long as it lives we
    /// wait.
    asio::awaitable<void> connect() {
        for (;;) {
            std::optional<Error> failed;
            try {
                co_await redis_.connect(10s);
                co_return;
            } catch (const Error& error) {
                failed = error;
            }
            if (!embedded_ || !failed->retryable()) throw Error(*failed);
            embedded_->keep_running();
            log_.warning("Redis is loading its data", "answer", failed->message());
        }
    }

    /// Samples are no reason to end: Redis may go away meanwhile.
    asio::awaitable<void> run_demo() {
        try {
            co_await application_->run_demo(queue_);
        } catch (const Error& error) {
            log_.error("The sample data could not be made", "error", error.message());
        }
    }

    static asio::awaitable<void> run_worker(Worker& worker, WorkerSummary& summary) {
        summary = co_await worker.run();
    }

    /// Returns on a signal, or when the worker has failed.
    asio::awaitable<void> wait_for_stop(TaskGroup& workers) {
        Event pause(context_.get_executor());
        bool signalled = false;
        signals_.async_wait([&](boost::system::error_code error, int) {
            if (error) return;
            signalled = true;
            pause.notify();
        });
        while (!signalled) {
            co_await pause.wait(1s);
            if (worker_ && workers.size() == 0) {
                signals_.cancel();
                co_return;
            }
        }
        log_.info("Stopping");
    }

    /// Ends with the signal set, which run() cancels.
    asio::awaitable<void> second_signal() {
        boost::system::error_code error;
        co_await signals_.async_wait(asio::redirect_error(asio::use_awaitable, error));
        if (!error && worker_) worker_->request_stop();
    }

    /// Until it is cancelled.
    asio::awaitable<void> reload_on_hangup() {
        for (;;) {
            co_await reload_.async_wait(asio::use_awaitable);
            server_->reload_certificate();
        }
    }

    asio::awaitable<void> keep_redis() {
        Event pause(context_.get_executor());
        for (;;) {
            co_await pause.wait(500ms);
            // Starting blocks for some milliseconds; without Redis there is nothing else to do.
            try {
                embedded_->keep_running();
            } catch (const Error& error) {
                log_.error("Redis could not be started again", "error", error.message());
            }
        }
    }

    ServeOptions options_;
    Logger log_;
    asio::io_context context_{1};
    runtime::DataDirectory directory_;
    std::unique_ptr<runtime::EmbeddedRedis> embedded_;
    RedisOptions redis_settings_;
    RedisClient redis_;
    Monitor monitor_;
    OptimizedQueue queue_;
    std::unique_ptr<Application> application_;
    HandlerRegistry handlers_;
    bool authenticated_ = false;  ///< Nobody gets in without proof.
    std::unique_ptr<http::Access> access_;
    http::Router router_;
    http::Metrics metrics_;
    runtime::RedisPulse pulse_;
    http::LiveFeed live_;
    Scheduler scheduler_;
    Sampler sampler_;
    runtime::Janitor janitor_;
    WebhookDeliverer webhooks_;
    std::unique_ptr<index::JobIndex> index_;
    Operations operations_;
    StoredCron cron_;
    runtime::Examiner examiner_;
    std::unique_ptr<http::Server> server_;
    std::unique_ptr<Worker> worker_;
    TaskGroup tasks_;
    asio::signal_set signals_;
    asio::signal_set reload_;
};

}  // namespace

int serve(const CommonOptions& common, const ServeOptions& options,
          const ApplicationFactory& make_application) {
    return ServeCommand(common, options, make_application).run();
}

}  // namespace rqxx::cli
