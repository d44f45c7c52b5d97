#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// What a worker and the processes of its slots say to each other; python/executor.py and
/// native_zygote.cpp have the other end.
namespace rqxx::runtime {

/// A frame in the making: its length, then fields with theirs.
class Frame {
public:
    Frame() : bytes_(4, '\0') {}
    Frame& add(std::string_view field) {
        put(static_cast<std::uint32_t>(field.size()));
        bytes_ += field;
        return *this;
    }
    [[nodiscard]] std::string finish() {
        const auto size = static_cast<std::uint32_t>(bytes_.size() - 4);
        for (std::size_t i = 0; i < 4; ++i)
            bytes_[i] = static_cast<char>(size >> (8 * i));
        return std::move(bytes_);
    }

private:
    void put(std::uint32_t number) {
        for (int i = 0; i < 4; ++i)
            bytes_ += static_cast<char>(number >> (8 * i));
    }
    std::string bytes_;
};

/// The size that the first four bytes of a frame announce.
[[nodiscard]] std::size_t frame_size(std::string_view head);
/// Empty where it is not a frame. `bytes` outlive them.
[[nodiscard]] std::vector<std::string_view> fields_of(std::string_view bytes);

/// The next frame of a slot, without its length. Grows with what has come, not with what was
/// announced. @throws boost::system::system_error at the end; Error `Errc::protocol`
boost::asio::awaitable<std::string> read_frame(boost::asio::local::stream_protocol::socket& socket);

}  // namespace rqxx::runtime
