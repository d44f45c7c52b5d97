#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "evaluation/remark.hpp"

namespace evaluation {

/// A comment and the defect that it found; indices into the lists given to `score`.
struct Match {
    std::size_t comment = 0, defect = 0;
    std::int64_t overlap = 0;  ///< Lines that both cover.
};

struct Score {
    std::vector<Match> matches;          ///< By comment.
    std::vector<std::size_t> unmatched;  ///< Comments that found nothing (false positives).
    std::vector<std::size_t> missed;     ///< Defects that nobody found (false negatives).

    [[nodiscard]] std::size_t tp() const noexcept { return matches.size(); }
    [[nodiscard]] std::size_t fp() const noexcept { return unmatched.size(); }
    [[nodiscard]] std::size_t fn() const noexcept { return missed.size(); }
    /// TP / (TP + FP + FN); 0 when all are 0.
    [[nodiscard]] double value() const noexcept;
    /// `Junior` below 0.45, `Middle` below 0.70, else `Senior`.
    [[nodiscard]] std::string_view grade() const noexcept;
};

/// Matches comments and defects one to one: as many pairs as possible and, among those, with the
/// largest summed overlap. A pair can match when file and type are equal and the lines overlap.
///
/// Exact: successive best augmenting paths (Bellman-Ford) per file and type. O(n * m * k) for k
/// matches among n comments and m defects of one file and type.
[[nodiscard]] Score score(const std::vector<Remark>& comments, const std::vector<Remark>& defects);

}  // namespace evaluation
