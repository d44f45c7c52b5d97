#include "http/job_request.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "ops/deduplication.hpp"
#include "ops/new_job.hpp"

namespace rqxx::http {
namespace {

using ops::refuse;

/// The string of a structured field, or the text as it is.
std::string unquoted(std::string_view text) {
    constexpr std::string_view field = "Idempotency-Key";
    if (!text.starts_with('"')) return std::string(text);
    std::string result;
    std::size_t at = 1;
    for (; at < text.size() && text[at] != '"'; ++at) {
        if (text[at] == '\\') ++at;
        if (at < text.size()) result += text[at];
    }
    if (at + 1 != text.size()) refuse(field, "the quoted string does not end where the key does");
    return result;
}

}  // namespace

std::string job_request_schema() {
    constexpr std::string_view duration = R"({"type":["integer","string","null"]})";
    constexpr std::string_view text = R"({"type":["string","null"]})";
    constexpr std::string_view flag = R"({"type":["boolean","null"]})";
    constexpr std::string_view ids = R"({"type":"array","items":{"type":"string"}})";
    const std::string retry = fmt::format(
        R"({{"oneOf":[{{"type":["integer","null"],"minimum":0}},{{"type":"object","required":["max"],"properties":{{"max":{{"type":"integer","minimum":0}},"intervals":{{"type":"array","items":{0}}},"at_front":{1}}},"additionalProperties":false}}]}})",
        duration, flag);
    const std::string depends_on = fmt::format(
        R"({{"oneOf":[{{"type":["string","null"]}},{0},{{"type":"object","required":["job_ids"],"properties":{{"job_ids":{0},"allow_failure":{1},"at_front":{1}}},"additionalProperties":false}}]}})",
        ids, flag);
    const std::string dedup = fmt::format(
        R"({{"type":["object","null"],"required":["mode"],"properties":{{"mode":{{"enum":["unique","throttle","debounce","replace"]}},"key":{{"type":["string","null"],"description":"default: the function and a hash of its arguments"}},"period":{0},"max_delay":{0}}},"additionalProperties":false}})",
        duration);
    return fmt::format(
        R"({{"type":"object","required":["func"],"properties":{{"func":{{"type":"string"}},"args":{{"type":["array","null"]}},"kwargs":{{"type":["object","null"]}},"queue":{0},"priority":{{"enum":["high","normal","low",null]}},"serializer":{{"enum":["pickle","json",null]}},"at":{{"type":["string","number","null"]}},"in":{1},"timeout":{1},"retry":{2},"result_ttl":{1},"failure_ttl":{1},"ttl":{1},"meta":{{"type":["object","null"]}},"depends_on":{3},"at_front":{4},"unique":{4},"dedup":{5},"description":{0},"job_id":{0},"group":{0}}},"additionalProperties":false}})",
        text, duration, retry, depends_on, flag, dedup);
}

std::optional<Idempotency> parse_idempotency(const Request& request) {
    constexpr std::string_view field = "Idempotency-Key";
    const auto given = request.header(field);
    if (!given) return std::nullopt;
    if (request.header_count(field) > 1) refuse(field, "is given more than once");
    Idempotency idempotency{.key = unquoted(*given), .asked = {}};
    const auto printable = [](char c) { return c >= 0x20 && c <= 0x7e; };
    if (idempotency.key.empty() || idempotency.key.size() > 255 ||
        !std::ranges::all_of(idempotency.key, printable))
        refuse(field, "must be 1 to 255 printable ASCII characters");
    idempotency.asked = ops::sha256_hex(fmt::format("POST {}\n{}", request.path, request.body));
    return idempotency;
}

}  // namespace rqxx::http
