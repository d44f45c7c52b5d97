#include <fmt/format.h>
#include <openssl/ssl.h>

#include <rqxx/error.hpp>

#include "http/stream.hpp"

namespace rqxx::http {

namespace ssl = boost::asio::ssl;

Certificate::Certificate(std::filesystem::path certificate, std::filesystem::path key, Logger& log)
    : certificate_(std::move(certificate)),
      key_(std::move(key)),
      log_(log),
      times_(changed()),
      checked_(std::chrono::steady_clock::now()) {
    context_ = read();
}

Certificate::Times Certificate::changed() const {
    std::error_code error;  // A file that is missing just now has not changed.
    return {std::filesystem::last_write_time(certificate_, error),
            std::filesystem::last_write_time(key_, error)};
}

std::shared_ptr<ssl::context> Certificate::read() const {
    auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
    const auto check = [](std::string_view flag, const std::filesystem::path& file,
                          const boost::system::error_code& error) {
        if (error)
            throw Error(Errc::usage,
                        fmt::format("{}: {}: {}", flag, file.string(), error.message()));
    };
    ::SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
    ::SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION);
    boost::system::error_code error;
    // Nobody is there to be asked for a password.
    context->set_password_callback(
        [](std::size_t, ssl::context::password_purpose) { return std::string(); }, error);
    context->use_certificate_chain_file(certificate_.string(), error);
    check("--tls-cert", certificate_, error);
    context->use_private_key_file(key_.string(), ssl::context::pem, error);
    check("--tls-key", key_, error);
    if (::SSL_CTX_check_private_key(context->native_handle()) != 1)
        throw Error(Errc::usage, fmt::format("--tls-key: {} is not the key of {}", key_.string(),
                                             certificate_.string()));
    return context;
}

std::shared_ptr<ssl::context> Certificate::context() {
    const auto now = std::chrono::steady_clock::now();
    if (now - checked_ < std::chrono::seconds(1)) return context_;
    checked_ = now;
    const Times times = changed();
    if (times == times_) return context_;
    times_ = times;
    try {
        context_ = read();
        log_.info("The certificate was read again", "file", certificate_.string());
    } catch (const Error& error) {
        log_.warning("The new certificate cannot be used; the old one stays", "error",
                     error.message());
    }
    return context_;
}

}  // namespace rqxx::http
