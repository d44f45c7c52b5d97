// Any bytes from a Redis: replies or an error, however the stream is cut.
#include <cstdlib>
#include <redis/reply_parser.hpp>

namespace {

std::size_t count(const rqxx::Reply& reply) {
    std::size_t total = 1;
    for (const auto& element : reply.elements)
        total += count(element);
    return total;
}

/// How many replies there are, and whether it ends in an error.
std::pair<std::size_t, bool> parse(std::string_view bytes, std::size_t step) {
    rqxx::ReplyParser parser;
    std::size_t replies = 0;
    for (std::size_t at = 0; at < bytes.size(); at += step) {
        parser.feed(bytes.substr(at, step));
        for (;;) {
            const auto reply = parser.next();
            if (!reply) return {replies, true};
            if (!*reply) break;
            replies += count(**reply);
            (void)(*reply)->is_array();
            try {
                (void)(*reply)->as_pairs();
                (void)(*reply)->as_integer();
            } catch (const rqxx::Error&) {
            }
        }
    }
    return {replies, false};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    const auto whole = parse(bytes, std::max<std::size_t>(size, 1));
    const auto pieces = parse(bytes, 1);
    // A broken stream may be noticed earlier or later, a sound one reads the same.
    if (!whole.second && !pieces.second && whole.first != pieces.first) std::abort();
    return 0;
}
