#include <fmt/format.h>

#include <charconv>
#include <rqxx/error.hpp>
#include <rqxx/redis/reply.hpp>

namespace rqxx {
namespace {

[[noreturn]] void unexpected(const Reply& reply, std::string_view wanted) {
    static constexpr std::array names{"nil", "status", "error", "integer", "string", "array"};
    throw Error(Errc::protocol, fmt::format("Redis answered with {} where {} was expected",
                                            names[static_cast<std::size_t>(reply.type)], wanted));
}

}  // namespace

std::int64_t Reply::as_integer() const {
    if (type == Type::integer) return integer;
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (type != Type::string || text.empty() || error != std::errc{} ||
        end != text.data() + text.size())
        unexpected(*this, "an integer");
    return value;
}

std::string Reply::as_text() const {
    switch (type) {
        case Type::nil:
            return {};
        case Type::integer:
            return std::to_string(integer);
        case Type::array:
            unexpected(*this, "a string");
        default:
            return text;
    }
}

const std::vector<Reply>& Reply::as_array() const {
    if (type != Type::array && type != Type::nil) unexpected(*this, "an array");
    return elements;
}

std::vector<std::pair<std::string_view, std::string_view>> Reply::as_pairs() const {
    const auto& list = as_array();
    std::vector<std::pair<std::string_view, std::string_view>> pairs;
    pairs.reserve(list.size() / 2);
    for (std::size_t i = 0; i + 1 < list.size(); i += 2)
        pairs.emplace_back(list[i].text, list[i + 1].text);
    return pairs;
}

void Reply::throw_if_error() const {
    if (is_error()) throw ServerError(text);
}

}  // namespace rqxx
