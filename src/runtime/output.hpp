#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <string_view>

#include "ops/transitions.hpp"

namespace rqxx::runtime {

/// What one execution writes to its stdout and stderr: the first half of `limit` bytes as it comes,
/// of the rest the last half, with a mark of how much is missing between.
///
/// Thread safety: any thread. Costs nothing until something is written.
class Output {
public:
    Output();
    ~Output();
    /// Before anything is written. 0: all is dropped without a mark.
    void set_limit(std::size_t bytes) { limit_ = bytes; }
    void add(ops::OutputChunk::Stream stream, std::string_view text);
    /// What has come since the last call, as far as it is certain to stay.
    [[nodiscard]] ops::OutputChunks take();
    /// The same and the end; nothing is added any more.
    [[nodiscard]] ops::OutputChunks take_rest();

private:
    struct State;
    std::size_t limit_ = std::size_t{1} << 20;
    std::mutex mutex_;
    std::unique_ptr<State> state_;
};

}  // namespace rqxx::runtime
