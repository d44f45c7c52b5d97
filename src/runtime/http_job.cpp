#include "runtime/http_job.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <rqxx/codec.hpp>

#include "base/utf8.hpp"
#include "runtime/job_document.hpp"
#include "runtime/signing.hpp"

namespace rqxx::runtime {

using namespace std::chrono_literals;

namespace {

constexpr std::size_t max_shown = 200;

/// Control characters, also those of C1, and what turns a line around.
bool is_unprintable(std::uint32_t code) {
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029 ||
           (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

/// The beginning of a text, in one line.
std::string beginning(std::string_view text) {
    const std::string valid = to_valid_utf8(text.substr(0, max_shown * 8));
    std::string shown;
    std::size_t characters = 0;
    for (std::size_t at = 0; at < valid.size() && characters < max_shown;) {
        const Utf8 next = next_utf8(valid, at);
        if (!is_unprintable(next.code) && next.code != ' ') {
            shown.append(valid, at, next.length);
            ++characters;
        } else if (!shown.empty() && !shown.ends_with(' ')) {
            shown += ' ';
            ++characters;
        }
        at += next.length;
    }
    while (shown.ends_with(' '))
        shown.pop_back();
    return shown;
}

std::string lower(std::string text) {
    for (char& c : text)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return text;
}

/// The type without its parameters.
std::string content_type(const HttpResponse& response) {
    std::string type = lower(response.header("Content-Type").value_or(""));
    type.resize(std::min(type.find(';'), type.size()));
    type.erase(type.find_last_not_of(" \t") + 1);
    return type;
}

bool is_json(std::string_view type) {
    return type == "application/json" || type == "text/json" || type.ends_with("+json");
}

/// Where a redirect leads, without credentials and query.
std::string shown_location(const HttpResponse& response, const HttpUrl& url) {
    std::string location = response.header("Location").value_or("");
    if (location.starts_with("//")) location.insert(0, url.tls ? "https:" : "http:");
    if (location.starts_with('/'))
        return beginning(location.substr(0, location.find_first_of("?#")));
    if (const auto parsed = parse_http_url(location)) return beginning(shown_url(*parsed));
    return "another place";
}

}  // namespace

HttpRequest http_job_request(const Execution& execution, const HttpUrl& url,
                             const std::vector<std::string>& secrets) {
    const Job& job = execution.job;
    HttpRequest request{.method = "POST", .url = url};
    request.body = job_document(execution);
    request.headers = {{"Content-Type", "application/json"},
                       {"Accept", "application/json, text/plain;q=0.9, */*;q=0.1"},
                       {"RQ-Job-Id", job.id},
                       {"Idempotency-Key", execution.id}};
    if (!secrets.empty()) {
        request.headers.emplace_back("webhook-id", execution.id);
        sign(request, secrets, execution.id);
    }
    // The job's own time limit is the worker's to keep.
    request.timeout = std::chrono::hours(24 * 365);
    request.connect_timeout = 30s;
    request.max_body = max_http_result;
    return request;
}

RunOutcome http_job_failure(const HttpUrl& url, std::string_view what) {
    return failed_with(RunOutcome::Kind::failure,
                       fmt::format("rqxx.HttpError: POST {}{}\n", shown_url(url), what));
}

RunOutcome http_job_outcome(const HttpResponse& response, const HttpUrl& url,
                            Serializer serializer) {
    const std::string answered = fmt::format(" answered {}", response.status);
    if (response.status == 429 || response.status == 503) {
        const auto wait = retry_after(response);
        if (wait && response.status == 429)
            return rate_limited(*wait, fmt::format("POST {}{}", shown_url(url), answered));
        if (wait)
            return {.kind = RunOutcome::Kind::postponed,
                    .payload = std::to_string(std::max(*wait, 1s).count()),
                    .error = fmt::format("POST {}{}", shown_url(url), answered)};
    }
    if (response.status >= 300 && response.status < 400 && response.header("Location"))
        return http_job_failure(url, fmt::format("{}: a redirect to {}, which is not followed",
                                                 answered, shown_location(response, url)));
    if (response.status < 200 || response.status >= 300) {
        const std::string text = beginning(response.body);
        return http_job_failure(url, text.empty() ? answered : answered + ": " + text);
    }
    if (!response.cut_short.empty())
        return http_job_failure(
            url, fmt::format("{}, and the answer is not whole: {}", answered, response.cut_short));
    const auto success = [&](const Value& result) -> RunOutcome {
        return {.kind = RunOutcome::Kind::success,
                .payload = encode_return_value(result, serializer),
                .error = {}};
    };
    if (response.status == 204 || response.body.empty()) return success({});
    if (is_json(content_type(response))) {
        const auto value = decode_json(response.body, {.max_bytes = max_http_result});
        if (value) return success(*value);
        return http_job_failure(url,
                                fmt::format("{} with what is not JSON ({}): {}", answered,
                                            value.error().describe(), beginning(response.body)));
    }
    const bool is_text = is_valid_utf8(response.body);
    return success(is_text ? Value(response.body) : Value::bytes(response.body));
}

}  // namespace rqxx::runtime
