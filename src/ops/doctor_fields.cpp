#include "ops/doctor_fields.hpp"

#include <algorithm>
#include <cstdlib>
#include <rqxx/codec.hpp>
#include <rqxx/time.hpp>

namespace rqxx::ops::doctor {

namespace {

bool is_number(std::string_view text) {
    if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
    return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

bool is_float(const std::string& text) {
    char* end = nullptr;
    std::strtod(text.c_str(), &end);
    return !text.empty() && end == text.c_str() + text.size();
}

bool is_list_of_numbers(std::string_view text) {
    const auto value = decode_json(text);
    return value && value->kind() == Value::Kind::list && !value->items().empty();
}

}  // namespace

bool readable(Reading reading, const std::string& value) {
    if (value.empty()) return reading != Reading::number;
    switch (reading) {
        case Reading::time:
            return static_cast<bool>(parse_utc(value));
        case Reading::number:
        case Reading::number_or_empty:
            return is_number(value);
        case Reading::real:
            return is_float(value);
        case Reading::intervals:
            return is_list_of_numbers(value);
        case Reading::ids: {
            const auto ids = decode_json(value);
            return ids && ids->kind() == Value::Kind::list;
        }
    }
    return true;
}

}  // namespace rqxx::ops::doctor
