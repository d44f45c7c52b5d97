#include "cli/top_terminal.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstring>
#include <rqxx/error.hpp>

#include "base/utf8.hpp"

namespace rqxx::cli {

namespace asio = boost::asio;
using Key = TopScreen::Key;

namespace {

// Source: xterm control sequences; alternate screen with the cursor saved, cursor hidden, no wrap.
constexpr std::string_view take_screen = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
constexpr std::string_view give_screen_back = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// False where the terminal is gone.
bool write_all(std::string_view text) noexcept {
    while (!text.empty()) {
        const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return false;
        text.remove_prefix(static_cast<std::size_t>(written));
    }
    return true;
}

struct Sequence {
    std::string_view bytes;
    Key key;
};
constexpr std::array<Sequence, 19> sequences{{
    {"\x1b[A", Key::up},      {"\x1b[B", Key::down},     {"\x1bOA", Key::up},
    {"\x1bOB", Key::down},    {"\x1b[5~", Key::page_up}, {"\x1b[6~", Key::page_down},
    {"\x1b[H", Key::home},    {"\x1b[F", Key::end},      {"\x1bOH", Key::home},
    {"\x1bOF", Key::end},     {"\x1b[1~", Key::home},    {"\x1b[4~", Key::end},
    {"\x1b[7~", Key::home},   {"\x1b[8~", Key::end},     {"\x1b[Z", Key::back_tab},
    {"\t", Key::tab},         {"\r", Key::enter},        {"\n", Key::enter},
    {"\x7f", Key::backspace},
}};

/// The length of a control sequence that stands at the front.
std::size_t length_of_sequence(std::string_view bytes) {
    if (bytes.size() < 2 || (bytes[1] != '[' && bytes[1] != 'O')) return 1;
    std::size_t at = 2;
    while (at < bytes.size() && (bytes[at] < '@' || bytes[at] > '~'))
        ++at;
    return std::min(at + 1, bytes.size());
}

}  // namespace

std::vector<std::pair<Key, std::string>> keys_of(std::string_view bytes) {
    std::vector<std::pair<Key, std::string>> keys;
    while (!bytes.empty()) {
        const auto* known = std::ranges::find_if(
            sequences, [&](const auto& one) { return bytes.starts_with(one.bytes); });
        if (known != sequences.end()) {
            keys.emplace_back(known->key, "");
            bytes.remove_prefix(known->bytes.size());
        } else if (bytes.front() == '\x1b') {
            const std::size_t length = length_of_sequence(bytes);
            if (length == 1) keys.emplace_back(Key::escape, "");
            bytes.remove_prefix(length);
        } else if (bytes.front() == '\b') {
            keys.emplace_back(Key::backspace, "");
            bytes.remove_prefix(1);
        } else {
            const auto character = next_utf8(bytes, 0);
            if (static_cast<unsigned char>(bytes.front()) >= 0x20)
                keys.emplace_back(Key::text, bytes.substr(0, character.length));
            bytes.remove_prefix(character.length);
        }
    }
    return keys;
}

TopTerminal::TopTerminal(const asio::any_io_executor& executor) : input_(executor) {
    // A description of its own: that of stdin is shared with the shell, and is not to become
    // non-blocking.
    const char* name = ::ttyname(STDIN_FILENO);
    const int tty = name == nullptr ? -1 : ::open(name, O_RDONLY | O_NOCTTY | O_CLOEXEC);
    if (tty < 0 || ::tcgetattr(STDIN_FILENO, &before_) != 0) {
        if (tty >= 0) ::close(tty);
        throw Error(Errc::io, "top: stdin is no terminal");
    }
    input_.assign(tty);
    enter();
}

TopTerminal::~TopTerminal() {
    leave();
}

void TopTerminal::enter() {
    termios raw = before_;
    // Signals of the keyboard stay signals.
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    ::tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    entered_ = true;
    write_all(take_screen);
    forget();
}

void TopTerminal::leave() noexcept {
    if (!entered_) return;
    entered_ = false;
    write_all(give_screen_back);
    ::tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
}

std::pair<std::size_t, std::size_t> TopTerminal::size() {
    winsize size{};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0)
        return {80, 24};
    return {size.ws_col, size.ws_row};
}

void TopTerminal::show(const std::vector<std::string>& lines) {
    std::string out;
    if (shown_size_ != size()) {
        shown_size_ = size();
        forget();
    }
    if (shown_.empty()) out += "\x1b[2J";
    for (std::size_t i = 0; i < lines.size(); ++i) {
        if (i < shown_.size() && shown_[i] == lines[i]) continue;
        out += fmt::format("\x1b[{};1H{}\x1b[K", i + 1, lines[i]);
    }
    for (std::size_t i = lines.size(); i < shown_.size(); ++i)
        out += fmt::format("\x1b[{};1H\x1b[K", i + 1);
    shown_ = lines;
    if (!write_all(out)) throw Error(Errc::io, "top: the terminal is gone");
}

asio::awaitable<std::vector<std::pair<Key, std::string>>> TopTerminal::keys() {
    std::array<char, 256> buffer{};
    boost::system::error_code error;
    const std::size_t count = co_await input_.async_read_some(
        asio::buffer(buffer), asio::redirect_error(asio::use_awaitable, error));
    if (error == asio::error::operation_aborted) throw Cancelled();
    if (error) throw Error(Errc::io, "top: the terminal is gone");
    co_return keys_of(std::string_view(buffer.data(), count));
}

}  // namespace rqxx::cli
