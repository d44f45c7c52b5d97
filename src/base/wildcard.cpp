#include "base/wildcard.hpp"

namespace rqxx {

bool matches_wildcard(std::string_view pattern, std::string_view text) noexcept {
    // Only the last star passed ever has to take more: one that is met later does as well as it.
    std::size_t p = 0, t = 0, star = std::string_view::npos, star_ends = 0;
    while (t < text.size()) {
        if (p < pattern.size() && pattern[p] == '*') {
            star = p++;
            star_ends = t;
        } else if (p < pattern.size() && pattern[p] == text[t]) {
            ++p;
            ++t;
        } else if (star != std::string_view::npos) {
            p = star + 1;
            t = ++star_ends;
        } else {
            return false;
        }
    }
    while (p < pattern.size() && pattern[p] == '*')
        ++p;
    return p == pattern.size();
}

}  // namespace rqxx
