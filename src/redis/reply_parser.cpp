#include "redis/reply_parser.hpp"

#include <hiredis/hiredis.h>

namespace rqxx {
namespace {

/// Where the object of this task goes: a new root, or the next element of the parent array.
///
/// hiredis keeps pointers only to the arrays that are still being filled, and those are never moved
/// by a push to an outer array, so elements can be added one by one. A length that Redis merely
/// declares costs no memory that way.
Reply* place(const redisReadTask* task) noexcept {
    try {
        if (task->parent == nullptr) return new Reply;
        return &static_cast<Reply*>(task->parent->obj)->elements.emplace_back();
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

void* create_string(const redisReadTask* task, char* text, size_t size) noexcept {
    Reply* reply = place(task);
    if (reply == nullptr) return nullptr;
    reply->type = task->type == REDIS_REPLY_STATUS  ? Reply::Type::status
                  : task->type == REDIS_REPLY_ERROR ? Reply::Type::error
                                                    : Reply::Type::string;
    try {
        reply->text.assign(text, size);
    } catch (const std::bad_alloc&) {
        if (task->parent == nullptr) delete reply;
        return nullptr;
    }
    return reply;
}

void* create_array(const redisReadTask* task, int size) noexcept {
    Reply* reply = place(task);
    if (reply == nullptr) return nullptr;
    reply->type = Reply::Type::array;
    try {
        reply->elements.reserve(static_cast<std::size_t>(std::clamp(size, 0, 64)));
    } catch (const std::bad_alloc&) {
        if (task->parent == nullptr) delete reply;
        return nullptr;
    }
    return reply;
}

void* create_integer(const redisReadTask* task, long long value) noexcept {
    Reply* reply = place(task);
    if (reply == nullptr) return nullptr;
    reply->type = Reply::Type::integer;
    reply->integer = value;
    return reply;
}

void* create_nil(const redisReadTask* task) noexcept {
    return place(task);
}

void free_root(void* reply) noexcept {
    delete static_cast<Reply*>(reply);
}

redisReplyObjectFunctions functions{create_string, create_array, create_integer, create_nil,
                                    free_root};

}  // namespace

ReplyParser::ReplyParser() : reader_(redisReaderCreateWithFunctions(&functions)) {
    if (reader_ == nullptr) throw std::bad_alloc();
    reader_->maxbuf = 1 << 20;  // Idle buffers up to this size are kept.
}

ReplyParser::~ReplyParser() {
    redisReaderFree(reader_);
}

void ReplyParser::feed(std::string_view bytes) {
    if (!bytes.empty()) redisReaderFeed(reader_, bytes.data(), bytes.size());
}

Parsed<std::optional<Reply>> ReplyParser::next() noexcept {
    void* object = nullptr;
    if (redisReaderGetReply(reader_, &object) != REDIS_OK)
        return ParseError(std::string("not a Redis reply: ") + reader_->errstr);
    if (object == nullptr) return std::optional<Reply>{};
    const std::unique_ptr<Reply> root(static_cast<Reply*>(object));
    return std::optional<Reply>(std::move(*root));
}

}  // namespace rqxx
