#include <gtest/gtest.h>
#include <base/utf8.hpp>

using namespace rqxx;

TEST(utf8, knows_where_a_character_is_not_complete) {
    EXPECT_EQ(whole_characters(""), 0u);
    EXPECT_EQ(whole_characters("abc"), 3u);
    EXPECT_EQ(whole_characters("aé"), 3u);
    EXPECT_EQ(whole_characters("a\xc3"), 1u);
    EXPECT_EQ(whole_characters("a\xe2\x82"), 1u);
    EXPECT_EQ(whole_characters("\xf0\x9d\x84"), 0u);
    EXPECT_EQ(whole_characters("𝄞"), 4u);
    // What no further bytes make a character.
    EXPECT_EQ(whole_characters("a\x82\x82\x82"), 4u);
    EXPECT_EQ(whole_characters("a\xff"), 2u);
    EXPECT_EQ(whole_characters("a\xc0"), 2u);
    EXPECT_EQ(whole_characters("\x82"), 1u);
}
