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

TEST_F(Functions, take_many_jobs_where_a_rule_or_their_registration_says_so) {
    const auto size = [&](const std::string& function) {
        const auto most = way_of(call_of(function), options, handlers).aggregate;
        return most ? most->max_size : 0;
    };
    handlers.add_aggregated("many.f", {.max_size = 7}, [](std::span<AggregatedCall>) {});
    EXPECT_EQ(place("many.f"), Place::thread);
    EXPECT_EQ(size("many.f"), 7u);
    EXPECT_EQ(size("native.f"), 0u);
    for (const std::string name : {"many.*", "native.*", "cmd.*", "py.*"}) {
        options.functions.push_back({.function = name, .place = Place::any, .limits = {}});
        options.functions.back().aggregate = {.max_size = 9};
    }
    EXPECT_EQ(size("many.f"), 9u);
    EXPECT_EQ(size("native.f"), 0u);
    EXPECT_EQ(size("cmd.f"), 0u);
    EXPECT_EQ(size("py.f"), 0u);
    options.python.emplace();
    EXPECT_EQ(size("py.f"), 9u);
    EXPECT_EQ(size("other.f"), 0u);
    Call method = call_of("py.f");
    method.instance = Value("an object");
    EXPECT_FALSE(way_of(method, options, handlers).aggregate);
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
