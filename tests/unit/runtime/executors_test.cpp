#include "runtime/executors.hpp"

#include <gtest/gtest.h>

namespace rqxx::runtime {
namespace {

using Place = FunctionRule::Place;

Call call_of(std::string function) {
    Call call;
    call.func_name = std::move(function);
    return call;
}

struct Functions : testing::Test {
    Functions() {
        handlers.add("native.f", [] {});
        options.commands.push_back({.function = "cmd.*", .words = {"true"}});
        options.http.push_back({"http.*", "http://host/"});
    }
    [[nodiscard]] Place place(const std::string& function) const {
        return way_of(call_of(function), options, handlers).place;
    }
    HandlerRegistry handlers;
    WorkerOptions options;
};

TEST_F(Functions, run_by_what_names_them_then_natively_then_in_python) {
    EXPECT_EQ(place("cmd.f"), Place::command);
    EXPECT_EQ(place("http.f"), Place::http);
    EXPECT_EQ(place("native.f"), Place::thread);
    EXPECT_EQ(place("other.f"), Place::thread);
    options.native = NativeIsolation::process;
    options.python.emplace();
    EXPECT_EQ(place("native.f"), Place::process);
    EXPECT_EQ(place("other.f"), Place::python);
}

TEST_F(Functions, run_where_the_first_rule_that_fits_says) {
    options.python.emplace();
    options.functions = {{"cmd.py", Place::python, {}},
                         {"native.*", Place::process, {}},
                         {"native.f", Place::python, {}},
                         {"*.limited", Place::any, {}},
                         {"other", Place::command, {}}};
    EXPECT_EQ(place("cmd.py"), Place::python);
    EXPECT_EQ(place("native.f"), Place::process);
    EXPECT_EQ(place("http.limited"), Place::http);
    EXPECT_EQ(place("other"), Place::python) << "there is no such command";
}

TEST_F(Functions, that_are_methods_or_unreadable_never_go_out) {
    options.python.emplace();
    options.functions = {{"*", Place::http, {}}};
    options.http.front().function = "*";
    Call method = call_of("http.f");
    method.instance = Value(1);
    EXPECT_EQ(way_of(method, options, handlers).place, Place::python);
    EXPECT_EQ(place(""), Place::python);
}

TEST_F(Functions, have_limits_of_their_own_and_zero_is_none) {
    options.limits = {100, std::chrono::seconds(5)};
    options.functions = {{"a", Place::any, {0, {}}},
                         {"b", Place::any, {7, std::chrono::seconds(0)}}};
    const auto a = way_of(call_of("a"), options, handlers).limits;
    EXPECT_FALSE(a.max_rss);
    EXPECT_EQ(a.max_cpu, std::chrono::seconds(5));
    const auto b = way_of(call_of("b"), options, handlers).limits;
    EXPECT_EQ(b.max_rss, 7u);
    EXPECT_FALSE(b.max_cpu);
}

}  // namespace
}  // namespace rqxx::runtime
