#pragma once

#include <rqxx/worker.hpp>

#include "runtime/slot_executor.hpp"

namespace rqxx::runtime {

/// The worker's own program, forked: its slots run registered handlers.
///
/// To be spawned before the process has threads that hold locks; what the handlers capture is
/// copied with the process. Everything given by reference outlives it.
[[nodiscard]] ZygoteKind native_zygote(const HandlerRegistry& handlers, CallbackPolicy callbacks,
                                       Logger& log);

}  // namespace rqxx::runtime
