#include <fmt/format.h>
#include <gtest/gtest.h>

#include <ops/job_description.hpp>
#include <rqxx/error.hpp>

using namespace rqxx;
using namespace std::chrono_literals;
using ops::JobForm;
using ops::read_job;

namespace {

std::string refusal(std::string_view text, JobForm form) {
    try {
        (void)read_job(text, form);
    } catch (const Error& error) {
        return error.code() == Errc::usage ? error.message() : "another error";
    }
    return "none";
}

}  // namespace

TEST(job_description, reads_what_both_forms_have_alike) {
    for (const auto form : {JobForm::request, JobForm::line}) {
        const auto job = read_job(
            R"({"func": "f", "args": [1], "kwargs": {"k": 2}, "timeout": "5m", "ttl": null, "at": 1.5})",
            form, "q");
        EXPECT_EQ(job.call.func_name, "f");
        EXPECT_EQ(job.call.args, Value::tuple({Value(1)}));
        EXPECT_EQ(job.queue, "q");
        EXPECT_EQ(job.options.timeout, 300s);
        EXPECT_FALSE(job.options.ttl);
        EXPECT_EQ(job.at, Timestamp(1500ms));
    }
}

TEST(job_description, refuses_in_the_same_words) {
    for (const auto form : {JobForm::request, JobForm::line}) {
        EXPECT_EQ(refusal("[1]", form), "an object is expected");
        EXPECT_TRUE(refusal("{\"func\": \"\xff\"}", form).starts_with("not JSON: "));
        EXPECT_EQ(refusal(R"({"func": 1})", form), "func: must be a string");
        EXPECT_EQ(refusal(R"({"func": "f", "args": {}})", form), "args: must be a list");
        for (const auto* in : {"1000000000000000000", "\"2147483647d\""})
            EXPECT_EQ(refusal(fmt::format(R"({{"func": "f", "in": {}}})", in), form),
                      "in: must not be more than 10000000000 s");
        EXPECT_TRUE(refusal(R"({"func": "f", "what": 1})", form)
                        .starts_with("what: unknown field; known are func, args, "));
    }
}

TEST(job_description, has_retries_and_dependencies_flat_in_lines_and_as_objects_in_requests) {
    const std::string_view flat =
        R"({"func": "f", "retry": 2, "retry_intervals": [1, "2s"], "depends_on": ["a"], "allow_failure": true})";
    const std::string_view nested =
        R"({"func": "f", "retry": {"max": 2, "intervals": [1, "2s"]}, "depends_on": {"job_ids": "a", "allow_failure": true}})";
    for (const auto& job : {read_job(flat, JobForm::line), read_job(nested, JobForm::request)}) {
        EXPECT_EQ(job.options.retry->max, 2);
        EXPECT_EQ(job.options.retry->intervals, (std::vector{1s, 2s}));
        EXPECT_EQ(job.options.depends_on->job_ids, std::vector<std::string>{"a"});
        EXPECT_TRUE(job.options.depends_on->allow_failure);
    }
    EXPECT_TRUE(refusal(flat, JobForm::request).starts_with("retry_intervals: unknown field"));
    EXPECT_EQ(refusal(nested, JobForm::line), "retry: must be a whole number");
}
