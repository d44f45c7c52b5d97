#include <fmt/format.h>

#include <charconv>
#include <rqxx/rules.hpp>

namespace rqxx {
namespace {

constexpr std::size_t most_bytes = 200, most_steps = 16;

bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/// A scalar as text, the same for producers that write it in another way (1 and True are not).
std::string text_of(const Value& value) {
    switch (value.kind()) {
        case Value::Kind::boolean:
            return value.as_bool() ? "true" : "false";
        case Value::Kind::integer:
            return std::to_string(value.as_integer());
        case Value::Kind::real:
            return fmt::format("{}", value.as_real());
        case Value::Kind::string:
        case Value::Kind::bytes:
        case Value::Kind::big_integer:
        case Value::Kind::datetime:
        case Value::Kind::date:
        case Value::Kind::time:
        case Value::Kind::timedelta:
        case Value::Kind::uuid:
        case Value::Kind::decimal:
            return value.as_text();
        default:
            return {};
    }
}

const Value* step_into(const Value& value, const std::variant<std::int64_t, std::string>& step) {
    if (const auto* index = std::get_if<std::int64_t>(&step)) {
        if (value.kind() == Value::Kind::list || value.kind() == Value::Kind::tuple) {
            const auto size = static_cast<std::int64_t>(value.items().size());
            const auto at = *index < 0 ? *index + size : *index;
            return at >= 0 && at < size ? &value.items()[static_cast<std::size_t>(at)] : nullptr;
        }
        if (!value.is_dict()) return nullptr;
        for (const auto& pair : value.pairs()) {
            if (pair.key.kind() == Value::Kind::integer && pair.key.as_integer() == *index)
                return &pair.value;
        }
        return nullptr;
    }
    return value.is_dict() ? value.find(std::get<std::string>(step)) : nullptr;
}

}  // namespace

Parsed<KeyExpression> KeyExpression::parse(std::string_view text) {
    KeyExpression expression;
    expression.text_ = text;
    if (text.empty() || text.size() > most_bytes)
        return ParseError(fmt::format("must have 1 to {} bytes", most_bytes), "key");
    std::size_t at = 0;
    while (at < text.size() && is_name(text[at]))
        ++at;
    const auto root = text.substr(0, at);
    if (root == "queue")
        expression.root_ = Root::queue;
    else if (root == "function")
        expression.root_ = Root::function;
    else if (root == "args")
        expression.root_ = Root::args;
    else if (root == "kwargs")
        expression.root_ = Root::kwargs;
    else if (root == "meta")
        expression.root_ = Root::meta;
    else
        return ParseError("must begin with queue, function, args, kwargs or meta", "key");
    const bool takes_steps = expression.root_ != Root::queue && expression.root_ != Root::function;
    while (at < text.size()) {
        const auto begin = at;
        if (!takes_steps) return ParseError(fmt::format("nothing may follow {}", root), "key", at);
        if (text[at] == '.') {
            const auto from = ++at;
            while (at < text.size() && is_name(text[at]))
                ++at;
            if (at == from) return ParseError("a name is missing after the dot", "key", begin);
            expression.steps_.emplace_back(std::string(text.substr(from, at - from)));
        } else if (text[at] == '[') {
            const auto end = text.find(']', at);
            if (end == text.npos) return ParseError("the bracket is not closed", "key", begin);
            auto inside = text.substr(at + 1, end - at - 1);
            at = end + 1;
            std::int64_t index = 0;
            const auto [stop, error] =
                std::from_chars(inside.data(), inside.data() + inside.size(), index);
            if (error == std::errc() && stop == inside.data() + inside.size()) {
                expression.steps_.emplace_back(index);
            } else if (inside.size() >= 2 && (inside[0] == '\'' || inside[0] == '"') &&
                       inside.back() == inside[0]) {
                expression.steps_.emplace_back(std::string(inside.substr(1, inside.size() - 2)));
            } else {
                return ParseError("a number or a quoted text must stand in the brackets", "key",
                                  begin);
            }
        } else {
            return ParseError("a dot or a bracket is expected", "key", begin);
        }
        if (expression.steps_.size() > most_steps)
            return ParseError(fmt::format("must have at most {} steps", most_steps), "key");
    }
    if (takes_steps && expression.steps_.empty())
        return ParseError(fmt::format("must say which of {}, as in {}{}", root, root,
                                      expression.root_ == Root::args ? "[0]" : ".name"),
                          "key");
    return expression;
}

std::string KeyExpression::evaluate(const std::string& queue, const Call& call,
                                    const Value& meta) const {
    if (root_ == Root::queue) return queue;
    if (root_ == Root::function) return call.func_name;
    const Value* value = root_ == Root::args     ? &call.args
                         : root_ == Root::kwargs ? &call.kwargs
                                                 : &meta;
    for (const auto& step : steps_) {
        value = step_into(*value, step);
        if (value == nullptr) return {};
    }
    return text_of(*value);
}

}  // namespace rqxx
