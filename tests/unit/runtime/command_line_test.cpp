#include "runtime/command_line.hpp"

#include <gtest/gtest.h>

namespace rqxx::runtime {
namespace {

using Words = std::vector<std::string>;

TEST(command_line, is_split_as_a_shell_splits_it) {
    EXPECT_EQ(split_command("a  b\tc").value(), (Words{"a", "b", "c"}));
    EXPECT_EQ(split_command(R"(a 'b "c" \d' "e 'f' \" \g \\")").value(),
              (Words{"a", R"(b "c" \d)", R"(e 'f' " \g \)"}));
    EXPECT_EQ(split_command(R"(a\ b'c'"d"e '' "")").value(), (Words{"a bcde", "", ""}));
    EXPECT_EQ(split_command("  ").value(), Words{});
    EXPECT_EQ(split_command("$HOME *.txt `x` a;b").value(),
              (Words{"$HOME", "*.txt", "`x`", "a;b"}));
    for (const auto* broken : {"a 'b", "a \"b", "a\\"})
        EXPECT_FALSE(split_command(broken)) << broken;
}

TEST(command_line, has_arguments_in_the_place_of_their_names) {
    Call call;
    call.args = Value::list({Value("a b"), Value(3)});
    call.kwargs = Value::dict({{Value("size"), Value::list({Value(1), Value(2)})}});
    const CommandFunction command{.function = "f", .words = {"x", "--s={size}", "{0}{1}", "{{0}}"}};
    EXPECT_EQ(command_words(command, "id", call), (Words{"x", "--s=[1,2]", "a b3", "{0}"}));
    EXPECT_EQ(
        command_words({.function = "f", .words = {"x {0} {job_id}"}, .shell = true}, "i'd", call),
        (Words{"/bin/sh", "-c", R"(x 'a b' 'i'\''d')"}));
    for (const auto* missing : {"{2}", "{other}"})
        EXPECT_THROW(static_cast<void>(
                         command_words({.function = "f", .words = {"x", missing}}, "id", call)),
                     Error);
}

}  // namespace
}  // namespace rqxx::runtime
