#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <boost/asio/thread_pool.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <rqxx/batch.hpp>
#include <rqxx/events.hpp>
#include <rqxx/json.hpp>
#include <system_error>

#include "base/task_group.hpp"
#include "cli/commands.hpp"
#include "runtime/batch_upload.hpp"

namespace rqxx::cli {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

/// A line that is written again and again, on a terminal, at most ten times a second.
class StatusLine {
public:
    template <class... Args>
    void show(fmt::format_string<Args...> format, Args&&... args) {
        if (!terminal_ || std::chrono::steady_clock::now() < next_) return;
        next_ = std::chrono::steady_clock::now() + 100ms;
        fmt::print(stderr, "\r\x1b[K{}", fmt::format(format, std::forward<Args>(args)...));
    }
    void end() const {
        if (terminal_) fmt::print(stderr, "\r\x1b[K");
    }

private:
    bool terminal_ = ::isatty(STDERR_FILENO) == 1;
    std::chrono::steady_clock::time_point next_{};
};

class InputFile {
public:
    explicit InputFile(const std::string& name) : name_(name == "-" ? "stdin" : name) {
        file_ = name == "-" ? STDIN_FILENO : ::open(name.c_str(), O_RDONLY | O_CLOEXEC);
        if (file_ < 0) refuse(Errc::usage);
    }
    ~InputFile() {
        if (file_ != STDIN_FILENO) ::close(file_);
    }
    InputFile(const InputFile&) = delete;
    InputFile& operator=(const InputFile&) = delete;

    /// Empty at its end.
    [[nodiscard]] std::string_view read() {
        for (;;) {
            const auto got = ::read(file_, buffer_.data(), buffer_.size());
            if (got >= 0) return {buffer_.data(), static_cast<std::size_t>(got)};
            if (errno != EINTR) refuse(Errc::io);
        }
    }
    [[nodiscard]] const std::string& name() const noexcept { return name_; }

private:
    [[noreturn]] void refuse(Errc code) const {
        throw Error(code, fmt::format("--batch: cannot read {}: {}", name_,
                                      std::generic_category().message(errno)));
    }

    std::string name_;
    int file_ = -1;
    std::vector<char> buffer_ = std::vector<char>(128 * 1024);
};

/// What says something of one job says nothing of a file with jobs.
void refuse_flags_of_one_job(const EnqueueCommandOptions& o) {
    const std::pair<std::string_view, bool> flags[] = {
        {"FUNC", !o.function.empty()},
        {"--priority", !o.priority.empty()},
        {"--timeout", !o.timeout.empty()},
        {"--result-ttl", !o.result_ttl.empty()},
        {"--failure-ttl", !o.failure_ttl.empty()},
        {"--ttl", !o.ttl.empty()},
        {"--retry", o.retry.has_value()},
        {"--retry-interval", !o.retry_intervals.empty()},
        {"--retry-at-front", o.retry_at_front},
        {"--at", !o.at.empty()},
        {"--in", !o.in.empty()},
        {"--depends-on", !o.depends_on.empty()},
        {"--allow-failure", o.allow_failure},
        {"--on-failure", !o.on_failure.empty()},
        {"--on-stopped", !o.on_stopped.empty()},
        {"--repeat", o.repeat.has_value()},
        {"--repeat-interval", !o.repeat_intervals.empty()},
        {"--group", !o.group.empty()},
        {"--webhook", !o.webhooks.empty()},
        {"--meta", !o.meta.empty()},
        {"--job-id", !o.job_id.empty()},
        {"--description", !o.description.empty()},
        {"--json-args", o.json_args},
        {"--at-front", o.at_front},
        {"--unique", o.unique}};
    for (const auto& [flag, given] : flags)
        if (given)
            throw Error(Errc::usage,
                        fmt::format("{}: does not go with --batch; each line says it", flag));
}

void tell_bad_lines(const runtime::JobLines& lines, const std::string& file) {
    for (const auto& [number, why] : lines.first_bad())
        fmt::print(stderr, "rqxx: {}:{}: {}\n", printable(file), number, printable(why));
    if (lines.bad() > lines.first_bad().size())
        fmt::print(stderr, "rqxx: {} more bad lines\n", lines.bad() - lines.first_bad().size());
}

std::string state_of(const BatchProgress& batch) {
    std::string text = printable(batch.state);
    if (batch.in_progress == "cancel") text += ", being canceled";
    if (batch.in_progress == "retry") text += ", failed jobs being put back";
    return text;
}

std::string eta_of(const BatchProgress& batch) {
    return batch.eta ? fmt::format("{:.0f} s", batch.eta->count()) : std::string("-");
}

void tell(StatusLine& line, const BatchProgress& batch) {
    line.show("{}: {} of {} done, {} failed, {:.0f}/s, {} left", state_of(batch), batch.done(),
              batch.total, batch.failed + batch.stopped, batch.jobs_per_second, eta_of(batch));
}

asio::awaitable<BatchProgress> follow(Batch batch, StatusLine& line) {
    for (;;) {
        auto now = co_await batch.wait(200ms);
        tell(line, now);
        if (now.complete() || now.state == "abandoned") {
            line.end();
            co_return now;
        }
    }
}

void print(const BatchProgress& batch) {
    const auto row = [](std::string_view name, std::string_view text) {
        if (!text.empty()) fmt::print("{:<17}{}\n", name, printable(text));
    };
    const auto time = [&](std::string_view name, const std::optional<Timestamp>& at) {
        if (at) row(name, format_utc(*at));
    };
    row("id", batch.id);
    row("state", state_of(batch));
    row("jobs", fmt::format("{} of {} done, {} pending", batch.done(), batch.total, batch.pending));
    row("ended",
        fmt::format("{} finished, {} failed, {} stopped, {} canceled, {} deleted", batch.finished,
                    batch.failed, batch.stopped, batch.canceled, batch.deleted));
    if (batch.eta)
        row("rate", fmt::format("{:.1f} jobs/s, {} left", batch.jobs_per_second, eta_of(batch)));
    row("parent", batch.parent);
    if (batch.children_total > 0)
        row("batches in it",
            fmt::format("{}, {} not complete, {} not successful", batch.children_total,
                        batch.children_waiting, batch.children_failed));
    time("created", batch.created_at);
    time("sealed", batch.sealed_at);
    time("first failure", batch.first_failure_at);
    time("complete", batch.completed_at);
    row("on complete", batch.on_complete);
    row("on success", batch.on_success);
    row("on first failure", batch.on_first_failure);
}

int no_such_batch(const std::string& id) {
    fmt::print(stderr, "rqxx: there is no batch {}\n", printable(id));
    return 1;
}

/// What cancel and retry-failed have in common.
int act(const CommonOptions& common, const BatchCommandOptions& options, std::string_view done,
        asio::awaitable<BatchActionResult> (Batch::*action)(Batch::Report)) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        Batch batch(redis, options.id);
        StatusLine line;
        const auto report = [&](std::uint64_t count) { line.show("{} {}", count, done); };
        BatchActionResult result;
        try {
            result = co_await (batch.*action)(report);
        } catch (const Error& error) {
            if (error.code() != Errc::not_found) throw;
            co_return no_such_batch(options.id);
        }
        line.end();
        if (result.complete) {
            fmt::print(stderr, "rqxx: batch {} is complete\n", options.id);
            co_return 1;
        }
        co_await note_action(redis, done == "canceled" ? "batch.cancel" : "batch.retry-failed",
                             options.id, fmt::format("{} {}", result.done, done));
        if (options.json)
            fmt::print("{}\n", to_text(json::object{{"id", options.id}, {done, result.done}}));
        else
            fmt::print("{} {} {}\n", result.done, result.done == 1 ? "job" : "jobs", done);
        co_return 0;
    });
}

}  // namespace

