#include "runtime/aggregation.hpp"

#include <fmt/format.h>

namespace rqxx::runtime {

void check_aggregation(const Aggregation& most, const std::string& where) {
    if (most.max_size < 1 || most.max_size > most_in_a_call)
        throw Error(Errc::usage,
                    fmt::format("{}: max_size: must be from 1 to {}", where, most_in_a_call));
    if (most.max_wait.count() < 0 || most.max_wait > longest_wait)
        throw Error(Errc::usage, fmt::format("{}: max_wait: must be from 0 to 1h", where));
}

}  // namespace rqxx::runtime
