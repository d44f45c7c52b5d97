#include <fmt/format.h>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <rqxx/codec.hpp>
#include <rqxx/convert.hpp>
#include <rqxx/value.hpp>

#include "base/utf8.hpp"
#include "model/python_float.hpp"

namespace rqxx {
namespace {

namespace json = boost::json;

json::value convert(const Value& value, int depth);

json::array convert_all(const Value::Items& items, int depth) {
    json::array array;
    array.reserve(items.size());
    for (const auto& item : items)
        array.push_back(convert(item, depth + 1));
    return array;
}

json::value convert_dict(const Value::Pairs& pairs, int depth) {
    // A key of our own kind of label would be mistaken for one.
    const bool plain = std::all_of(pairs.begin(), pairs.end(), [](const Value::Pair& pair) {
        return pair.key.is_string() && !pair.key.as_text().starts_with('$');
    });
    if (plain) {
        json::object object;
        for (const auto& [key, item] : pairs)
            object[to_valid_utf8(key.as_text())] = convert(item, depth + 1);
        return object;
    }
    json::array entries;
    for (const auto& [key, item] : pairs)
        entries.push_back(json::array{convert(key, depth + 1), convert(item, depth + 1)});
    return json::object{{"$dict", std::move(entries)}};
}

json::value convert(const Value& value, int depth) {
    using Kind = Value::Kind;
    if (depth > 300) return json::object{{"$opaque", "too deep"}};
    const auto labelled = [](const char* label, std::string_view text) -> json::value {
        return json::object{{label, to_valid_utf8(text)}};
    };
    switch (value.kind()) {
        case Kind::none:
            return nullptr;
        case Kind::boolean:
            return value.as_bool();
        case Kind::integer:
            return value.as_integer();
        case Kind::big_integer:
            return labelled("$int", value.as_text());
        case Kind::real:
            if (!std::isfinite(value.as_real()))
                return labelled("$float", python_float(value.as_real(), "nan", "inf"));
            return value.as_real();
        case Kind::string:
            return json::value(to_valid_utf8(value.as_text()));
        case Kind::bytes:
            return labelled("$bytes", base64_encode(value.as_text()));
        case Kind::list:
        case Kind::tuple:
        case Kind::set:
        case Kind::frozenset:
            return convert_all(value.items(), depth);
        case Kind::dict:
            return convert_dict(value.pairs(), depth);
        case Kind::datetime:
            return labelled("$datetime", value.as_text());
        case Kind::date:
            return labelled("$date", value.as_text());
        case Kind::time:
            return labelled("$time", value.as_text());
        case Kind::timedelta:
            return labelled("$timedelta", value.as_text());
        case Kind::uuid:
            return labelled("$uuid", value.as_text());
        case Kind::decimal:
            return labelled("$decimal", value.as_text());
        case Kind::opaque:
            return json::object{{"$opaque", to_valid_utf8(value.as_text())},
                                {"parts", convert_all(value.parts(), depth)}};
    }
    return nullptr;
}

}  // namespace

json::value to_json(const Value& value) {
    return convert(value, 0);
}

Value from_json(const json::value& value) {
    switch (value.kind()) {
        case json::kind::null:
            return {};
        case json::kind::bool_:
            return value.get_bool();
        case json::kind::int64:
            return value.get_int64();
        case json::kind::uint64:
            return value.get_uint64();
        case json::kind::double_:
            return value.get_double();
        case json::kind::string:
            return Value(std::string(value.get_string()));
        case json::kind::array: {
            Value::Items items;
            items.reserve(value.get_array().size());
            for (const auto& item : value.get_array())
                items.push_back(from_json(item));
            return Value::list(std::move(items));
        }
        case json::kind::object: {
            Value::Pairs pairs;
            pairs.reserve(value.get_object().size());
            for (const auto& [key, item] : value.get_object())
                pairs.push_back({Value(std::string_view(key.data(), key.size())), from_json(item)});
            return Value::dict(std::move(pairs));
        }
    }
    return {};
}

json::value Convert<json::value>::from(const Value& value) {
    return to_json(value);
}
Value Convert<json::value>::to(const json::value& value) {
    return from_json(value);
}

namespace detail {
void wrong_kind(std::string_view expected, const Value& got) {
    throw Error(Errc::usage, fmt::format("{} expected, not {}", expected, repr(got, 60)));
}
}  // namespace detail

}  // namespace rqxx
