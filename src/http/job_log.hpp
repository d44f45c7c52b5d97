#pragma once

#include <boost/json/array.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "index/job_index.hpp"

namespace rqxx::http {

/// The newest transitions of jobs, numbered, for any number of readers: each remembers a number
/// alone, and who is slow is told how many he has missed.
class JobLog {
public:
    static constexpr std::size_t most_kept = 1000;
    /// Of those that a reader is given at once.
    static constexpr std::size_t most_told = 200;

    /// What a reader has not seen.
    struct News {
        boost::json::array jobs;
        std::uint64_t last = 0;  ///< Go on behind this.
        /// How many are left out, the oldest of them; not known where `sees` tells some apart.
        std::optional<std::uint64_t> dropped = 0;
    };

    void add(std::vector<index::JobTransition> transitions);
    /// The number of the newest; 0 before the first.
    [[nodiscard]] std::uint64_t last() const noexcept { return last_; }
    /// @param sees  whether the reader may see this queue; empty: all.
    [[nodiscard]] News after(std::uint64_t number,
                             const std::function<bool(std::string_view queue)>& sees) const;

private:
    std::deque<index::JobTransition> kept_;
    std::uint64_t last_ = 0;
};

}  // namespace rqxx::http
