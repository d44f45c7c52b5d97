#include <fmt/format.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/json/parse.hpp>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <rqxx/monitor.hpp>

#include "base/task_group.hpp"
#include "cli/commands.hpp"
#include "cli/top_screen.hpp"
#include "cli/top_terminal.hpp"
#include "http/api.hpp"
#include "runtime/http_client.hpp"

namespace rqxx::cli {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

constexpr std::string_view default_url = "http://127.0.0.1:8000";

/// Whom the API is asked of.
class TopSource {
public:
    virtual ~TopSource() = default;
    /// @throws Error where there is no good answer.
    virtual asio::awaitable<json::object> get(std::string target) = 0;
    virtual void close() {}
};

json::object object_of(const std::string& body, std::string_view target) {
    boost::system::error_code error;
    json::value parsed = json::parse(body, error);
    if (error || !parsed.is_object())
        throw Error(Errc::protocol, fmt::format("{}: the answer is no JSON object", target));
    return std::move(parsed.get_object());
}

/// What a problem says of itself.
std::string problem_of(const std::string& body) {
    boost::system::error_code error;
    const json::value parsed = json::parse(body, error);
    if (error || !parsed.is_object()) return {};
    const auto* detail = parsed.get_object().if_contains("detail");
    return detail != nullptr && detail->is_string() ? ": " + shown_text(detail->get_string())
                                                    : std::string();
}

/// A server, by HTTP.
class HttpSource : public TopSource {
public:
    HttpSource(asio::any_io_executor executor, const std::string& url, std::string token)
        : client_(std::move(executor), {4, 60s}), token_(std::move(token)) {
        auto parsed = runtime::parse_http_url(url);
        if (!parsed) throw Error(Errc::usage, fmt::format("--url: {}", parsed.error().message));
        server_ = std::move(*parsed);
        while (server_.target.ends_with('/'))
            server_.target.pop_back();
    }

    asio::awaitable<json::object> get(std::string target) override {
        runtime::HttpRequest request;
        request.url = server_;
        request.url.target += target;
        if (!token_.empty()) request.headers.emplace_back("Authorization", "Bearer " + token_);
        request.headers.emplace_back("Cache-Control", "max-age=1");  // Others may watch, too.
        request.timeout = 10s;
        request.max_body = std::size_t{64} << 20;
        const auto response = co_await send(std::move(request));
        if (response.status == 401 || response.status == 403)
            throw Error(Errc::authentication,
                        fmt::format("the server wants another token ({}): give it by --token-file "
                                    "or RQXX_TOKEN",
                                    response.status));
        if (response.status != 200)
            throw Error(Errc::protocol, fmt::format("the server answers {}{}", response.status,
                                                    problem_of(response.body)));
        if (!response.cut_short.empty())
            throw Error(Errc::protocol, fmt::format("{}: {}", target, response.cut_short));
        co_return object_of(response.body, target);
    }
    void close() override { client_.close(); }

private:
    /// The client's errors do not say whom it asked.
    asio::awaitable<runtime::HttpResponse> send(runtime::HttpRequest request) {
        std::optional<Error> failed;
        try {
            co_return co_await client_.send(std::move(request));
        } catch (const Error& error) {
            failed = error;
        }
        throw Error(failed->code(),
                    fmt::format("{}: {}", runtime::shown_url(server_), failed->message()));
    }

    runtime::HttpClient client_;
    runtime::HttpUrl server_;
    std::string token_;
};

/// Redis itself: the same routes, asked within this process.
class RedisSource : public TopSource {
public:
    RedisSource(asio::any_io_executor executor, RedisOptions options)
        : redis_(std::move(executor), std::move(options), null_logger()),
          monitor_(redis_),
          pulse_(redis_) {
        http::add_monitor_routes(router_, monitor_);
        http::add_history_routes(router_, redis_);
        http::add_redis_routes(router_, redis_, pulse_);
    }

    asio::awaitable<json::object> get(std::string target) override {
        co_await redis_.connect(3s);
        http::Request request;
        request.target = target;
        if (!http::parse_target(request)) throw Error(Errc::internal, "a malformed target");
        const auto response = co_await router_.dispatch(std::move(request));
        if (response.status != 200)
            throw Error(Errc::connection, "Redis does not answer" + problem_of(response.body));
        co_return object_of(response.body, target);
    }
    void close() override { redis_.close(); }

private:
    RedisClient redis_;
    Monitor monitor_;
    runtime::RedisPulse pulse_;
    http::Router router_;
};

std::string token_of(const TopOptions& options) {
    if (!options.token_file.empty()) return token_option("--token-file", options.token_file);
    const char* token = std::getenv("RQXX_TOKEN");
    return token == nullptr ? "" : token;
}

bool colors_wanted(const TopOptions& options) {
    const char* no_color = std::getenv("NO_COLOR");
    return !options.no_color && (no_color == nullptr || *no_color == '\0') &&
           ::isatty(STDOUT_FILENO) == 1;
}

class TopCommand {
public:
    TopCommand(const CommonOptions& common, const TopOptions& options)
        : options_(options),
          interval_(
              std::chrono::duration_cast<std::chrono::milliseconds>(Seconds(options.interval))),
          source_(make_source(common)),
          screen_(shown_source_, colors_wanted(options)),
          refresh_(context_.get_executor()),
          leave_(context_.get_executor()),
          signals_(context_, SIGINT, SIGTERM, SIGHUP),
          terminal_signals_(context_) {}

