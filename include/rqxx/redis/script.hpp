#pragma once

#include <string_view>

namespace rqxx {

/// A Lua script and the SHA1 that EVALSHA knows it by.
struct Script {
    std::string_view name;
    std::string_view sha1;
    std::string_view body;
};

}  // namespace rqxx
