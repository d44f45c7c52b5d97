#include "runtime/signing.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <time.h>

#include <algorithm>
#include <rqxx/codec.hpp>
#include <rqxx/webhooks.hpp>

namespace rqxx {

Parsed<std::vector<std::string>> parse_webhook_secrets(std::string_view text) noexcept {
    try {
        std::vector<std::string> secrets;
        while (!text.empty()) {
            const auto end = std::min(text.find('\n'), text.size());
            std::string_view line = text.substr(0, end);
            text.remove_prefix(std::min(end + 1, text.size()));
            while (!line.empty() &&
                   (line.back() == '\r' || line.back() == ' ' || line.back() == '\t'))
                line.remove_suffix(1);
            if (line.empty()) continue;
            if (!line.starts_with("whsec_")) {
                secrets.emplace_back(line);
                continue;
            }
            auto key = base64_decode(line.substr(6));
            if (!key || key->empty())
                return ParseError("what follows whsec_ is not base64", "webhook-secret");
            secrets.push_back(std::move(*key));
        }
        if (secrets.empty()) return ParseError("there is none", "webhook-secret");
        return secrets;
    } catch (const std::exception& error) {
        return ParseError(error.what(), "webhook-secret");
    }
}

std::string webhook_signature(std::string_view secret, std::string_view id,
                              std::string_view timestamp, std::string_view body) {
    const std::string text = fmt::format("{}.{}.{}", id, timestamp, body);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    ::HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
           reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest, &size);
    return "v1," + base64_encode({reinterpret_cast<const char*>(digest), size});
}

void runtime::sign(HttpRequest& request, const std::vector<std::string>& secrets,
                   const std::string& id) {
    if (secrets.empty()) return;
    const std::string now = std::to_string(::time(nullptr));
    std::string signatures;
    for (const auto& secret : secrets)
        signatures +=
            (signatures.empty() ? "" : " ") + webhook_signature(secret, id, now, request.body);
    request.headers.emplace_back("webhook-timestamp", now);
    request.headers.emplace_back("webhook-signature", signatures);
}

}  // namespace rqxx
