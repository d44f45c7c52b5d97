#include <gtest/gtest.h>

#include <rqxx/convert.hpp>

using namespace rqxx;

TEST(make_call, turns_cpp_types_into_python_values) {
    const Call call =
        make_call("f", 1, "text", std::string("more"), 2.5, true, std::vector<int>{1, 2},
                  std::optional<int>{}, std::map<std::string, int>{{"a", 1}});
    EXPECT_EQ(describe_call(call), "f(1, 'text', 'more', 2.5, True, [1, 2], None, {'a': 1})");
}

TEST(convert, refuses_values_that_do_not_fit) {
    EXPECT_EQ(Convert<std::uint8_t>::from(Value(255)), 255);
    EXPECT_THROW((void)Convert<std::uint8_t>::from(Value(256)), Error);
    EXPECT_THROW((void)Convert<int>::from(Value(1.0)), Error);
    EXPECT_THROW((void)Convert<std::string>::from(Value(1)), Error);
    EXPECT_EQ(Convert<double>::from(Value(2)), 2.0);
    EXPECT_EQ((Convert<std::vector<std::string>>::from(Value::tuple({"a", "b"})).size()), 2u);
}
