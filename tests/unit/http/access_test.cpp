#include "http/access.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "http/job_json.hpp"
#include "ops/access.hpp"
#include "ops/deduplication.hpp"

using namespace rqxx;
using namespace rqxx::http;
using namespace std::chrono_literals;

namespace {

const FailureLimiter::Time begin = FailureLimiter::Time(1h);

int failures_until_refused(FailureLimiter& limiter, const std::string& address,
                           FailureLimiter::Time now) {
    int count = 0;
    for (; !limiter.wait(address, now); ++count)
        limiter.failed(address, now);
    return count;
}

boost::json::object redacted(std::string_view job, const Redaction& redaction) {
    boost::json::object object = boost::json::parse(job).as_object();
    redact_job(object, redaction);
    return object;
}

}  // namespace

TEST(FailureLimiter, AllowsTenAtOnceThenOneEverySixSeconds) {
    FailureLimiter limiter;
    EXPECT_EQ(failures_until_refused(limiter, "10.0.0.1", begin), 10);
    EXPECT_EQ(limiter.wait("10.0.0.1", begin), 6s);
    EXPECT_EQ(limiter.wait("10.0.0.1", begin + 5s), 1s);
    EXPECT_EQ(failures_until_refused(limiter, "10.0.0.1", begin + 6s), 1);
    EXPECT_EQ(failures_until_refused(limiter, "10.0.0.1", begin + 1h), 10);
    EXPECT_FALSE(limiter.wait("10.0.0.2", begin + 1h));
}

TEST(FailureLimiter, TakesANetworkOfIpv6ForOne) {
    FailureLimiter limiter;
    EXPECT_EQ(failures_until_refused(limiter, "2001:db8:0:1::1", begin), 10);
    EXPECT_TRUE(limiter.wait("2001:db8:0:1:ffff::2", begin));
    EXPECT_FALSE(limiter.wait("2001:db8:0:2::1", begin));
}

TEST(FailureLimiter, LimitsAllTogether) {
    FailureLimiter limiter;
    int count = 0;
    for (int i = 0; i < 1000 && !limiter.wait(fmt::format("10.0.0.{}", i % 250), begin);
         ++i, ++count)
        limiter.failed(fmt::format("10.0.0.{}", i % 250), begin);
    EXPECT_EQ(count, 100);
    EXPECT_TRUE(limiter.wait("192.168.0.1", begin));
}

TEST(FailureLimiter, RemembersABoundedNumberOfAddresses) {
    FailureLimiter limiter;
    for (int i = 0; i < 20'000; ++i)
        limiter.failed(fmt::format("10.1.{}.{}", i / 250, i % 250), begin);
    EXPECT_EQ(limiter.size(), 10'000u);
    limiter.failed("10.9.9.9", begin + 1h);
    EXPECT_EQ(limiter.size(), 1u);
}

TEST(Cookies, AreFoundByTheirWholeName) {
    EXPECT_EQ(cookie_value("a=1; rqxx_session=x; b=2", "rqxx_session"), "x");
    EXPECT_EQ(cookie_value("rqxx_session=x=y", "rqxx_session"), "x=y");
    EXPECT_EQ(cookie_value("rqxx_session=", "rqxx_session"), "");
    for (const auto* header :
         {"", "rqxx_session", "xrqxx_session=1", "rqxx_session2=1", ";;;", "=", "a"})
        EXPECT_EQ(cookie_value(header, "rqxx_session"), std::nullopt) << header;
}

TEST(Cookies, TwoOfOneNameAreNone) {
    EXPECT_EQ(cookie_value("rqxx_session=a; rqxx_session=b", "rqxx_session"), std::nullopt);
    EXPECT_EQ(cookie_value("rqxx_session=a;rqxx_session=a", "rqxx_session"), std::nullopt);
}

TEST(Tokens, AreReadOnlyWhereTheyAreExactlyOurs) {
    const std::string id(16, 'a'), secret(48, '0');
    const auto token = ops::parse_token("rqxx_" + id + "_" + secret);
    ASSERT_TRUE(token);
    EXPECT_EQ(token->id, id);
    EXPECT_EQ(token->secret, secret);
    for (const auto& text : {std::string(), "rqxx_" + id, "rqxx_" + id + "_" + secret + "0",
                             "rqxx_" + id + "-" + secret, "rqXX_" + id + "_" + secret,
                             "rqxx_" + std::string(16, 'g') + "_" + secret,
                             "rqxx_" + id + "_" + std::string(48, '\0')})
        EXPECT_FALSE(ops::parse_token(text)) << text;
    EXPECT_TRUE(ops::has_sha256(secret, ops::sha256_hex(secret)));
    EXPECT_FALSE(ops::has_sha256(secret, ops::sha256_hex(id)));
    EXPECT_FALSE(ops::has_sha256(secret, ""));
    EXPECT_NE(ops::random_hex(24), ops::random_hex(24));
    EXPECT_EQ(ops::random_hex(24).size(), 48u);
}

TEST(Redaction, HidesValuesByNameAtAnyDepthWhateverTheCase) {
    const Redaction redaction{.all = false, .names = {"*PassWord*", "token"}};
    const auto job = redacted(
        R"json({"args":[{"db_password_1":{"x":1}}],"kwargs":{"Token":"t","tokens":2},"meta":{"a":[{"token":null}]},
            "result":{"$dict":[["token",5],[{"password":1},7],["ok",{"password":2}]]},"description":"f(token='t')",
            "executions":[{"result":{"password":3},"progress":{"text":"x","token":1}}],"func_name":"f"})json",
        redaction);
    EXPECT_EQ(
        boost::json::serialize(job),
        R"json({"args":[{"db_password_1":"[redacted]"}],"kwargs":{"Token":"[redacted]","tokens":2},"meta":{"a":[{"token":"[redacted]"}]},)json"
        R"json("result":{"$dict":[["token","[redacted]"],[{"password":1},7],["ok",{"password":"[redacted]"}]]},"description":"[redacted]",)json"
        R"json("executions":[{"result":{"password":"[redacted]"},"progress":{"text":"x","token":"[redacted]"}}],"func_name":"f"})json");
}

TEST(Redaction, LeavesTheDescriptionWhereTheCallHasNothingToHide) {
    const Redaction redaction{.all = false, .names = {"password"}};
    EXPECT_EQ(redacted(R"json({"args":[1],"kwargs":{},"description":"f(1)"})json", redaction)
                  .at("description"),
              "f(1)");
    EXPECT_EQ(
        redacted(R"json({"args":{"$undecodable":"x"},"kwargs":null,"description":"f(1)"})json",
                 redaction)
            .at("description"),
        "[redacted]");
}

TEST(Redaction, OfAllLeavesNoDataButStatusAndTimes) {
    const auto job = redacted(
        R"json({"id":"a","status":"finished","args":[1],"kwargs":{},"meta":null,"result":0,"description":"f(1)","executions":[{"id":"e","result":0,"progress":null}]})json",
        Redaction{.all = true, .names = {}});
    EXPECT_EQ(
        boost::json::serialize(job),
        R"json({"id":"a","status":"finished","args":"[redacted]","kwargs":"[redacted]","meta":null,"result":"[redacted]","description":"[redacted]",)json"
        R"json("executions":[{"id":"e","result":"[redacted]","progress":null}]})json");
}
