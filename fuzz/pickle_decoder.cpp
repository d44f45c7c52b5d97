// Any bytes as a pickle or JSON payload: a value or an error, and a value survives a round trip.
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cstdlib>
#include <rqxx/codec.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace rqxx;
    const std::string bytes(reinterpret_cast<const char*>(data), size);
    const DecodeLimits limits{.max_bytes = 1 << 20, .max_depth = 100, .max_nodes = 20000};
    const auto value = decode(bytes, limits);
    if (!value) {
        if (value.error().message.empty()) std::abort();
        return 0;
    }
    (void)boost::json::serialize(to_json(*value));
    (void)repr(*value);
    for (const auto serializer : {Serializer::pickle, Serializer::json}) {
        std::string encoded;
        try {
            encoded = encode(*value, serializer);
        } catch (const Error&) {
            continue;  // Opaque nodes, bytes in JSON and the like.
        }
        const auto again = decode(encoded, {});
        if (!again) std::abort();
        // In JSON, keys of different types may become one.
        if (serializer == Serializer::pickle && encode(*again, serializer) != encoded) std::abort();
    }
    return 0;
}
