#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <boost/asio/signal_set.hpp>
#include <boost/json/object.hpp>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <rqxx/json.hpp>
#include <rqxx/monitor.hpp>

#include "base/task_group.hpp"
#include "base/utf8.hpp"
#include "cli/commands.hpp"
#include "cli/terminal_text.hpp"

namespace rqxx::cli {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;
using Stream = OutputEntry::Stream;

/// Whoever read our output has gone.
struct ReaderGone {};

void write(std::FILE* file, std::string_view text) {
    if (std::fwrite(text.data(), 1, text.size(), file) == text.size()) return;
    if (errno == EPIPE) throw ReaderGone();
    throw Error(Errc::internal,
                fmt::format("the output cannot be written: {}", std::strerror(errno)));
}

void flush(std::FILE* file) {
    if (std::fflush(file) == 0) return;
    if (errno == EPIPE) throw ReaderGone();
    throw Error(Errc::internal,
                fmt::format("the output cannot be written: {}", std::strerror(errno)));
}

/// Where the entries go.
class Printer {
public:
    virtual ~Printer() = default;
    virtual void print(const std::string& execution, const OutputEntry& entry) = 0;
    /// The end of an execution.
    virtual void end() = 0;
};

/// As it was written: stdout to stdout, stderr to stderr. A terminal gets what is harmless.
class TextPrinter : public Printer {
public:
    explicit TextPrinter(const JobLogsOptions& options) : timestamps_(options.timestamps) {}

    void print(const std::string&, const OutputEntry& entry) override {
        if (entry.stream == Stream::cut) {
            end();
            write(stderr, fmt::format("[… {} bytes are missing …]\n", entry.missing_bytes));
        } else {
            Side& side = sides_[static_cast<std::size_t>(entry.stream)];
            put(side, side.terminal ? side.filter.feed(entry.text) : entry.text, entry.at);
        }
    }

    void end() override {
        for (Side& side : sides_) {
            if (!side.terminal) continue;
            put(side, side.filter.end(), side.last_at);
            // What a terminal shows next is not of this.
            if (!std::exchange(side.at_line_start, true)) write(side.file, "\n");
        }
    }

private:
    struct Side {
        explicit Side(std::FILE* to)
            : file(to),
              terminal(::isatty(::fileno(to)) == 1),
              filter(std::getenv("NO_COLOR") == nullptr) {}
        std::FILE* file;
        bool terminal;
        TerminalText filter;
        bool at_line_start = true;
        Timestamp last_at{};
    };

    void put(Side& side, const std::string& text, Timestamp at) {
        if (text.empty()) return;
        side.last_at = at;
        std::string_view rest = text;
        while (timestamps_ && !rest.empty()) {
            if (side.at_line_start) write(side.file, format_utc(at) + " ");
            const auto line = std::min(rest.find('\n'), rest.size() - 1) + 1;
            write(side.file, rest.substr(0, line));
            side.at_line_start = rest[line - 1] == '\n';
            rest.remove_prefix(line);
        }
        write(side.file, rest);
        side.at_line_start = text.back() == '\n';
        flush(side.file);
    }

    bool timestamps_;
    std::array<Side, 2> sides_{Side(stdout), Side(stderr)};
};

/// A line for each entry. Characters that are split between entries are shown with the later one.
class JsonPrinter : public Printer {
public:
    void print(const std::string& execution, const OutputEntry& entry) override {
        execution_ = execution;
        if (entry.stream == Stream::cut) {
            end();
            line(entry.stream, entry.at, {{"missing_bytes", entry.missing_bytes}});
            return;
        }
        Side& side = sides_[static_cast<std::size_t>(entry.stream)];
        side.last_at = entry.at;
        side.begun += entry.text;
        const std::size_t whole = whole_characters(side.begun);
        if (whole > 0)
            line(entry.stream, entry.at,
                 {{"text", to_valid_utf8(std::string_view(side.begun).substr(0, whole))}});
        side.begun.erase(0, whole);
    }

    void end() override {
        for (const Stream stream : {Stream::out, Stream::err}) {
            Side& side = sides_[static_cast<std::size_t>(stream)];
            if (side.begun.empty()) continue;
            line(stream, side.last_at, {{"text", to_valid_utf8(side.begun)}});
            side.begun.clear();
        }
    }

private:
    struct Side {
        std::string begun;
        Timestamp last_at{};
    };

    void line(Stream stream, Timestamp at, json::object content) {
        json::object object{{"execution", to_valid_utf8(execution_)},
                            {"stream", to_string(stream)},
                            {"at", format_utc(at)}};
        for (auto& [name, value] : content)
            object[name] = std::move(value);
        write(stdout, to_text(object) + "\n");
        flush(stdout);
    }

    std::string execution_;
    std::array<Side, 2> sides_;
};

bool is_final(std::string_view status) {
    return status == status::finished || status == status::failed || status == status::stopped ||
           status == status::canceled;
}

/// Ids of our executions begin with the time.
bool is_ours(std::string_view execution) {
    return execution.size() == 32 && execution[12] == '7';
}

/// Shows one job's output, and follows it from one execution to the next.
class Logs {
public:
    Logs(RedisClient& redis, const JobLogsOptions& options)
        : redis_(redis), options_(options), monitor_(redis), wake_(redis.executor()) {
        query_.execution = options.execution;
        if (options.json)
            printer_ = std::make_unique<JsonPrinter>();
        else
            printer_ = std::make_unique<TextPrinter>(options);
    }

