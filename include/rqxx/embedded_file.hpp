#pragma once

#include <string_view>

namespace rqxx {

/// A file compiled into the program.
struct EmbeddedFile {
    std::string_view name;
    std::string_view body;
    std::string_view etag;  ///< With its quotes.
};

}  // namespace rqxx
