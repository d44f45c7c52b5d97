#include <fmt/format.h>

#include <algorithm>
#include <rqxx/codec.hpp>

namespace rqxx {

Parsed<Serializer> parse_serializer(std::string_view name) noexcept {
    if (name == "pickle" || name == "default" || name == "rq.serializers.DefaultSerializer" ||
        name == "rq.serializers.PickleSerializer")
        return Serializer::pickle;
    if (name == "json" || name == "rq.serializers.JSONSerializer") return Serializer::json;
    return ParseError(fmt::format("\"{}\" is not one of pickle, json", name.substr(0, 40)),
                      "serializer");
}

std::string_view to_string(Serializer serializer) noexcept {
    return serializer == Serializer::json ? "json" : "pickle";
}

std::string encode(const Value& value, Serializer serializer) {
    return serializer == Serializer::json ? encode_json(value) : encode_pickle(value);
}

Serializer sniff(std::string_view bytes) noexcept {
    return bytes.starts_with('\x80') ? Serializer::pickle : Serializer::json;
}

Parsed<Value> decode(std::string_view bytes, const DecodeLimits& limits) noexcept {
    return sniff(bytes) == Serializer::pickle ? decode_pickle(bytes, limits)
                                              : decode_json(bytes, limits);
}

std::string encode_call(const Call& call, Serializer serializer) {
    return zlib_compress(encode(
        Value::tuple({Value(call.func_name), call.instance, call.args, call.kwargs}), serializer));
}

Parsed<Call> decode_call(std::string_view data, const DecodeLimits& limits,
                         Serializer* used) noexcept {
    try {
        // As RQ: what is not zlib is taken as it is.
        const auto unpacked = zlib_decompress(data, limits.max_bytes);
        if (!unpacked && unpacked.error().message.find("too large") != std::string::npos)
            return ParseError(unpacked.error().message, "data");
        const std::string_view bytes = unpacked ? std::string_view(*unpacked) : data;
        if (used != nullptr) *used = sniff(bytes);
        auto value = decode(bytes, limits);
        if (!value) return ParseError(value.error().message, "data", value.error().offset);
        if (!value->is_sequence() || value->items().size() != 4)
            return ParseError("it does not hold function, instance, args and kwargs", "data");
        auto& items = value->items();
        if (!items[0].is_string()) return ParseError("the function's name is not a string", "data");
        if (!items[2].is_sequence()) return ParseError("args is not a sequence", "data");
        if (!items[3].is_dict()) return ParseError("kwargs is not a mapping", "data");
        return Call{items[0].as_text(), std::move(items[1]), std::move(items[2]),
                    std::move(items[3])};
    } catch (const std::exception& error) {
        return ParseError(error.what(), "data");
    }
}

std::string describe_call(const Call& call) {
    std::string text = call.func_name + "(";
    std::string_view separator;
    if (call.args.is_sequence()) {
        for (const auto& arg : call.args.items()) {
            text += separator;
            text += repr(arg);
            separator = ", ";
        }
    }
    if (call.kwargs.is_dict()) {
        std::vector<std::string> keywords;
        for (const auto& [key, value] : call.kwargs.pairs())
            keywords.push_back((key.is_string() ? key.as_text() : repr(key)) + "=" + repr(value));
        std::sort(keywords.begin(), keywords.end());
        for (const auto& keyword : keywords) {
            text += separator;
            text += keyword;
            separator = ", ";
        }
    }
    return text + ")";
}

}  // namespace rqxx
