#pragma once

#include <termios.h>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/top_screen.hpp"

namespace rqxx::cli {

/// A terminal as a screen: what stood on it before is back when this ends, in whatever way.
///
/// Use from the executor only.
class TopTerminal {
public:
    /// @throws Error `Errc::io` where stdin is no terminal.
    explicit TopTerminal(const boost::asio::any_io_executor& executor);
    ~TopTerminal();
    TopTerminal(const TopTerminal&) = delete;
    TopTerminal& operator=(const TopTerminal&) = delete;

    /// Columns and lines.
    [[nodiscard]] static std::pair<std::size_t, std::size_t> size();
    /// Writes the lines that have changed. @throws Error `Errc::io` where the terminal is gone.
    void show(const std::vector<std::string>& lines);
    /// Everything is written again the next time.
    void forget() { shown_.clear(); }
    /// The keys that were pressed next. @throws Error `Errc::io` where the terminal is gone.
    boost::asio::awaitable<std::vector<std::pair<TopScreen::Key, std::string>>> keys();
    /// Gives the screen back, and takes it again.
    void leave() noexcept;
    void enter();

private:
    boost::asio::posix::stream_descriptor input_;
    termios before_{};
    bool entered_ = false;
    std::vector<std::string> shown_;
    std::pair<std::size_t, std::size_t> shown_size_{};
};

/// What bytes from a terminal mean.
[[nodiscard]] std::vector<std::pair<TopScreen::Key, std::string>> keys_of(std::string_view bytes);

}  // namespace rqxx::cli
