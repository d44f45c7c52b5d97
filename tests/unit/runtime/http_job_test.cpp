#include "runtime/http_job.hpp"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <map>

using namespace rqxx;
using namespace rqxx::runtime;
namespace json = boost::json;

namespace {

const HttpUrl url = parse_http_url("https://ann:secret@example.org:8443/run?token=t").value();

HttpResponse answer(int status, std::vector<std::pair<std::string, std::string>> headers,
                    std::string body) {
    return {.status = status, .headers = std::move(headers), .body = std::move(body)};
}

std::string error_of(const HttpResponse& response) {
    const auto outcome = http_job_outcome(response, url, Serializer::pickle);
    EXPECT_EQ(outcome.kind, RunOutcome::Kind::failure);
    return outcome.error;
}

std::optional<std::chrono::seconds> wait_of(std::string retry_after_header) {
    return retry_after(answer(429, {{"retry-after", std::move(retry_after_header)}}, ""));
}

}  // namespace

TEST(http_job, errors_show_neither_credentials_nor_query) {
    EXPECT_EQ(error_of(answer(500, {}, " first\n\n\tline\x7f ")),
              "rqxx.HttpError: POST https://example.org:8443/run answered 500: first line");
    EXPECT_EQ(error_of(answer(404, {}, "")),
              "rqxx.HttpError: POST https://example.org:8443/run answered 404");
    EXPECT_EQ(error_of(answer(304, {}, "")),
              "rqxx.HttpError: POST https://example.org:8443/run answered 304");
    EXPECT_EQ(error_of(answer(307, {{"Location", "http://u:p@h/x?y#z"}}, "")),
              "rqxx.HttpError: POST https://example.org:8443/run answered 307: a redirect to "
              "http://h/x, which is not followed");
    EXPECT_EQ(error_of(answer(307, {{"Location", "relative"}}, "")),
              "rqxx.HttpError: POST https://example.org:8443/run answered 307: a redirect to "
              "another place, which is not followed");
}

TEST(http_job, the_beginning_of_a_body_is_text_whatever_it_is) {
    const std::string bytes("\xff\xfe\x00ok", 5);
    EXPECT_EQ(error_of(answer(500, {}, bytes)),
              "rqxx.HttpError: POST https://example.org:8443/run answered 500: "
              "\xef\xbf\xbd\xef\xbf\xbd ok");
    std::string umlauts;
    for (int i = 0; i < 5000; ++i)
        umlauts += "\xc3\xbc";
    EXPECT_TRUE(error_of(answer(500, {}, umlauts)).ends_with(": " + umlauts.substr(0, 400)));
}

TEST(http_job, waits_when_asked_to) {
    const auto outcome =
        http_job_outcome(answer(429, {{"Retry-After", "0"}}, ""), url, Serializer::pickle);
    EXPECT_EQ(outcome.kind, RunOutcome::Kind::postponed);
    EXPECT_EQ(outcome.payload, "1 limit");
    // One that is busy says nothing of what others ask for.
    EXPECT_EQ(
        http_job_outcome(answer(503, {{"Retry-After", "7"}}, ""), url, Serializer::pickle).payload,
        "7");
    // Of other answers it is of no interest.
    EXPECT_EQ(
        http_job_outcome(answer(500, {{"Retry-After", "5"}}, ""), url, Serializer::pickle).kind,
        RunOutcome::Kind::failure);
}

TEST(http_job, retry_after_is_read) {
    EXPECT_EQ(wait_of("17")->count(), 17);
    EXPECT_EQ(wait_of("00")->count(), 0);
    EXPECT_EQ(wait_of("4000")->count(), 3600);
    EXPECT_EQ(wait_of("99999999999999999999999")->count(), 3600);
    EXPECT_EQ(wait_of("Fri, 31 Dec 1999 23:59:59 GMT")->count(), 0);
    EXPECT_EQ(wait_of("Fri, 31 Dec 2299 23:59:59 GMT")->count(), 3600);
    EXPECT_EQ(wait_of("Friday, 31-Dec-99 23:59:59 GMT")->count(), 0);
    EXPECT_EQ(wait_of("Fri Dec 31 23:59:59 1999")->count(), 0);
    for (const char* none : {"", "-1", "1.5", "soon", "17 s", "Fri, 31 Dec 1999 23:59:59 GMT x"})
        EXPECT_FALSE(wait_of(none)) << none;
    EXPECT_FALSE(retry_after(answer(429, {}, "")));
}

TEST(http_job, a_request_has_what_the_server_needs) {
    Execution execution;
    execution.id = "0123";
    execution.job.id = "job";
    execution.job.origin = "default";
    execution.job.timeout = -1;
    execution.job.meta = "\x80no pickle";
    execution.job.number_of_retries = 2;
    execution.job.extra = {{"rqxx_retries", "3"}};
    execution.call.func_name = "pkg.f";
    execution.call.args = Value::tuple({Value::bytes("\xff")});
    const auto request = http_job_request(execution, url, {"secret"});
    const auto body = json::parse(request.body).as_object();
    EXPECT_EQ(body.at("attempt").as_int64(), 6);
    EXPECT_TRUE(body.at("timeout").is_null());
    EXPECT_TRUE(body.at("enqueued_at").is_null());
    EXPECT_TRUE(body.at("meta").as_object().contains("$undecodable"));
    EXPECT_EQ(body.at("args").as_array().at(0).as_object().at("$bytes"), "/w==");
    EXPECT_TRUE(body.at("kwargs").as_object().empty());
    EXPECT_EQ(request.body.find("secret"), std::string::npos);
    std::map<std::string, std::string> headers(request.headers.begin(), request.headers.end());
    EXPECT_EQ(headers["Idempotency-Key"], "0123");
    EXPECT_EQ(headers["webhook-id"], "0123");
    EXPECT_TRUE(headers["webhook-signature"].starts_with("v1,"));
    for (const auto& [name, value] : http_job_request(execution, url, {}).headers)
        EXPECT_FALSE(name.starts_with("webhook-")) << name;
}
