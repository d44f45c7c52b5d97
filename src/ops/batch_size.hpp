#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>

namespace rqxx::ops {

/// How many jobs one call is for: as many as Redis handles in a few milliseconds.
class BatchSize {
public:
    [[nodiscard]] std::size_t get() const noexcept { return size_; }
    void took(std::chrono::steady_clock::duration time) noexcept {
        using namespace std::chrono_literals;
        if (time < 1500us) size_ = std::min<std::size_t>(size_ * 2, 1000);
        if (time > 4ms) size_ = std::max<std::size_t>(size_ / 2, 8);
    }

private:
    std::size_t size_ = 32;
};

}  // namespace rqxx::ops
