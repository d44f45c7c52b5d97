#pragma once

#include <rqxx/redis/client.hpp>
#include <rqxx/worker.hpp>

#include "runtime/slot_executor.hpp"

namespace rqxx::runtime {

/// An interpreter with python/executor.py. `redis` is what jobs see of it.
[[nodiscard]] ZygoteKind python_zygote(const PythonOptions& options, const RedisOptions& redis);

}  // namespace rqxx::runtime
