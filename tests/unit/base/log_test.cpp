#include <gtest/gtest.h>

#include <base/utf8.hpp>
#include <rqxx/log.hpp>

using namespace rqxx;

namespace {

std::string logged(LogFormat format, std::string_view text) {
    std::string line;
    Logger log(LogLevel::info, format, [&](std::string_view written) { line = written; });
    log.error("Job failed", "error", text);
    return line;
}

}  // namespace

TEST(log, writes_valid_utf8_whatever_a_job_says) {
    const std::pair<std::string, std::string> cases[] = {
        {"caf\xc3\xa9 \xf0\x9f\x98\x80", "caf\xc3\xa9 \xf0\x9f\x98\x80"},
        {"a\xff\xfe\x62", "a\xef\xbf\xbd\xef\xbf\xbd\x62"},
        {"cut \xe2\x82", "cut \xef\xbf\xbd\xef\xbf\xbd"},
        {"overlong \xc0\xaf", "overlong \xef\xbf\xbd\xef\xbf\xbd"},
        {"surrogate \xed\xa0\x80", "surrogate \xef\xbf\xbd"},
        {"c1 \xc2\x9b"
         "31m",
         R"(c1 \u009b31m)"},
        {std::string("a\n\r\t\0\x1b\x7fz", 8), R"(a\n\r\t\u0000\u001b\u007fz)"}};
    for (const auto& [text, expected] : cases) {
        const std::string plain = logged(LogFormat::text, text);
        EXPECT_EQ(plain, "ERROR: Job failed: error=" + expected);
        const std::string json = logged(LogFormat::json, text);
        EXPECT_NE(json.find("\"error\":\"" + expected + "\"}"), std::string::npos) << json;
        EXPECT_EQ(to_valid_utf8(json), json);
    }
    EXPECT_NE(logged(LogFormat::json, R"("\)").find(R"("error":"\"\\"})"), std::string::npos);
}
