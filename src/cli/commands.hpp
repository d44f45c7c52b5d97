#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <rqxx/application.hpp>
#include <rqxx/log.hpp>
#include <rqxx/redis/client.hpp>
#include <rqxx/webhooks.hpp>
#include <rqxx/worker.hpp>
#include <string>
#include <string_view>
#include <vector>

/// One struct of settings per command, and the functions that carry them out.
///
/// The settings are bound to flags, environment and configuration file by flags.hpp.
namespace rqxx::cli {

struct CommonOptions {
    std::string redis_url;
    std::string redis_ca_file;
    std::string data_dir = "rqxx-data";
    std::string config;
    std::string log_level = "info";
    std::string log_format = "text";
};

struct WebhookSettings {
    bool off = false;
    std::string secret_file;
};

struct ServeOptions {
    std::string host = "127.0.0.1";
    unsigned short port = 8000;
    std::string token, token_file;
    bool auth = false;
    bool read_only = false;
    std::vector<std::string> redact;
    bool redact_all = false;
    bool trust_proxy = false;
    std::string tls_cert, tls_key;
    std::string path_prefix;
    bool no_worker = false;
    bool no_sampler = false;
    bool no_maintenance = false;
    bool no_scheduler = false;
    bool no_index = false;
    bool no_cron = false;
    bool demo = false;
    bool no_enqueue = false;
    std::vector<std::string> allow_func;
    bool no_legacy_evaluate = false;
    bool no_access_log = false;
    bool metrics_functions = false;
    bool metrics_rq_exporter = false;
    std::size_t concurrency = 8;
    std::string packages;
    std::string grace = "25s";
    std::string redis_server = "redis-server";
    WebhookSettings webhooks;
};

/// How a function runs, and who says so.
struct ConfiguredFunction {
    FunctionRule rule;
    std::optional<CommandFunction> command;
    std::optional<HttpFunction> http;
    std::string where;  ///< For messages: its flag, or file and table.
    std::string from;   ///< As of a `Setting`.
};

/// What a flag is set to.
struct Setting {
    enum class Kind { text, number, size, boolean, list };
    std::string name;
    Kind kind = Kind::text;
    std::vector<std::string> values;
    std::string from;  ///< flag, environment, file or default.
};

struct WorkerCommandOptions {
    std::vector<std::string> queues;      ///< Arguments; they beat the flag.
    std::vector<std::string> queue_list;  ///< Of the flag.
    bool check = false;
    bool json = false;
    std::vector<ConfiguredFunction> functions;   ///< Tables of the configuration file.
    std::map<std::string, std::string> sources;  ///< Of flags that are set, by name.
    std::vector<Setting> settings;               ///< All that may be shown; for `check`.
    std::size_t concurrency = 8;
    bool burst = false;
    bool with_scheduler = false;
    std::string name;
    std::uint64_t max_jobs = 0;
    std::string packages;
    std::string grace = "25s";
    std::string recover = "requeue";
    std::string serializer;
    std::string strategy = "strict";
    std::vector<std::string> weights, queue_slots, fair_by;
    std::string ageing = "0";
    std::string callbacks = "require";
    std::string max_idle_time;
    std::string kill_after = "5s";
    std::string python;
    std::string isolation = "warm";
    std::vector<std::string> path, init, preload, exception_handlers;
    std::vector<std::string> command;
    std::vector<std::string> aggregate;
    std::string native_isolation = "thread";
    std::uint64_t max_rss = 0, max_output = std::uint64_t{1} << 20;
    std::string max_cpu;
    std::uint64_t recycle_jobs = 0, recycle_growth = std::uint64_t{256} << 20;
    std::string recycle_age = "1h";
    bool forward_output = false;
    std::vector<std::string> http;
    std::string http_secret_file;
    std::optional<unsigned short> metrics_port;
    std::string metrics_host = "127.0.0.1";
    std::string metrics_token_file;
    bool metrics_functions = false;
    WebhookSettings webhooks;
};

struct TopOptions {
    std::string url;
    std::string token_file;
    double interval = 1;
    bool once = false;
    bool no_color = false;
};

struct EnqueueCommandOptions {
    std::string function;
    std::vector<std::string> arguments;
    std::string queue = "default";
    std::string priority;
    std::string timeout, result_ttl, failure_ttl, ttl;
    std::optional<std::int64_t> retry;
    std::vector<std::string> retry_intervals;
    bool retry_at_front = false;
    std::string at, in;
    std::vector<std::string> depends_on;
    bool allow_failure = false;
    std::string on_success, on_failure, on_stopped;
    std::optional<std::int64_t> repeat;
    std::vector<std::string> repeat_intervals;
    std::string group;
    std::vector<std::string> webhooks;
    std::string rate_limit;
    std::string meta;
    std::string job_id;
    std::string description;
    std::string serializer = "pickle";
    bool json_args = false;
    bool at_front = false;
    bool unique = false;
    std::string throttle, debounce, debounce_max;
    bool replace = false;
    bool unique_call = false;
    std::string dedup_key;
    bool json = false;
    bool wait = false;
    std::string batch;  ///< File with jobs, `-` for stdin; empty: one job, from the line.
    std::string batch_name, parent, on_complete, on_first_failure, follow_queue;
    bool partial = false;
};

struct InfoOptions {
    bool json = false;
    double interval = 0;
};

struct JobShowOptions {
    std::vector<std::string> ids;
    bool json = false;
};

struct JobWhyOptions {
    std::string id;
    bool json = false;
};

struct JobLogsOptions {
    std::string id;
    std::string execution;
    bool follow = false;
    std::string stream = "both";
    bool json = false;
    bool timestamps = false;
};

/// Of an action on jobs: those named, or those of a queue and status.
struct JobActionOptions {
    std::vector<std::string> ids;
    std::string queue, status, func, error;
    std::uint64_t limit = 0;
    std::string dependents = "leave";
    bool remove_from_dependencies = false;
    bool at_front = false;
    bool no_wait = false;
    bool dry_run = false;
    bool json = false;
};

struct JobOptions {
    JobShowOptions show;
    JobWhyOptions why;
    JobLogsOptions logs;
    JobActionOptions action;
};

/// Pausing, resuming and draining a queue or a function.
struct PauseOptions {
    std::string name;
    std::string wait = "10m";
    bool json = false;
};

struct FairOptions {
    std::string queue, key;
    bool off = false;
};

struct LimitOptions {
    std::string name;
    std::string kind;
    std::int64_t limit = 0, burst = 0;
    std::string per, queue, function, key, points = "1", scope = "cluster";
    std::string delay;
    bool json = false;
};

struct SuspendOptions {
    std::string duration;
};

struct QueueActionOptions {
    std::string queue;
    std::string func, error;
    bool dry_run = false;
    bool json = false;
};

struct QueueListOptions {
    bool json = false;
};

struct QueueOptions {
    PauseOptions pause;
    FairOptions fair;
    QueueListOptions list;
    QueueActionOptions action;
};

struct BatchCommandOptions {
    std::string id;
    std::uint64_t limit = 50;
    bool follow = false;
    bool json = false;
};

struct CronCommandOptions {
    std::string file;
    bool check = false;
    bool json = false;
};

struct BenchCommandOptions {
    std::size_t jobs = 20000;
    std::size_t repetitions = 3;
    std::size_t concurrency = 128;
    bool json = false;
    std::string redis_server = "redis-server";
};

struct DoctorCommandOptions {
    bool repair = false;
    bool json = false;
    std::string queue;
    std::size_t limit = 5;
    std::string recheck = "5s";
};

struct TokenOptions {
    std::string name, id;
    std::string scope = "read";
    std::vector<std::string> queues;
    std::string expires_in;
    bool redact = false;
    bool json = false;
};

int serve(const CommonOptions& common, const ServeOptions& options,
          const ApplicationFactory& make_application);
int work(const CommonOptions& common, const WorkerCommandOptions& options,
         const ApplicationFactory& make_application);
int enqueue(const CommonOptions& common, const EnqueueCommandOptions& options);
int info(const CommonOptions& common, const InfoOptions& options);
int show_jobs(const CommonOptions& common, const JobShowOptions& options);
int explain_job(const CommonOptions& common, const JobWhyOptions& options);
int job_logs(const CommonOptions& common, const JobLogsOptions& options);
int list_queues(const CommonOptions& common, const QueueListOptions& options);
/// Jobs from a file, as a batch.
int enqueue_batch(const CommonOptions& common, const EnqueueCommandOptions& options);
int list_batches(const CommonOptions& common, const BatchCommandOptions& options);
int show_batch(const CommonOptions& common, const BatchCommandOptions& options);
int cancel_batch(const CommonOptions& common, const BatchCommandOptions& options);
int retry_batch(const CommonOptions& common, const BatchCommandOptions& options);
int cron(const CommonOptions& common, const CronCommandOptions& options);
int bench(const CommonOptions& common, const BenchCommandOptions& options);
int top(const CommonOptions& common, const TopOptions& options);
int doctor(const CommonOptions& common, const DoctorCommandOptions& options);
int cancel_jobs(const CommonOptions& common, const JobActionOptions& options);
int delete_jobs(const CommonOptions& common, const JobActionOptions& options);
int requeue_jobs(const CommonOptions& common, const JobActionOptions& options);
int stop_jobs(const CommonOptions& common, const JobActionOptions& options);
int empty_queue(const CommonOptions& common, const QueueActionOptions& options);
int requeue_failed(const CommonOptions& common, const QueueActionOptions& options);
int compact_queue(const CommonOptions& common, const QueueActionOptions& options);
int pause_queue(const CommonOptions& common, const PauseOptions& options);
int resume_queue(const CommonOptions& common, const PauseOptions& options);
int drain_queue(const CommonOptions& common, const PauseOptions& options);
int pause_function(const CommonOptions& common, const PauseOptions& options);
int resume_function(const CommonOptions& common, const PauseOptions& options);
int drain_function(const CommonOptions& common, const PauseOptions& options);
int share_queue(const CommonOptions& common, const FairOptions& options);
int set_limit(const CommonOptions& common, const LimitOptions& options);
int list_limits(const CommonOptions& common, const LimitOptions& options);
int remove_limit(const CommonOptions& common, const LimitOptions& options);
int push_back_limit(const CommonOptions& common, const LimitOptions& options);
int create_token(const CommonOptions& common, const TokenOptions& options);
int list_tokens(const CommonOptions& common, const TokenOptions& options);
int revoke_token(const CommonOptions& common, const TokenOptions& options);
int suspend(const CommonOptions& common, const SuspendOptions& options);
int resume(const CommonOptions& common);

// ---- shared by the commands
// ----------------------------------------------------------------------

/// The Redis that the user means: --redis-url, else the one that `serve` runs in the data
/// directory, else localhost:6379.
[[nodiscard]] RedisOptions redis_options(const CommonOptions& common, std::string client_name);
[[nodiscard]] std::chrono::seconds duration_option(std::string_view flag, const std::string& text);
/// A token, the first line of a file. @throws Error `Errc::usage` that names flag and file.
[[nodiscard]] std::string token_option(std::string_view flag, const std::string& file);
/// What is to be signed with: the secrets of the file, or else of the environment variable. No flag
/// takes a secret itself.
[[nodiscard]] std::vector<std::string> secrets_option(std::string_view flag,
                                                      const std::string& file,
                                                      const char* environment);
[[nodiscard]] WebhookOptions webhook_options(const WebhookSettings& settings);
/// Runs one coroutine with a connected client; waits for Redis for five seconds.
int with_redis(const CommonOptions& common,
               const std::function<boost::asio::awaitable<int>(RedisClient&, Logger&)>& body);
[[nodiscard]] LogLevel log_level(const CommonOptions& common);
[[nodiscard]] LogFormat log_format(const CommonOptions& common);

/// A key of a TOML file with its values, or the beginning of a table: `key` is empty then.
struct TomlEntry {
    enum class Kind { text, number, boolean };
    std::vector<std::string> table;  ///< Its name, in parts.
    std::string key;
    std::vector<std::string> values;
    bool list = false;
    Kind kind = Kind::text;  ///< Of all values.
};
/// @throws Error `Errc::usage` that names `flag` and the file.
[[nodiscard]] std::vector<TomlEntry> read_toml(const std::string& file, std::string_view flag);

/// Bytes, or with a unit such as 512MB. @throws Error `Errc::usage` that begins with `where`.
[[nodiscard]] std::uint64_t size_option(const std::string& where, const std::string& text);

/// The tables [functions.NAME]. @throws Error `Errc::usage` that names file, table and key.
[[nodiscard]] std::vector<ConfiguredFunction> read_functions(const std::vector<TomlEntry>& entries,
                                                             const std::string& file);
/// Those of flags and tables, the first that fits counts.
[[nodiscard]] std::vector<ConfiguredFunction> configured_functions(
    const WorkerCommandOptions& options);

/// @throws Error `Errc::usage` when a command cannot be started.
void check_programs(const std::vector<ConfiguredFunction>& functions);
/// What a worker would do. `functions` are those of which `options` have the rules.
void print_worker(const std::vector<Setting>& settings, const WorkerOptions& options,
                  const HandlerRegistry& handlers, const std::vector<ConfiguredFunction>& functions,
                  bool as_json);

/// Writes an action of this command line into the audit log, by user@host. Where that fails, the
/// action stands, and stderr says so.
boost::asio::awaitable<void> note_action(RedisClient& redis, std::string action, std::string target,
                                         std::string details = {});
/// `user@host`: who acts by this command line.
[[nodiscard]] std::string command_line_user();

/// Rows under headings, columns aligned; numbers to the right.
class Table {
public:
    explicit Table(std::vector<std::string> headings);
    void add(std::vector<std::string> cells);
    void print(std::FILE* out) const;

private:
    std::vector<std::vector<std::string>> rows_;
};

/// Text for a terminal: control characters and broken UTF-8 replaced, so that data cannot drive it.
[[nodiscard]] std::string printable(std::string_view text);
/// Wraps `text` in an SGR sequence where stdout is a terminal and NO_COLOR is not set.
[[nodiscard]] std::string colored(std::string_view text, int sgr);

}  // namespace rqxx::cli
