#pragma once

#include <boost/json/fwd.hpp>
#include <concepts>
#include <limits>
#include <map>
#include <optional>
#include <rqxx/codec.hpp>
#include <rqxx/error.hpp>
#include <rqxx/value.hpp>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace rqxx {

/// C++ types from and to `Value`: bool, integers, double, std::string, vector, map with string
/// keys, optional, boost::json::value (as a result) and Value itself.
/// @throws Error `Errc::usage` where the value does not fit, naming what was expected.
template <class T>
struct Convert;

namespace detail {
[[noreturn]] void wrong_kind(std::string_view expected, const Value& got);
}

template <>
struct Convert<Value> {
    static Value from(const Value& value) { return value; }
    static Value to(Value value) { return value; }
};
template <>
struct Convert<bool> {
    static bool from(const Value& value) {
        if (value.kind() != Value::Kind::boolean) detail::wrong_kind("a bool", value);
        return value.as_bool();
    }
    static Value to(bool value) { return value; }
};
template <std::integral T>
struct Convert<T> {
    static T from(const Value& value) {
        if (value.kind() != Value::Kind::integer || !std::in_range<T>(value.as_integer()))
            detail::wrong_kind("an integer in range", value);
        return static_cast<T>(value.as_integer());
    }
    static Value to(T value) { return value; }
};
template <std::floating_point T>
struct Convert<T> {
    static T from(const Value& value) {
        if (value.kind() == Value::Kind::integer) return static_cast<T>(value.as_integer());
        if (value.kind() != Value::Kind::real) detail::wrong_kind("a number", value);
        return static_cast<T>(value.as_real());
    }
    static Value to(T value) { return static_cast<double>(value); }
};
template <>
struct Convert<std::string> {
    static std::string from(const Value& value) {
        if (!value.is_string()) detail::wrong_kind("a string", value);
        return value.as_text();
    }
    static Value to(std::string value) { return value; }
};
template <>
struct Convert<boost::json::value> {
    static boost::json::value from(const Value& value);
    static Value to(const boost::json::value& value);
};
template <class T>
struct Convert<std::optional<T>> {
    static std::optional<T> from(const Value& value) {
        if (value.is_none()) return std::nullopt;
        return Convert<T>::from(value);
    }
    static Value to(const std::optional<T>& value) {
        return value ? Convert<T>::to(*value) : Value();
    }
};
template <class T>
struct Convert<std::vector<T>> {
    static std::vector<T> from(const Value& value) {
        if (!value.is_sequence()) detail::wrong_kind("a sequence", value);
        std::vector<T> result;
        result.reserve(value.items().size());
        for (const Value& item : value.items())
            result.push_back(Convert<T>::from(item));
        return result;
    }
    static Value to(const std::vector<T>& values) {
        Value::Items items;
        items.reserve(values.size());
        for (const T& value : values)
            items.push_back(Convert<T>::to(value));
        return Value::list(std::move(items));
    }
};
template <class T>
struct Convert<std::map<std::string, T>> {
    static std::map<std::string, T> from(const Value& value) {
        if (!value.is_dict()) detail::wrong_kind("a dict", value);
        std::map<std::string, T> result;
        for (const auto& [key, item] : value.pairs())
            result.emplace(Convert<std::string>::from(key), Convert<T>::from(item));
        return result;
    }
    static Value to(const std::map<std::string, T>& values) {
        Value::Pairs pairs;
        for (const auto& [key, value] : values)
            pairs.push_back({Value(key), Convert<T>::to(value)});
        return Value::dict(std::move(pairs));
    }
};

/// A call with typed arguments: `make_call("pkg.area", 2.0, 3.5)`, `make_call("pkg.send", "to",
/// list)`.
template <class... Args>
[[nodiscard]] Call make_call(std::string func_name, const Args&... args) {
    const auto value = [](const auto& arg) -> Value {
        using T = std::decay_t<decltype(arg)>;
        if constexpr (std::is_constructible_v<std::string, const T&>)
            return Value(std::string(arg));
        else
            return Convert<T>::to(arg);
    };
    Call call;
    call.func_name = std::move(func_name);
    call.args = Value::tuple({value(args)...});
    return call;
}

}  // namespace rqxx
