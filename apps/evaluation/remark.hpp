#pragma once

#include <cstdint>
#include <string>

namespace evaluation {

/// A place in the code and what is wrong there: a reviewer's comment, or a known defect.
struct Remark {
    std::string file;
    std::int64_t from = 1, to = 1;  ///< Lines, both included; 1 <= from <= to.
    std::string type;
    std::string text;
};

}  // namespace evaluation
