#pragma once

#include <string>
#include <string_view>

/// What Python can make of the fields of RQ's records.
namespace rqxx::ops::doctor {

/// How Python reads a field of a job or worker.
enum class Reading { time, number, number_or_empty, real, intervals, ids };

struct Field {
    std::string_view name;
    Reading reading;
};

/// Whether it reads `value` without an exception.
[[nodiscard]] bool readable(Reading reading, const std::string& value);

}  // namespace rqxx::ops::doctor
