#include "index/error_group.hpp"

#include <gtest/gtest.h>

#include <base/utf8.hpp>
#include <string>

using namespace rqxx::index;

namespace {

std::string traceback(const std::string& frames, const std::string& end) {
    return "Traceback (most recent call last):\n" + frames + end + "\n";
}

const std::string own_frame = "  File \"/srv/app/jobs.py\", line 12, in charge\n    pay()\n";
const std::string foreign_frame =
    "  File \"/usr/lib/python3/dist-packages/requests/api.py\", line 9, in get\n    send()\n";

}  // namespace

TEST(error_group, takes_type_message_and_the_last_frame_of_the_application) {
    const auto group = group_error(
        traceback(own_frame + foreign_frame, "requests.exceptions.Timeout: after 30 seconds"));
    EXPECT_EQ(group.exception, "requests.exceptions.Timeout");
    EXPECT_EQ(group.message, "after <n> seconds");
    EXPECT_EQ(group.frame, "jobs.py:charge");
    EXPECT_EQ(group.id.size(), 16u);
}

TEST(error_group, is_the_same_for_what_differs_in_numbers_ids_and_quoted_texts) {
    const auto of = [](const std::string& message) {
        return group_error(traceback(own_frame, "ValueError: " + message)).id;
    };
    EXPECT_EQ(of("user 12 has no card"), of("user 987 has no card"));
    EXPECT_EQ(of("no key 'abc'"), of("no key 'x y z'"));
    EXPECT_EQ(of("at 0x7f001234"), of("at 0xdeadbeef"));
    EXPECT_EQ(of("job 3f2504e0-4f89-41d3-9a0c-0305e82c3301 is gone"),
              of("job 00000000-0000-4000-8000-000000000000 is gone"));
    EXPECT_EQ(of("object a1b2c3d4e5f6"), of("object 00ff00ff00ff"));
    EXPECT_NE(of("user has no card"), of("user has no name"));
}

TEST(error_group, tells_apart_by_type_and_by_frame) {
    const auto one = group_error(traceback(own_frame, "ValueError: bad"));
    const auto other_type = group_error(traceback(own_frame, "KeyError: bad"));
    const auto other_frame = group_error(
        traceback("  File \"/srv/app/jobs.py\", line 12, in refund\n", "ValueError: bad"));
    EXPECT_NE(one.id, other_type.id);
    EXPECT_NE(one.id, other_frame.id);
    // Lines move when a file is edited.
    const auto moved = group_error(
        traceback("  File \"/srv/app/jobs.py\", line 99, in charge\n", "ValueError: bad"));
    EXPECT_EQ(one.id, moved.id);
}

TEST(error_group, judges_the_last_of_chained_tracebacks) {
    const auto group = group_error(
        traceback(own_frame, "KeyError: 'a'") +
        "\nDuring handling of the above exception, another exception occurred:\n\n" +
        traceback("  File \"/srv/app/main.py\", line 1, in run\n", "RuntimeError: no luck"));
    EXPECT_EQ(group.exception, "RuntimeError");
    EXPECT_EQ(group.frame, "main.py:run");
}

TEST(error_group, takes_errors_without_a_traceback_by_their_first_line) {
    const auto typed = group_error("std::runtime_error: disk 3 is full");
    EXPECT_EQ(typed.exception, "std::runtime_error");
    EXPECT_EQ(typed.message, "disk <n> is full");
    EXPECT_EQ(typed.frame, "");
    const auto plain = group_error("the program ended with 3\nmore");
    EXPECT_EQ(plain.exception, "");
    EXPECT_EQ(plain.message, "the program ended with <n>");
}

TEST(error_group, stands_whatever_bytes_there_are) {
    const std::string bytes = std::string("\xff\xfe'\"0x", 6) + std::string(100'000, '\'') + '\0';
    for (const std::string& text :
         {std::string(), std::string("\n\n"), bytes, traceback("", ""),
          std::string("Traceback (most recent call last):"), std::string(1'000'000, '9'),
          traceback("  File \"\xff\", line 1, in \xff\n", "\xff: \xff")}) {
        const auto group = group_error(text);
        EXPECT_EQ(group.id.size(), 16u);
        EXPECT_LE(group.message.size(), 2000u);
        EXPECT_TRUE(rqxx::is_valid_utf8(group.exception + group.message + group.frame));
        EXPECT_TRUE(rqxx::is_valid_utf8(last_line(text, 300)));
    }
}

TEST(error_group, shows_the_last_line_shortened_to_whole_characters) {
    EXPECT_EQ(last_line("Traceback\n  x\nValueError: no\n\n", 300), "ValueError: no");
    EXPECT_EQ(last_line("a\xc3\xa4", 2), "a");
}
