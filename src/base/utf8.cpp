#include "base/utf8.hpp"

#include <algorithm>

namespace rqxx {

Utf8 next_utf8(std::string_view text, std::size_t at) noexcept {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
    const auto continues = [&](std::size_t i) {
        return at + i < text.size() && (byte(i) & 0xc0) == 0x80;
    };
    const unsigned lead = byte(0);
    if (lead < 0x80) return {lead, 1};
    if (lead >= 0xc2 && lead < 0xe0 && continues(1))
        return {(lead & 0x1f) << 6 | (byte(1) & 0x3f), 2};
    if (lead >= 0xe0 && lead < 0xf0 && continues(1) && continues(2)) {
        const std::uint32_t code = (lead & 0x0f) << 12 | (byte(1) & 0x3fu) << 6 | (byte(2) & 0x3fu);
        if (code >= 0x800) return {code, 3};
    }
    if (lead >= 0xf0 && lead < 0xf5 && continues(1) && continues(2) && continues(3)) {
        const std::uint32_t code = (lead & 0x07) << 18 | (byte(1) & 0x3fu) << 12 |
                                   (byte(2) & 0x3fu) << 6 | (byte(3) & 0x3fu);
        if (code >= 0x10000 && code <= 0x10ffff) return {code, 4};
    }
    return {Utf8::invalid, 1};
}

bool is_valid_utf8(std::string_view text) noexcept {
    for (std::size_t i = 0; i < text.size();) {
        const auto [code, length] = next_utf8(text, i);
        if (code == Utf8::invalid || (code >= 0xd800 && code < 0xe000)) return false;
        i += length;
    }
    return true;
}

std::string to_valid_utf8(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (std::size_t i = 0; i < text.size();) {
        const auto [code, length] = next_utf8(text, i);
        if (code == Utf8::invalid || (code >= 0xd800 && code < 0xe000))
            out += "\xef\xbf\xbd";
        else
            out += text.substr(i, length);
        i += length;
    }
    return out;
}

std::size_t whole_characters(std::string_view text) noexcept {
    for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
        const auto byte = static_cast<unsigned char>(text[text.size() - back]);
        if ((byte & 0xc0) == 0x80) continue;  // The middle of a character.
        const std::size_t length = byte >= 0xf0 && byte < 0xf5   ? 4
                                   : byte >= 0xe0 && byte < 0xf0 ? 3
                                   : byte >= 0xc2 && byte < 0xe0 ? 2
                                                                 : 1;
        return length > back ? text.size() - back : text.size();
    }
    return text.size();
}

std::string lower_ascii(std::string_view text) {
    std::string lower(text);
    for (char& c : lower)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return lower;
}

}  // namespace rqxx
