#pragma once

#include <rqxx/worker.hpp>
#include <string>

namespace rqxx::runtime {

/// A heartbeat names every job that is held, and a crash ends all jobs of a call.
constexpr std::size_t most_in_a_call = 1000;
constexpr std::chrono::milliseconds longest_wait = std::chrono::hours(1);

/// @throws Error `Errc::usage` that begins with `where`
void check_aggregation(const Aggregation& most, const std::string& where);

}  // namespace rqxx::runtime
