#include <gtest/gtest.h>

#include <redis/reply_parser.hpp>
#include <rqxx/redis/client.hpp>
#include <rqxx/redis/url.hpp>

using namespace rqxx;

TEST(redis_url, reads_each_transport) {
    const auto tcp = parse_redis_url("redis://user:p%40ss@example:6380/3").value();
    EXPECT_EQ(tcp.host, "example");
    EXPECT_EQ(tcp.port, "6380");
    EXPECT_EQ(tcp.user, "user");
    EXPECT_EQ(tcp.password, "p@ss");
    EXPECT_EQ(tcp.database, 3);
    const auto unix_socket = parse_redis_url("unix:///run/redis.sock?db=2").value();
    EXPECT_EQ(unix_socket.path, "/run/redis.sock");
    EXPECT_EQ(unix_socket.database, 2);
    EXPECT_EQ(parse_redis_url("rediss://[::1]").value().host, "::1");
    EXPECT_EQ(parse_redis_url("redis://").value().endpoint(), "localhost:6379");
}

TEST(redis_url, names_what_is_wrong_and_never_the_password) {
    for (const char* text :
         {"", "localhost", "http://:secret@x", "redis://:secret@x:0", "redis://:secret@x/abc",
          "unix://:secret@x/s", "unix://", "redis://:secret@x?db=-1", "redis://:secret@x:99999"}) {
        const auto url = parse_redis_url(text);
        ASSERT_FALSE(url) << text;
        EXPECT_EQ(url.error().describe().find("secret"), std::string::npos);
    }
}

TEST(redis_url, is_redacted_for_logs) {
    EXPECT_EQ(parse_redis_url("redis://:secret@h/1").value().redacted(), "redis://:***@h:6379/1");
    EXPECT_EQ(parse_redis_url("unix://u:secret@/s").value().redacted(), "unix://u:***@/s");
}

TEST(reply_parser, reads_replies_that_arrive_byte_by_byte) {
    ReplyParser parser;
    std::vector<Reply> replies;
    for (const char c :
         std::string_view("+OK\r\n*3\r\n:7\r\n$1\r\na\r\n*1\r\n$-1\r\n-ERR no\r\n")) {
        parser.feed(std::string_view(&c, 1));
        while (auto reply = parser.next().value())
            replies.push_back(std::move(*reply));
    }
    ASSERT_EQ(replies.size(), 3u);
    EXPECT_EQ(replies[0].text, "OK");
    EXPECT_EQ(replies[1].elements[0].as_integer(), 7);
    EXPECT_EQ(replies[1].elements[1].text, "a");
    EXPECT_TRUE(replies[1].elements[2].elements[0].is_nil());
    EXPECT_THROW(replies[2].throw_if_error(), ServerError);
}

TEST(reply_parser, refuses_what_is_not_resp) {
    ReplyParser parser;
    parser.feed("HTTP/1.1 400 Bad Request\r\n");
    EXPECT_FALSE(parser.next());
}

TEST(reply_parser, takes_no_memory_for_declared_lengths) {
    ReplyParser parser;
    parser.feed("*2000000000\r\n");
    EXPECT_FALSE(parser.next().value());
}

TEST(pipeline, encodes_commands_as_resp) {
    Pipeline pipeline;
    pipeline.add("SET", std::string("key"), 42).add("PING");
    EXPECT_EQ(pipeline.size(), 2u);
    EXPECT_EQ(pipeline.bytes(), "*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$2\r\n42\r\n*1\r\n$4\r\nPING\r\n");
}
