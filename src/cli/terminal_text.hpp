#pragma once

#include <string>
#include <string_view>

namespace rqxx::cli {

/// Makes bytes that come in pieces harmless for a terminal: `printable`, but colours (SGR) stay
/// where they are wanted, and a carriage return begins a line.
class TerminalText {
public:
    explicit TerminalText(bool colors) : colors_(colors) {}
    /// What can be shown of all that came; a character or sequence that has only begun is kept.
    [[nodiscard]] std::string feed(std::string_view bytes);
    /// What is left at the end; colours are switched off.
    [[nodiscard]] std::string end();

private:
    /// Handles what begins with ESC at the front of `rest`. The bytes used; 0: it has only begun.
    std::size_t escape(std::string_view rest, std::string& out);

    bool colors_;
    bool colored_ = false;
    std::string begun_;
};

}  // namespace rqxx::cli
