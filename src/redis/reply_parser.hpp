#pragma once

#include <memory>
#include <optional>
#include <rqxx/error.hpp>
#include <rqxx/redis/reply.hpp>
#include <string_view>

struct redisReader;

namespace rqxx {

/// Turns bytes from Redis into replies, on hiredis' reader.
class ReplyParser {
public:
    ReplyParser();
    ~ReplyParser();
    ReplyParser(const ReplyParser&) = delete;
    ReplyParser& operator=(const ReplyParser&) = delete;

    void feed(std::string_view bytes);
    /// The next whole reply; nothing when more bytes are needed. After an error the parser is done.
    [[nodiscard]] Parsed<std::optional<Reply>> next() noexcept;

private:
    redisReader* reader_;
};

}  // namespace rqxx