int enqueue_batch(const CommonOptions& common, const EnqueueCommandOptions& options) {
    refuse_flags_of_one_job(options);
    runtime::UploadOptions settings;
    settings.name = options.batch_name;
    settings.queue = options.queue;
    settings.partial = options.partial;
    settings.parent = options.parent;
    settings.on_complete = options.on_complete;
    settings.on_success = options.on_success;
    settings.on_first_failure = options.on_first_failure;
    settings.follow_queue = options.follow_queue;
    settings.serializer = parse_serializer(options.serializer).value();
    InputFile input(options.batch);
    runtime::BatchUpload upload(settings);
    runtime::JobLines& lines = upload.lines();
    StatusLine line;
    for (auto piece = input.read(); !piece.empty(); piece = input.read()) {
        lines.feed(piece);
        line.show("{} jobs read", lines.jobs());
    }
    lines.finish();
    line.end();
    tell_bad_lines(lines, input.name());
    if (!lines.acceptable()) {
        fmt::print(stderr, "rqxx: nothing was enqueued; --partial takes the good lines\n");
        return 2;
    }
    return with_redis(common, [&](RedisClient& redis, Logger& log) -> asio::awaitable<int> {
        asio::thread_pool blocking(1);
        const Batch batch = co_await upload.enqueue(redis, blocking, [&](std::uint64_t done) {
            line.show("{} of {} enqueued", done, lines.jobs());
        });
        line.end();
        log.info("Batch enqueued", "id", batch.id(), "jobs", upload.added());
        if (upload.duplicates() > 0)
            fmt::print(stderr, "rqxx: {} left out, because jobs of their ids exist already\n",
                       upload.duplicates());
        fmt::print("{}\n", batch.id());
        std::fflush(stdout);
        if (!options.wait) co_return 0;
        const auto end = co_await follow(batch, line);
        co_return end.successful() ? 0 : 1;
    });
}

int list_batches(const CommonOptions& common, const BatchCommandOptions& options) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        const auto batches = co_await rqxx::list_batches(redis, options.limit);
        if (options.json) {
            json::array list;
            for (const auto& batch : batches)
                list.push_back(to_json(batch));
            fmt::print("{}\n", to_text(list));
            co_return 0;
        }
        Table table({"batch", "state", "jobs", "done", "failed", "eta", "created"});
        for (const auto& batch : batches)
            table.add({batch.id, state_of(batch), std::to_string(batch.total),
                       std::to_string(batch.done()), std::to_string(batch.failed + batch.stopped),
                       eta_of(batch), batch.created_at ? format_utc(*batch.created_at) : ""});
        table.print(stdout);
        co_return 0;
    });
}

int show_batch(const CommonOptions& common, const BatchCommandOptions& options) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        Batch batch(redis, options.id);
        auto progress = co_await batch.progress();
        if (!progress) co_return no_such_batch(options.id);
        if (options.follow) {
            StatusLine line;
            progress = co_await follow(batch, line);
        }
        if (options.json)
            fmt::print("{}\n", to_text(to_json(*progress)));
        else
            print(*progress);
        co_return !options.follow || progress->successful() ? 0 : 1;
    });
}

int cancel_batch(const CommonOptions& common, const BatchCommandOptions& options) {
    return act(common, options, "canceled", &Batch::cancel);
}

int retry_batch(const CommonOptions& common, const BatchCommandOptions& options) {
    return act(common, options, "requeued", &Batch::retry_failed);
}

}  // namespace rqxx::cli
