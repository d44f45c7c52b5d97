#include <gtest/gtest.h>

#include <algorithm>
#include <evaluation/scoring.hpp>
#include <random>

using namespace evaluation;

namespace {

Remark remark(std::int64_t from, std::int64_t to, std::string file = "a",
              std::string type = "bug") {
    return {file, from, to, type, ""};
}

std::int64_t summed_overlap(const Score& score) {
    std::int64_t sum = 0;
    for (const auto& match : score.matches)
        sum += match.overlap;
    return sum;
}

/// The best (pairs, overlap) by trying everything.
std::pair<std::size_t, std::int64_t> brute_force(const std::vector<Remark>& comments,
                                                 const std::vector<Remark>& defects, std::size_t at,
                                                 std::vector<bool>& used) {
    if (at == comments.size()) return {0, 0};
    auto best = brute_force(comments, defects, at + 1, used);
    for (std::size_t d = 0; d < defects.size(); ++d) {
        const auto lines = std::min(comments[at].to, defects[d].to) -
                           std::max(comments[at].from, defects[d].from) + 1;
        if (used[d] || lines < 1 || comments[at].file != defects[d].file ||
            comments[at].type != defects[d].type)
            continue;
        used[d] = true;
        auto rest = brute_force(comments, defects, at + 1, used);
        used[d] = false;
        best = std::max(best, {rest.first + 1, rest.second + lines});
    }
    return best;
}

}  // namespace

TEST(scoring, ranges_include_both_ends) {
    EXPECT_EQ(score({remark(1, 5)}, {remark(5, 9)}).tp(), 1u);
    EXPECT_EQ(score({remark(1, 4)}, {remark(5, 9)}).tp(), 0u);
}

TEST(scoring, file_and_type_must_be_equal) {
    EXPECT_EQ(score({remark(1, 5, "b")}, {remark(1, 5)}).tp(), 0u);
    EXPECT_EQ(score({remark(1, 5, "a", "style")}, {remark(1, 5)}).tp(), 0u);
}

TEST(scoring, finds_the_greatest_number_where_greed_would_not) {
    // The first comment overlaps both defects, and the first one most; the second only that one.
    const Score result = score({remark(1, 10), remark(1, 2)}, {remark(1, 8), remark(9, 12)});
    EXPECT_EQ(result.tp(), 2u);
    EXPECT_EQ(result.value(), 1.0);
}

TEST(scoring, prefers_the_larger_overlap_among_equal_numbers) {
    const Score result = score({remark(1, 10)}, {remark(10, 20), remark(2, 9)});
    ASSERT_EQ(result.tp(), 1u);
    EXPECT_EQ(result.matches[0].defect, 1u);
    EXPECT_EQ(result.matches[0].overlap, 8);
}

TEST(scoring, counts_duplicates_as_too_many) {
    const Score result = score({remark(1, 1), remark(1, 1), remark(1, 1)}, {remark(1, 1)});
    EXPECT_EQ(result.tp(), 1u);
    EXPECT_EQ(result.fp(), 2u);
    EXPECT_DOUBLE_EQ(result.value(), 1.0 / 3);
}

TEST(scoring, of_nothing_is_zero) {
    EXPECT_EQ(score({}, {}).value(), 0);
    EXPECT_EQ(score({remark(1, 1)}, {}).value(), 0);
    EXPECT_EQ(score({}, {remark(1, 1)}).value(), 0);
    EXPECT_EQ(score({}, {}).grade(), "Junior");
}

TEST(scoring, grades_at_their_edges) {
    const auto with = [](std::size_t tp, std::size_t fn) {
        Score result;
        result.matches.resize(tp);
        result.missed.resize(fn);
        return std::string(result.grade());
    };
    EXPECT_EQ(with(44, 56), "Junior");
    EXPECT_EQ(with(45, 55), "Middle");
    EXPECT_EQ(with(69, 31), "Middle");
    EXPECT_EQ(with(70, 30), "Senior");
}

TEST(scoring, equals_exhaustive_search_on_random_cases) {
    std::mt19937 random(7);
    const auto pick = [&](int low, int high) {
        return std::uniform_int_distribution<int>(low, high)(random);
    };
    for (int round = 0; round < 3000; ++round) {
        const auto make = [&] {
            std::vector<Remark> list(static_cast<std::size_t>(pick(0, 6)));
            for (auto& item : list) {
                const int from = pick(1, 12);
                item = remark(from, from + pick(0, 6), pick(0, 4) == 0 ? "b" : "a");
            }
            return list;
        };
        const auto comments = make(), defects = make();
        const Score result = score(comments, defects);
        std::vector<bool> used(defects.size());
        const auto best = brute_force(comments, defects, 0, used);
        ASSERT_EQ(result.tp(), best.first);
        ASSERT_EQ(summed_overlap(result), best.second);
        ASSERT_EQ(result.tp() + result.fp(), comments.size());
        ASSERT_EQ(result.tp() + result.fn(), defects.size());
    }
}