    asio::awaitable<int> run() {
        // Ctrl-C is how following ends.
        asio::signal_set signals(redis_.executor(), SIGINT, SIGTERM);
        signals.async_wait([this](boost::system::error_code error, int) {
            if (error) return;
            interrupted_ = true;
            wake_.notify();
            redis_.close();
        });
        int code = 0;
        try {
            code = co_await show();
            printer_->end();
        } catch (const Cancelled&) {
            if (!interrupted_) throw;
            printer_->end();
        } catch (const ReaderGone&) {
            code = 1;
        }
        co_return code;
    }

private:
    asio::awaitable<int> show() {
        bool found = false;
        for (;;) {
            bool asked = true;
            std::optional<JobOutput> output;
            try {
                output = co_await monitor_.job_output(options_.id, query_);
                away_ = false;
            } catch (const Error& error) {
                if (!options_.follow || !error.retryable()) throw;
                tell_away(error);
                asked = false;
            }
            if (asked) {
                if (!output) co_return gone(found);
                if (output->found != JobOutput::Found::yes) co_return no_execution(*output);
                found = true;
                print(*output);
                if (output->more) continue;
                if (!options_.follow || !co_await goes_on(*output)) {
                    hint(*output);
                    co_return 0;
                }
            }
            if (!interrupted_) co_await wake_.wait(250ms);
            if (interrupted_) throw Cancelled();
        }
    }

    void print(const JobOutput& output) {
        if (output.execution != current_) {
            if (!current_.empty() && !output.execution.empty()) {
                printer_->end();
                if (printed_ && !options_.json)
                    fmt::print(stderr, "rqxx: execution {}\n", printable(output.execution));
            }
            current_ = output.execution;
            shown_anything_ = false;
        }
        for (const auto& entry : output.entries) {
            if ((options_.stream == "stdout" && entry.stream == Stream::err) ||
                (options_.stream == "stderr" && entry.stream == Stream::out))
                continue;
            printer_->print(output.execution, entry);
            printed_ = true;
        }
        shown_anything_ = shown_anything_ || !output.entries.empty();
        // From now on this one, whatever begins beside it.
        query_.execution = output.execution;
        query_.after = output.next_after;
    }

    /// Whether more may come, of this execution or another.
    asio::awaitable<bool> goes_on(const JobOutput& output) {
        if (!output.ended) {
            ran_ = true;
            co_return true;
        }
        if (!options_.execution.empty()) co_return false;
        if (const auto next = co_await next_execution(output); !next.empty()) {
            query_ = {};
            query_.execution = next;
            co_return true;
        }
        if (!is_final(output.job_status)) co_return true;
        // A worker hears of that by its next heartbeat, and stores what the job wrote until then.
        if (output.job_status != status::canceled || !ran_) co_return false;
        const auto now = std::chrono::steady_clock::now();
        if (!linger_until_) linger_until_ = now + 5s;
        co_return now < *linger_until_;
    }

    /// The one after the current one that wrote something; empty where there is none yet.
    asio::awaitable<std::string> next_execution(const JobOutput& output) {
        std::string next;
        if (is_ours(current_)) {
            for (const auto& execution : output.executions)  // Newest first.
                if (is_ours(execution) && execution > current_) next = execution;
            co_return next;
        }
        // None, or a stock worker's, whose id does not tell its age.
        OutputQuery newest;
        newest.after = "18446744073709551615-0";
        const auto now = co_await monitor_.job_output(options_.id, newest);
        if (now && now->execution != current_) next = now->execution;
        co_return next;
    }

    int gone(bool found) const {
        if (found) {
            fmt::print(stderr, "rqxx: job {} is deleted\n", printable(options_.id));
            return 0;
        }
        fmt::print(stderr, "rqxx: job {} was not found\n", printable(options_.id));
        return 1;
    }

    int no_execution(const JobOutput& output) const {
        const bool several = output.found == JobOutput::Found::several;
        fmt::print(stderr, "rqxx: --execution: {} {} begins with {}\n",
                   several ? "more than one execution of job" : "no execution of job",
                   printable(options_.id), printable(query_.execution));
        return 1;
    }

    void hint(const JobOutput& output) const {
        if (shown_anything_ || printed_) return;
        const std::string id = printable(options_.id);
        if (output.execution.empty()) {
            fmt::print(stderr, "rqxx: job {} has not run, it is {}\n", id,
                       printable(output.job_status));
            return;
        }
        std::string others;
        for (const auto& execution : output.executions) {
            if (execution == output.execution) continue;
            others = fmt::format("; another has: --execution {}", printable(execution));
            break;
        }
        fmt::print(stderr, "rqxx: execution {} of job {} has written nothing that is kept{}\n",
                   printable(output.execution), id, others);
    }

    void tell_away(const Error& error) {
        if (!std::exchange(away_, true))
            fmt::print(stderr, "rqxx: {}; waiting for Redis\n", error.message());
    }

    RedisClient& redis_;
    const JobLogsOptions& options_;
    Monitor monitor_;
    Event wake_;
    std::unique_ptr<Printer> printer_;
    OutputQuery query_;
    std::string current_;
    bool interrupted_ = false;
    bool away_ = false;
    bool ran_ = false;             ///< It was seen running.
    bool printed_ = false;         ///< Something.
    bool shown_anything_ = false;  ///< Of the current execution.
    std::optional<std::chrono::steady_clock::time_point> linger_until_;
};

}  // namespace

int job_logs(const CommonOptions& common, const JobLogsOptions& options) {
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        Logs logs(redis, options);
        co_return co_await logs.run();
    });
}

}  // namespace rqxx::cli
