#include <boost/uuid/random_generator.hpp>
#include <boost/uuid/uuid.hpp>
#include <boost/uuid/uuid_io.hpp>
#include <rqxx/job.hpp>

namespace rqxx {
namespace {

boost::uuids::uuid random_uuid() {
    // Seeded from the system's entropy, once per thread.
    static thread_local boost::uuids::random_generator_mt19937 generator;
    return generator();
}

}  // namespace

std::string new_job_id() {
    return boost::uuids::to_string(random_uuid());
}

std::string new_execution_id() {
    auto id = random_uuid();
    auto millis = static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(utc_now().time_since_epoch())
            .count());
    for (int i = 5; i >= 0; --i, millis >>= 8)
        id.data[i] = static_cast<std::uint8_t>(millis);
    id.data[6] = static_cast<std::uint8_t>((id.data[6] & 0x0f) | 0x70);
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    text.reserve(32);
    for (const auto byte : id) {
        text += digits[byte >> 4];
        text += digits[byte & 0x0f];
    }
    return text;
}

}  // namespace rqxx
