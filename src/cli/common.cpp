#include <fmt/format.h>
#include <pwd.h>
#include <unistd.h>

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/host_name.hpp>
#include <cstdlib>
#include <fstream>
#include <rqxx/audit.hpp>
#include <rqxx/error.hpp>

#include "cli/commands.hpp"
#include "runtime/embedded_redis.hpp"

namespace rqxx::cli {

namespace asio = boost::asio;
using namespace std::chrono_literals;

RedisOptions redis_options(const CommonOptions& common, std::string client_name) {
    RedisOptions options;
    options.client_name = std::move(client_name);
    options.tls_ca_file = common.redis_ca_file;
    if (!common.redis_url.empty()) {
        auto url = parse_redis_url(common.redis_url);
        if (!url) throw Error(Errc::usage, fmt::format("--redis-url: {}", url.error().message));
        options.url = std::move(*url);
    } else if (const auto embedded = runtime::find_embedded_redis(common.data_dir)) {
        options.url = *embedded;
    }
    return options;
}

std::string token_option(std::string_view flag, const std::string& file) {
    std::ifstream in(file);
    std::string token;
    if (!std::getline(in, token) || token.empty())
        throw Error(Errc::usage,
                    fmt::format("{}: {} has no token in its first line", flag, printable(file)));
    return token;
}

std::chrono::seconds duration_option(std::string_view flag, const std::string& text) {
    const auto duration = parse_duration(text);
    if (!duration) throw Error(Errc::usage, fmt::format("{}: {}", flag, duration.error().message));
    return *duration;
}

std::vector<std::string> secrets_option(std::string_view flag, const std::string& file,
                                        const char* environment) {
    std::string text;
    if (!file.empty()) {
        std::ifstream in(file);
        if (!in) throw Error(Errc::usage, fmt::format("{}: cannot read {}", flag, file));
        text.assign(std::istreambuf_iterator<char>(in), {});
    } else if (const char* secret = std::getenv(environment)) {
        text = secret;
        if (text.empty()) return {};
    } else {
        return {};
    }
    auto secrets = parse_webhook_secrets(text);
    if (!secrets) throw Error(Errc::usage, fmt::format("{}: {}", flag, secrets.error().message));
    return std::move(*secrets);
}

WebhookOptions webhook_options(const WebhookSettings& settings) {
    WebhookOptions options;
    if (!settings.off)
        options.secrets =
            secrets_option("--webhook-secret-file", settings.secret_file, "RQXX_WEBHOOK_SECRET");
    return options;
}

LogLevel log_level(const CommonOptions& common) {
    return parse_log_level(common.log_level).value();
}
LogFormat log_format(const CommonOptions& common) {
    return parse_log_format(common.log_format).value();
}

int with_redis(const CommonOptions& common,
               const std::function<asio::awaitable<int>(RedisClient&, Logger&)>& body) {
    asio::io_context context(1);
    Logger log(log_level(common), log_format(common));
    // The error, if any, is told once, by the exception.
    RedisClient redis(context.get_executor(), redis_options(common, "rqxx"), null_logger());
    int code = 1;
    std::exception_ptr failure;
    const auto run = [](RedisClient& client, Logger& logger,
                        const std::function<asio::awaitable<int>(RedisClient&, Logger&)>& what)
        -> asio::awaitable<int> {
        co_await client.connect(5s);
        co_return co_await what(client, logger);
    };
    asio::co_spawn(context, run(redis, log, body), [&](std::exception_ptr error, int result) {
        failure = error;
        code = result;
        redis.close();
    });
    context.run();
    if (failure) std::rethrow_exception(failure);
    return code;
}

std::string command_line_user() {
    std::array<char, 4096> buffer{};
    passwd record{};
    passwd* found = nullptr;
    std::string user = std::to_string(::geteuid());
    if (::getpwuid_r(::geteuid(), &record, buffer.data(), buffer.size(), &found) == 0 &&
        found != nullptr)
        user = record.pw_name;
    boost::system::error_code ignored;
    return fmt::format("{}@{}", user, asio::ip::host_name(ignored));
}

asio::awaitable<void> note_action(RedisClient& redis, std::string action, std::string target,
                                  std::string details) {
    AuditEntry entry;
    entry.by = command_line_user();
    entry.via = "cli";
    entry.action = std::move(action);
    entry.target = std::move(target);
    entry.outcome = "done";
    entry.details = std::move(details);
    try {
        co_await AuditLog(redis).write(entry);
    } catch (const Error& error) {
        fmt::print(stderr, "rqxx: this is done, but missing in the audit log: {}\n",
                   printable(error.message()));
    }
}

Table::Table(std::vector<std::string> headings) {
    rows_.push_back(std::move(headings));
}
void Table::add(std::vector<std::string> cells) {
    rows_.push_back(std::move(cells));
}

void Table::print(std::FILE* out) const {
    std::vector<std::size_t> widths(rows_.front().size());
    std::vector<bool> numeric(widths.size(), rows_.size() > 1);
    for (std::size_t r = 0; r < rows_.size(); ++r) {
        for (std::size_t c = 0; c < widths.size(); ++c) {
            const std::string& cell = rows_[r][c];
            widths[c] = std::max(widths[c], cell.size());
            if (r > 0 && cell.find_first_not_of("0123456789.,%-") != std::string::npos)
                numeric[c] = false;
        }
    }
    for (std::size_t r = 0; r < rows_.size(); ++r) {
        std::string line;
        for (std::size_t c = 0; c < widths.size(); ++c) {
            if (c > 0) line += "  ";
            line += numeric[c] ? fmt::format("{:>{}}", rows_[r][c], widths[c])
                               : fmt::format("{:<{}}", rows_[r][c], widths[c]);
        }
        line.erase(line.find_last_not_of(' ') + 1);
        fmt::print(out, "{}\n", r == 0 ? colored(line, 1) : line);
    }
}

std::string printable(std::string_view text) {
    std::string result;
    for (std::size_t i = 0; i < text.size();) {
        const auto byte = static_cast<unsigned char>(text[i]);
        std::size_t length = byte < 0x80                   ? 1
                             : byte >= 0xc2 && byte < 0xe0 ? 2
                             : byte >= 0xe0 && byte < 0xf0 ? 3
                             : byte >= 0xf0 && byte < 0xf5 ? 4
                                                           : 0;
        for (std::size_t k = 1; k < length; ++k) {
            if (i + k >= text.size() || (static_cast<unsigned char>(text[i + k]) & 0xc0) != 0x80)
                length = 0;
        }
        // U+0080…U+009F are control characters too, and U+202A…U+202E, U+2066…U+2069 turn the line
        // around.
        const std::string_view character = text.substr(i, length);
        const bool control =
            (length == 1 && (byte < 0x20 || byte == 0x7f)) ||
            (byte == 0xc2 && length == 2 && static_cast<unsigned char>(text[i + 1]) < 0xa0) ||
            (character >= "\xe2\x80\xaa" && character <= "\xe2\x80\xae") ||
            (character >= "\xe2\x81\xa6" && character <= "\xe2\x81\xa9");
        if (length == 1 && (byte == '\n' || byte == '\t'))
            result += text[i];
        else if (length == 0 || control)
            result += "\xef\xbf\xbd";
        else
            result += character;
        i += std::max<std::size_t>(length, 1);
    }
    return result;
}

std::string colored(std::string_view text, int sgr) {
    static const bool colors = ::isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
    return colors ? fmt::format("\x1b[{}m{}\x1b[0m", sgr, text) : std::string(text);
}

}  // namespace rqxx::cli
