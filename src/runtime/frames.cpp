#include "runtime/frames.hpp"

#include <algorithm>
#include <boost/asio/read.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <rqxx/error.hpp>

namespace rqxx::runtime {

namespace asio = boost::asio;

namespace {

constexpr std::size_t max_frame = std::size_t{512} << 20;

std::uint32_t number_at(std::string_view bytes, std::size_t at) {
    std::uint32_t number = 0;
    for (std::size_t i = 0; i < 4; ++i)
        number |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[at + i])) << (8 * i);
    return number;
}

}  // namespace

std::size_t frame_size(std::string_view head) {
    return number_at(head, 0);
}

std::vector<std::string_view> fields_of(std::string_view bytes) {
    std::vector<std::string_view> fields;
    std::size_t at = 0;
    while (at + 4 <= bytes.size()) {
        const std::size_t size = number_at(bytes, at);
        at += 4;
        if (size > bytes.size() - at) return {};
        fields.push_back(bytes.substr(at, size));
        at += size;
    }
    return at == bytes.size() ? fields : std::vector<std::string_view>{};
}

asio::awaitable<std::string> read_frame(asio::local::stream_protocol::socket& socket) {
    std::string bytes(4, '\0');
    co_await asio::async_read(socket, asio::buffer(bytes), asio::use_awaitable);
    const std::size_t size = frame_size(bytes);
    if (size > max_frame) throw Error(Errc::protocol, "a frame is too large");
    bytes.clear();
    while (bytes.size() < size) {
        const std::size_t before = bytes.size();
        bytes.resize(std::min(size, before + (std::size_t{1} << 20)));
        co_await asio::async_read(socket,
                                  asio::buffer(bytes.data() + before, bytes.size() - before),
                                  asio::use_awaitable);
    }
    co_return bytes;
}

}  // namespace rqxx::runtime
