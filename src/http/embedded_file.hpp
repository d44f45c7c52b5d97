#pragma once

#include <span>
#include <string_view>

namespace rqxx::http {

/// A file of the web page, compiled into the program.
struct EmbeddedFile {
    std::string_view name;
    std::string_view body;
    std::string_view etag;  ///< With its quotes.
};

/// The files of `web/`.
[[nodiscard]] std::span<const EmbeddedFile> web_files();

}  // namespace rqxx::http
