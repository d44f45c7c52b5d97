#pragma once

#include <boost/json/fwd.hpp>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <rqxx/time.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace rqxx {

/// An entry of a dict. A template only so that it can be named before `Value` is complete.
template <class V>
struct BasicPair {
    V key;
    V value;
    friend bool operator==(const BasicPair&, const BasicPair&) = default;
};

/// A Python value as data: what arguments, results and meta decode to. Executes nothing.
///
/// Anything without a counterpart here (classes, functions, instances) is an `Opaque` node that
/// says what it was. Sequences keep their Python kind, so that a value survives a round trip.
class Value {
public:
    using Pair = BasicPair<Value>;
    using Items = std::vector<Value>;
    using Pairs = std::vector<Pair>;

    enum class Kind {
        none,
        boolean,
        integer,
        big_integer,
        real,
        string,
        bytes,
        list,
        tuple,
        set,
        frozenset,
        dict,
        datetime,
        date,
        time,
        timedelta,
        uuid,
        decimal,
        opaque
    };

    /// `None`.
    Value() noexcept = default;
    Value(std::nullptr_t) noexcept {}
    Value(bool value) : kind_(Kind::boolean), data_(value) {}
    template <std::integral T>
        requires(!std::same_as<T, bool> && !std::same_as<T, char>)
    Value(T value);
    Value(double value) : kind_(Kind::real), data_(value) {}
    Value(std::string value) : kind_(Kind::string), data_(std::move(value)) {}
    Value(std::string_view value) : Value(std::string(value)) {}
    Value(const char* value) : Value(std::string(value)) {}

    [[nodiscard]] static Value bytes(std::string value) { return {Kind::bytes, std::move(value)}; }
    [[nodiscard]] static Value list(Items items = {}) { return {Kind::list, std::move(items)}; }
    [[nodiscard]] static Value tuple(Items items = {}) { return {Kind::tuple, std::move(items)}; }
    [[nodiscard]] static Value set(Items items = {}) { return {Kind::set, std::move(items)}; }
    [[nodiscard]] static Value frozenset(Items items = {}) {
        return {Kind::frozenset, std::move(items)};
    }
    [[nodiscard]] static Value dict(Pairs pairs = {});
    /// Text kinds: `big_integer` (decimal digits), `uuid`, `decimal`, and `datetime`, `date`,
    /// `time`, `timedelta` in ISO 8601 form (a datetime without an offset is naive).
    [[nodiscard]] static Value text(Kind kind, std::string value) {
        return {kind, std::move(value)};
    }
    /// Something without a counterpart. `label` is `module.name`; `parts` what it was made from.
    [[nodiscard]] static Value opaque(std::string label, Items parts = {});

    [[nodiscard]] Kind kind() const noexcept { return kind_; }
    [[nodiscard]] bool is_none() const noexcept { return kind_ == Kind::none; }
    [[nodiscard]] bool is_string() const noexcept { return kind_ == Kind::string; }
    [[nodiscard]] bool is_dict() const noexcept { return kind_ == Kind::dict; }
    /// A list, tuple, set or frozenset.
    [[nodiscard]] bool is_sequence() const noexcept;

    /// Access by kind. Calling the wrong one is a programming error (asserted).
    [[nodiscard]] bool as_bool() const { return std::get<bool>(data_); }
    [[nodiscard]] std::int64_t as_integer() const { return std::get<std::int64_t>(data_); }
    [[nodiscard]] double as_real() const { return std::get<double>(data_); }
    /// The text of a string, bytes, or any text kind; an opaque node's label.
    [[nodiscard]] const std::string& as_text() const;
    [[nodiscard]] const Items& items() const { return std::get<Items>(data_); }
    [[nodiscard]] Items& items() { return std::get<Items>(data_); }
    [[nodiscard]] const Pairs& pairs() const { return std::get<Pairs>(data_); }
    [[nodiscard]] Pairs& pairs() { return std::get<Pairs>(data_); }
    /// The value of a dict's string key, or nullptr.
    [[nodiscard]] const Value* find(std::string_view key) const noexcept;

    friend bool operator==(const Value& a, const Value& b);

private:
    struct Opaque {
        std::string label;
        Items parts;
        friend bool operator==(const Opaque&, const Opaque&) = default;
    };

    Value(Kind kind, std::string text) : kind_(kind), data_(std::move(text)) {}
    Value(Kind kind, Items items) : kind_(kind), data_(std::move(items)) {}

    Kind kind_ = Kind::none;
    std::variant<std::monostate, bool, std::int64_t, double, std::string, Items, Pairs, Opaque>
        data_;

public:
    /// What an opaque node was made from.
    [[nodiscard]] const Items& parts() const { return std::get<Opaque>(data_).parts; }
};

/// As JSON for people and scripts. What JSON lacks becomes an object with one `$…` key that names
/// its kind: `{"$bytes": base64}`, `{"$datetime": iso}`, `{"$opaque": "module.name", "parts":
/// […]}`, a dict with keys that are no strings `{"$dict": [[key, value]…]}`. Tuples and sets are
/// arrays; NaN and infinities are `{"$float": "nan"}`. Invalid UTF-8 is replaced by U+FFFD.
[[nodiscard]] boost::json::value to_json(const Value& value);
/// Plain JSON as a value: arrays are lists, objects dicts.
[[nodiscard]] Value from_json(const boost::json::value& json);
/// As Python's repr() would show it, cut to `max_size` bytes with `...` where longer.
[[nodiscard]] std::string repr(const Value& value, std::size_t max_size = 75);

template <std::integral T>
    requires(!std::same_as<T, bool> && !std::same_as<T, char>)
Value::Value(T value) {
    if (std::in_range<std::int64_t>(value)) {
        kind_ = Kind::integer;
        data_ = static_cast<std::int64_t>(value);
    } else {
        kind_ = Kind::big_integer;
        data_ = std::to_string(value);
    }
}

}  // namespace rqxx
