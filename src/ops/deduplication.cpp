#include "ops/deduplication.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>

#include "ops/new_job.hpp"

namespace rqxx {

namespace {

constexpr std::array<std::string_view, 4> mode_words{"unique", "throttle", "debounce", "replace"};
constexpr std::size_t most_key_bytes = 512;
constexpr std::size_t most_request_key_bytes = 255;
constexpr std::chrono::seconds longest_period{std::chrono::hours(24 * 366)};

void check_key(std::string_view option, std::string_view key, std::size_t most_bytes) {
    const bool has_control_characters = std::ranges::any_of(
        key, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
    if (key.size() > most_bytes || has_control_characters)
        ops::refuse(option, fmt::format("must have at most {} bytes, and no control characters",
                                        most_bytes));
}

void check_duration(std::string_view option, std::chrono::seconds duration) {
    if (duration.count() < 1 || duration > longest_period)
        ops::refuse(option, "must be from 1 s to a year");
}

void check_dedup(const Dedup& dedup) {
    check_key("dedup.key", dedup.key, most_key_bytes);
    const bool timed = dedup.mode == DedupMode::throttle || dedup.mode == DedupMode::debounce;
    if (timed != dedup.period.has_value())
        ops::refuse("dedup.period",
                    fmt::format("{} {}", to_string(dedup.mode), timed ? "needs one" : "has none"));
    if (dedup.period) check_duration("dedup.period", *dedup.period);
    if (!dedup.max_delay) return;
    if (dedup.mode != DedupMode::debounce)
        ops::refuse("dedup.max_delay", "goes with debounce alone");
    check_duration("dedup.max_delay", *dedup.max_delay);
    if (*dedup.max_delay < *dedup.period)
        ops::refuse("dedup.max_delay", "must not be below the period");
}

}  // namespace

Parsed<DedupMode> parse_dedup_mode(std::string_view text) noexcept {
    const auto word = std::ranges::find(mode_words, text);
    if (word == mode_words.end())
        return ParseError(
            fmt::format("\"{}\" is not one of {}", text.substr(0, 40), fmt::join(mode_words, ", ")),
            "mode");
    return static_cast<DedupMode>(word - mode_words.begin());
}

std::string_view to_string(DedupMode mode) noexcept {
    return mode_words[static_cast<std::size_t>(mode)];
}

std::string default_dedup_key(const Call& call) {
    Value::Pairs kwargs = call.kwargs.is_dict() ? call.kwargs.pairs() : Value::Pairs();
    std::ranges::sort(kwargs, {}, [](const Value::Pair& pair) {
        return pair.key.is_string() ? pair.key.as_text() : std::string();
    });
    Value::Items args = call.args.is_sequence() ? call.args.items() : Value::Items();
    const Value all = Value::tuple({Value(call.func_name), call.instance,
                                    Value::tuple(std::move(args)), Value::dict(std::move(kwargs))});
    return fmt::format("{}:{}", call.func_name.substr(0, 200),
                       ops::sha256_hex(encode_pickle(all)).substr(0, 32));
}

std::string ops::sha256_hex(std::string_view bytes) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int size = 0;
    if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(), nullptr) != 1)
        throw Error(Errc::internal, "SHA-256 is not available");
    return fmt::format("{:02x}", fmt::join(digest.data(), digest.data() + size, ""));
}

void ops::check_deduplication(const EnqueueOptions& options) {
    if (options.dedup) {
        check_dedup(*options.dedup);
        if (options.dedup->mode == DedupMode::debounce && options.depends_on)
            refuse("depends_on", "a debounced job is scheduled; it cannot wait for others as well");
    }
    if (!options.idempotency) return;
    const Idempotency& request = *options.idempotency;
    if (request.key.empty()) refuse("idempotency_key", "must not be empty");
    check_key("idempotency_key", request.key, most_request_key_bytes);
    if (request.asked.empty()) refuse("idempotency.asked", "must not be empty");
    check_duration("idempotency.lifetime", request.lifetime);
}

}  // namespace rqxx
