#include "ops/etag.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>

namespace rqxx::ops {

std::string etag_of(std::string_view text) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int size = 0;
    EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha1(), nullptr);
    std::string hex;
    for (unsigned int i = 0; i < size; ++i)
        hex += fmt::format("{:02x}", digest.at(i));
    return hex;
}

}  // namespace rqxx::ops
