#include "evaluation/scoring.hpp"

#include <algorithm>
#include <deque>
#include <limits>
#include <map>
#include <utility>

namespace evaluation {
namespace {

std::int64_t overlap(const Remark& a, const Remark& b) {
    return std::min(a.to, b.to) - std::max(a.from, b.from) + 1;
}

constexpr std::size_t nobody = static_cast<std::size_t>(-1);
constexpr std::int64_t unreachable = std::numeric_limits<std::int64_t>::min() / 4;

/// The best matching within one file and type.
///
/// Grows a matching by one pair at a time, each along the path that gains the most overlap. A
/// matching of k pairs made so has the largest overlap of all with k pairs, and k is largest when
/// no path is left. Source: Ahuja, Magnanti, Orlin, "Network Flows", 1993, section 9.7 (successive
/// shortest paths).
class Matcher {
public:
    struct Edge {
        std::size_t defect;
        std::int64_t overlap;
    };

    Matcher(std::vector<std::vector<Edge>> edges, std::size_t defects)
        : edges_(std::move(edges)),
          defect_of_(edges_.size(), nobody),
          comment_of_(defects, nobody) {}

    void run() {
        while (augment()) {
        }
    }
    [[nodiscard]] std::size_t defect_of(std::size_t comment) const { return defect_of_[comment]; }

private:
    bool augment() {
        std::vector<std::int64_t> gain(
            edges_.size(), unreachable);  ///< Best gain of a path that arrives at a comment.
        std::vector<std::int64_t> defect_gain(comment_of_.size(), unreachable);
        std::vector<std::size_t> reached_from(comment_of_.size(), nobody);
        std::deque<std::size_t> work;
        std::vector<bool> waiting(edges_.size());
        for (std::size_t c = 0; c < edges_.size(); ++c) {
            if (defect_of_[c] != nobody) continue;
            gain[c] = 0;
            work.push_back(c);
            waiting[c] = true;
        }
        while (!work.empty()) {
            const std::size_t c = work.front();
            work.pop_front();
            waiting[c] = false;
            for (const auto& [defect, lines] : edges_[c]) {
                if (defect_of_[c] == defect || gain[c] + lines <= defect_gain[defect]) continue;
                defect_gain[defect] = gain[c] + lines;
                reached_from[defect] = c;
                const std::size_t owner = comment_of_[defect];
                if (owner == nobody) continue;
                const std::int64_t onward = defect_gain[defect] - lines_of(owner, defect);
                if (onward <= gain[owner]) continue;
                gain[owner] = onward;
                if (!waiting[owner]) work.push_back(owner);
                waiting[owner] = true;
            }
        }
        std::size_t best = nobody;
        for (std::size_t d = 0; d < comment_of_.size(); ++d) {
            if (comment_of_[d] != nobody || defect_gain[d] == unreachable) continue;
            if (best == nobody || defect_gain[d] > defect_gain[best]) best = d;
        }
        if (best == nobody) return false;
        for (std::size_t defect = best; defect != nobody;) {
            const std::size_t comment = reached_from[defect];
            const std::size_t next = defect_of_[comment];
            defect_of_[comment] = defect;
            comment_of_[defect] = comment;
            defect = next;
        }
        return true;
    }

    [[nodiscard]] std::int64_t lines_of(std::size_t comment, std::size_t defect) const {
        for (const auto& edge : edges_[comment]) {
            if (edge.defect == defect) return edge.overlap;
        }
        return 0;
    }

    std::vector<std::vector<Edge>> edges_;  ///< Of each comment.
    std::vector<std::size_t> defect_of_;
    std::vector<std::size_t> comment_of_;
};

}  // namespace

double Score::value() const noexcept {
    const std::size_t all = tp() + fp() + fn();
    return all == 0 ? 0 : static_cast<double>(tp()) / static_cast<double>(all);
}

std::string_view Score::grade() const noexcept {
    if (value() < 0.45) return "Junior";
    return value() < 0.70 ? "Middle" : "Senior";
}

Score score(const std::vector<Remark>& comments, const std::vector<Remark>& defects) {
    struct Group {
        std::vector<std::size_t> comments, defects;
    };
    std::map<std::pair<std::string_view, std::string_view>, Group> groups;
    for (std::size_t i = 0; i < comments.size(); ++i)
        groups[{comments[i].file, comments[i].type}].comments.push_back(i);
    for (std::size_t i = 0; i < defects.size(); ++i)
        groups[{defects[i].file, defects[i].type}].defects.push_back(i);

    Score result;
    std::vector<bool> found(defects.size());
    for (const auto& [key, group] : groups) {
        std::vector<std::vector<Matcher::Edge>> edges(group.comments.size());
        for (std::size_t c = 0; c < group.comments.size(); ++c) {
            for (std::size_t d = 0; d < group.defects.size(); ++d) {
                const auto lines = overlap(comments[group.comments[c]], defects[group.defects[d]]);
                if (lines > 0) edges[c].push_back({d, lines});
            }
        }
        Matcher matcher(std::move(edges), group.defects.size());
        matcher.run();
        for (std::size_t c = 0; c < group.comments.size(); ++c) {
            const std::size_t comment = group.comments[c];
            if (matcher.defect_of(c) == nobody) {
                result.unmatched.push_back(comment);
                continue;
            }
            const std::size_t defect = group.defects[matcher.defect_of(c)];
            found[defect] = true;
            result.matches.push_back(
                {comment, defect, overlap(comments[comment], defects[defect])});
        }
    }
    for (std::size_t i = 0; i < defects.size(); ++i) {
        if (!found[i]) result.missed.push_back(i);
    }
    std::sort(result.unmatched.begin(), result.unmatched.end());
    std::sort(result.matches.begin(), result.matches.end(),
              [](const Match& a, const Match& b) { return a.comment < b.comment; });
    return result;
}

}  // namespace evaluation