    int run() {
        const bool once =
            options_.once || ::isatty(STDOUT_FILENO) != 1 || ::isatty(STDIN_FILENO) != 1;
        std::exception_ptr failure;
        asio::co_spawn(context_, once ? print() : live(), [&](std::exception_ptr error) {
            failure = error;
            signals_.cancel();
            terminal_signals_.cancel();
            source_->close();
        });
        context_.run();
        if (failure) std::rethrow_exception(failure);
        return 0;
    }

private:
    std::unique_ptr<TopSource> make_source(const CommonOptions& common) {
        if (options_.url.empty() && !common.redis_url.empty()) {
            auto settings = redis_options(common, "rqxx-top");
            shown_source_ = shown_text(settings.url.redacted());
            return std::make_unique<RedisSource>(context_.get_executor(), std::move(settings));
        }
        const std::string url = options_.url.empty() ? std::string(default_url) : options_.url;
        if (const auto parsed = runtime::parse_http_url(url))
            shown_source_ = shown_text(runtime::shown_url(*parsed));
        return std::make_unique<HttpSource>(context_.get_executor(), url, token_of(options_));
    }

    asio::awaitable<TopAnswers> ask() {
        TopAnswers answers;
        std::vector<std::pair<std::string, std::string>> questions{
            {"stats", "/api/rq/stats"},
            {"workers", "/api/rq/workers"},
            {"jobs", "/api/rq/jobs/recent?limit=50" +
                         (screen_.status().empty() || screen_.view() != TopScreen::View::jobs
                              ? std::string()
                              : "&status=" + screen_.status())},
            {"alerts", "/api/v1/alerts"},
            {"history", "/api/v1/history?span=5m"}};
        for (auto& [name, target] : questions)
            answers.answers[name] = co_await source_->get(std::move(target));
        answers.at = format_utc(utc_now()).substr(11, 8) + " UTC";
        co_return answers;
    }

    asio::awaitable<void> print() {
        screen_.set(co_await ask());
        std::size_t width = TopTerminal::size().first;
        if (::isatty(STDOUT_FILENO) != 1) {
            width = 120;
            const char* columns = std::getenv("COLUMNS");
            std::size_t given = 0;
            if (columns != nullptr &&
                std::from_chars(columns, columns + std::char_traits<char>::length(columns), given)
                        .ec == std::errc{} &&
                given >= 20 && given <= 1000)
                width = given;
        }
        for (const auto& line : screen_.draw_all(width))
            fmt::print("{}\n", line);
        std::fflush(stdout);
    }

    asio::awaitable<void> live() {
        TopTerminal terminal(context_.get_executor());
        terminal_ = &terminal;
        signals_.async_wait([this](boost::system::error_code error, int signal) {
            if (error) return;
            signal_ = signal;
            leave_.notify();
        });
        for (const int signal : {SIGWINCH, SIGTSTP, SIGCONT})
            terminal_signals_.add(signal);
        listen();
        TaskGroup tasks(context_.get_executor());
        tasks.spawn("asking", ask_loop());
        tasks.spawn("keys", key_loop());
        draw();
        while (!leaving_ && signal_ == 0 && tasks.size() == 2)
            co_await leave_.wait(500ms);
        tasks.cancel();
        std::exception_ptr failure;
        try {
            co_await tasks.join();
        } catch (...) {
            failure = std::current_exception();
        }
        terminal_ = nullptr;
        terminal.leave();
        if (failure) std::rethrow_exception(failure);
    }

    /// The window's size has changed, or the shell wants the terminal for a while.
    void listen() {
        terminal_signals_.async_wait([this](boost::system::error_code error, int signal) {
            if (error || terminal_ == nullptr) return;
            if (signal == SIGTSTP) {
                terminal_->leave();
                ::raise(SIGSTOP);
                terminal_->enter();
            } else if (signal == SIGCONT) {
                terminal_->leave();
                terminal_->enter();
            }
            draw();
            listen();
        });
    }

    void draw() {
        const auto [width, height] = TopTerminal::size();
        terminal_->show(screen_.draw(width, height));
    }

    asio::awaitable<void> ask_loop() {
        TopAnswers newest;
        for (;;) {
            if (!screen_.paused()) {
                try {
                    newest = co_await ask();
                } catch (const Error& error) {
                    newest.problem = error.message();
                }
                screen_.set(newest);
                draw();
            }
            co_await refresh_.wait(interval_);
        }
    }

    asio::awaitable<void> key_loop() {
        for (;;) {
            for (const auto& [key, text] : co_await terminal_->keys()) {
                const auto status = screen_.status();
                const auto view = screen_.view();
                if (!screen_.press(key, text)) {
                    leaving_ = true;
                    leave_.notify();
                    co_return;
                }
                // Other jobs are wanted now.
                if (status != screen_.status() || view != screen_.view()) refresh_.notify();
            }
            draw();
        }
    }

    TopOptions options_;
    std::chrono::milliseconds interval_;
    asio::io_context context_{1};
    std::string shown_source_;
    std::unique_ptr<TopSource> source_;
    TopScreen screen_;
    Event refresh_, leave_;
    asio::signal_set signals_, terminal_signals_;
    TopTerminal* terminal_ = nullptr;
    bool leaving_ = false;
    int signal_ = 0;
};

}  // namespace

int top(const CommonOptions& common, const TopOptions& options) {
    return TopCommand(common, options).run();
}

}  // namespace rqxx::cli
