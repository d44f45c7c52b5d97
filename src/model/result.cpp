#include <fmt/format.h>

#include <charconv>
#include <rqxx/job.hpp>

namespace rqxx {

namespace {

template <class T>
std::optional<T> number(std::string_view text) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || !(value >= 0) ||
        value > T(1'000'000'000'000))
        return std::nullopt;
    return value;
}

}  // namespace

std::string_view to_string(Result::Type type) noexcept {
    switch (type) {
        case Result::Type::successful:
            return "successful";
        case Result::Type::failed:
            return "failed";
        case Result::Type::stopped:
            return "stopped";
        case Result::Type::retried:
            return "retried";
        case Result::Type::max_retries_exceeded:
            return "max_retries_exceeded";
    }
    return "unknown";
}

Parsed<Result> parse_result(
    std::string_view entry_id,
    std::span<const std::pair<std::string_view, std::string_view>> fields) noexcept {
    constexpr std::size_t max_bytes = 64u << 20;
    Result result;
    result.id = entry_id;
    std::int64_t millis = 0;
    if (std::from_chars(entry_id.data(), entry_id.data() + entry_id.size(), millis).ec ==
            std::errc{} &&
        millis < 253402300800000)
        result.created_at = Timestamp{std::chrono::milliseconds(millis)};
    bool has_type = false;
    for (const auto& [field, value] : fields) {
        if (field == "type") {
            int type = 0;
            const auto [end, error] =
                std::from_chars(value.data(), value.data() + value.size(), type);
            if (error != std::errc{} || end != value.data() + value.size() || type < 1 || type > 5)
                return ParseError(fmt::format("\"{}\" is no type from 1 to 5", value.substr(0, 20)),
                                  "type");
            result.type = static_cast<Result::Type>(type);
            has_type = true;
        } else if (field == "worker_name")
            result.worker_name = value;
        else if (field == "execution_id")
            result.execution_id = value;
        else if (field == "cause")
            result.cause = value;
        else if (field == "max_rss_kb")
            result.max_rss_kb = number<std::int64_t>(value);
        else if (field == "cpu_seconds")
            result.cpu_seconds = number<double>(value);
        else if (field == "execution_started_at" || field == "execution_ended_at") {
            const auto time = parse_epoch(value);
            if (time)
                (field == "execution_started_at" ? result.execution_started_at
                                                 : result.execution_ended_at) = *time;
        } else if (field == "return_value") {
            auto bytes = base64_decode(value);
            if (!bytes) return ParseError(bytes.error().message, "return_value");
            result.return_value = std::move(*bytes);
        } else if (field == "exc_string") {
            const auto packed = base64_decode(value);
            if (!packed) return ParseError(packed.error().message, "exc_string");
            auto text = zlib_decompress(*packed, max_bytes);
            if (!text) return ParseError(text.error().message, "exc_string");
            result.exc_string = std::move(*text);
        }
    }
    if (!has_type) return ParseError("the field is missing", "type");
    return result;
}

std::string encode_return_value(const Value& value, Serializer serializer) {
    if (value.is_none()) return {};
    try {
        return base64_encode(encode(value, serializer));
    } catch (const Error&) {
        return base64_encode(encode(Value("Unserializable return value"), serializer));
    }
}

std::string encode_retry(std::int64_t max, const std::vector<std::int64_t>& intervals,
                         bool enqueue_at_front, Serializer serializer) {
    if (serializer == Serializer::json)
        return base64_encode(encode_json(Value("Unserializable return value")));
    // An instance of rq.job.Retry: NEWOBJ of the class without arguments, BUILD from its state.
    Value::Items list;
    for (const auto interval : intervals)
        list.emplace_back(interval);
    const std::string state =
        encode_pickle(Value::dict({{Value("max"), Value(max)},
                                   {Value("intervals"), Value::list(std::move(list))},
                                   {Value("enqueue_at_front"), Value(enqueue_at_front)}}));
    std::string bytes("\x80\x04\x8c\x06rq.job\x8c\x05Retry\x93)\x81", 20);
    bytes += std::string_view(state).substr(2, state.size() - 3);  // without PROTO and STOP
    bytes += "b.";
    return base64_encode(bytes);
}

std::string encode_exc_string(std::string_view traceback) {
    return base64_encode(zlib_compress(traceback));
}

}  // namespace rqxx
