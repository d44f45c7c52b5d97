#include "index/filter.hpp"

#include <gtest/gtest.h>

using namespace rqxx::index;

TEST(cursor, comes_back_as_it_was) {
    for (const JobPosition position : {JobPosition{0, 0}, JobPosition{1'795'456'544'965'519, 42},
                                       JobPosition{-5, 9'000'000'000}})
        EXPECT_EQ(decode_cursor(encode_cursor(position, "key"), "key"), position);
}

TEST(cursor, is_refused_where_it_was_changed_or_is_of_another_list) {
    const std::string cursor = encode_cursor({1000, 7}, "key");
    EXPECT_FALSE(decode_cursor(cursor, "other"));
    for (std::size_t i = 0; i < cursor.size(); ++i) {
        std::string changed = cursor;
        changed[i] = changed[i] == '1' ? '2' : '1';
        EXPECT_FALSE(decode_cursor(changed, "key")) << changed;
    }
    for (const char* text : {"", "_", "__", "1_2", "1_2_", "x_y_z"})
        EXPECT_FALSE(decode_cursor(text, "key")) << text;
    EXPECT_FALSE(decode_cursor(std::string(100'000, '_'), "key"));
}

TEST(filter, is_told_from_others_by_its_digest) {
    JobFilter one, two;
    EXPECT_EQ(digest(one), digest(two));
    two.queues = {"a", "b"};
    one.queues = {"a,b"};
    EXPECT_NE(digest(one), digest(two));
    JobFilter oldest;
    oldest.newest_first = false;
    EXPECT_NE(digest(oldest), digest(JobFilter{}));
    JobFilter since, until;
    since.since = 5;
    until.until = 5;
    // The last hour is another with each minute, and its places are the same.
    EXPECT_EQ(digest(since), digest(until));
    JobFilter shortest, longest;
    shortest.min_duration = 5;
    longest.max_duration = 5;
    EXPECT_NE(digest(shortest), digest(longest));
}
