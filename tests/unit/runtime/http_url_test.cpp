#include <gtest/gtest.h>

#include "rqxx/webhooks.hpp"
#include "runtime/http_client.hpp"

using namespace rqxx;
using rqxx::runtime::parse_http_url;

TEST(http_url, is_taken_apart) {
    const auto url = parse_http_url("HTTPS://ann:p%40ss@Example.org:8443/a/b?c=d#e").value();
    EXPECT_TRUE(url.tls);
    EXPECT_EQ(url.host, "Example.org");
    EXPECT_EQ(url.port, "8443");
    EXPECT_EQ(url.authority, "Example.org:8443");
    EXPECT_EQ(url.target, "/a/b?c=d");
    EXPECT_EQ(url.credentials, "ann:p@ss");
}

TEST(http_url, has_defaults) {
    const auto url = parse_http_url("http://example.org").value();
    EXPECT_FALSE(url.tls);
    EXPECT_EQ(url.port, "80");
    EXPECT_EQ(url.authority, "example.org");
    EXPECT_EQ(url.target, "/");
    EXPECT_EQ(url.credentials, "");
    EXPECT_EQ(parse_http_url("https://example.org:443/").value().authority, "example.org");
    EXPECT_EQ(parse_http_url("http://example.org?q").value().target, "/?q");
    EXPECT_EQ(parse_http_url("http://[::1]:81/x").value().authority, "[::1]:81");
    EXPECT_EQ(parse_http_url("http://[::1]:81/x").value().host, "::1");
}

TEST(http_url, escapes_what_should_have_been_escaped) {
    EXPECT_EQ(parse_http_url("http://h/a{b}?c=[1]|\"2\"").value().target,
              "/a%7Bb%7D?c=%5B1%5D%7C%222%22");
}

TEST(http_url, refuses_others) {
    for (const std::string_view text : {"",
                                        "http",
                                        "http://",
                                        "http:///x",
                                        "//h/x",
                                        "/x",
                                        "ftp://h/",
                                        "file:///etc/passwd",
                                        "javascript:alert(1)",
                                        "http://h:0/",
                                        "http://h:65536/",
                                        "http://h:x/",
                                        "http://h:-1/",
                                        "http://a b/",
                                        "http://h/a b",
                                        "http://h/\r\n",
                                        "http://h/\n",
                                        "http://a%0d%0ab/",
                                        "http://a%00b/",
                                        "http://[v1.x]/",
                                        "http://h/%zz",
                                        "http://\xc3\xbc/"})
        EXPECT_FALSE(parse_http_url(text)) << text;
    EXPECT_FALSE(parse_http_url("http://h/" + std::string(100000, 'a')));
    EXPECT_FALSE(parse_http_url("http://" + std::string(300, 'a') + "/"));
    EXPECT_FALSE(parse_http_url(std::string_view("http://h/\0", 10)));
}

TEST(http_url, errors_do_not_repeat_a_password) {
    for (const std::string_view text :
         {"http://a:secret@h:0/", "ftp://a:secret@h/", "http://a:secret@h/ x"})
        EXPECT_EQ(parse_http_url(text).error().describe().find("secret"), std::string::npos);
}

// The example of the Standard Webhooks specification.
TEST(webhook_signature, is_the_standard_one) {
    const auto secrets =
        parse_webhook_secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n\nother\r\n").value();
    ASSERT_EQ(secrets.size(), 2u);
    EXPECT_EQ(secrets[1], "other");
    EXPECT_EQ(webhook_signature(secrets[0], "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330",
                                R"({"test": 2432232314})"),
              "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}
