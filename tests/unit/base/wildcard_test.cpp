#include "base/wildcard.hpp"

#include <gtest/gtest.h>

#include <string>

using rqxx::matches_wildcard;

TEST(wildcard, without_a_star_all_has_to_be_the_same) {
    EXPECT_TRUE(matches_wildcard("pkg.f", "pkg.f"));
    EXPECT_FALSE(matches_wildcard("pkg.f", "pkg.ff"));
    EXPECT_FALSE(matches_wildcard("pkg.ff", "pkg.f"));
    EXPECT_FALSE(matches_wildcard("pkg.f", "pkg_f"));
    EXPECT_TRUE(matches_wildcard("", ""));
    EXPECT_FALSE(matches_wildcard("", "x"));
}

TEST(wildcard, a_star_is_any_text) {
    EXPECT_TRUE(matches_wildcard("*", ""));
    EXPECT_TRUE(matches_wildcard("*", "pkg.f"));
    EXPECT_TRUE(matches_wildcard("pkg.*", "pkg."));
    EXPECT_TRUE(matches_wildcard("pkg.*", "pkg.sub.f"));
    EXPECT_FALSE(matches_wildcard("pkg.*", "pkg"));
    EXPECT_TRUE(matches_wildcard("*.f", "a.f.f"));
    EXPECT_TRUE(matches_wildcard("a*b*c", "a1b2b3c"));
    EXPECT_FALSE(matches_wildcard("a*b*c", "a1c2b"));
    EXPECT_TRUE(matches_wildcard("**", "x"));
}

TEST(wildcard, many_stars_take_no_time) {
    std::string pattern;
    for (int i = 0; i < 50; ++i)
        pattern += "a*";
    EXPECT_FALSE(matches_wildcard(pattern + "b", std::string(5000, 'a')));
}
