#pragma once

#include <cstddef>
#include <rqxx/value.hpp>
#include <string>
#include <string_view>

namespace rqxx {

/// How arguments, results and meta are turned into bytes. Nothing in Redis says which one was
/// used: producer and worker of a queue must agree, or sniff.
enum class Serializer { pickle, json };

[[nodiscard]] Parsed<Serializer> parse_serializer(std::string_view name) noexcept;
[[nodiscard]] std::string_view to_string(Serializer serializer) noexcept;

/// Bounds on untrusted payloads.
struct DecodeLimits {
    std::size_t max_bytes = 64u << 20;  ///< After decompression.
    std::size_t max_depth = 200;
    std::size_t max_nodes = 1'000'000;  ///< Values built, counting shared ones each time.
};

/// What RQ stores in a job's `data`: `(func_name, instance, args, kwargs)`.
struct Call {
    std::string func_name;
    Value instance;  ///< None for plain functions.
    Value args = Value::tuple();
    Value kwargs = Value::dict();
};

/// Decodes one pickle of protocol 2 to 5. Executes nothing: unknown globals become opaque nodes.
/// Source: Lib/pickletools.py; rq-wire-format section 13.
[[nodiscard]] Parsed<Value> decode_pickle(std::string_view bytes,
                                          const DecodeLimits& limits = {}) noexcept;
/// Protocol 4 without memo or frames: loads on every CPython >= 3.4. An opaque node throws
/// `Errc::usage`.
[[nodiscard]] std::string encode_pickle(const Value& value);

/// Python's json.loads, `NaN` and `Infinity` included.
[[nodiscard]] Parsed<Value> decode_json(std::string_view bytes,
                                        const DecodeLimits& limits = {}) noexcept;
/// Python's json.dumps byte for byte: `, ` and `: ` separators, non-ASCII escaped.
/// @throws Error `Errc::usage` for values that JSON cannot carry (bytes, sets, opaque nodes).
[[nodiscard]] std::string encode_json(const Value& value);

[[nodiscard]] std::string encode(const Value& value, Serializer serializer);
/// Sniffs the serializer: 0x80 starts a pickle, anything else is JSON.
[[nodiscard]] Parsed<Value> decode(std::string_view bytes,
                                   const DecodeLimits& limits = {}) noexcept;
/// Which serializer these (decompressed) bytes were made with.
[[nodiscard]] Serializer sniff(std::string_view bytes) noexcept;

/// A call as a job's `data` field: serialized, then zlib.
[[nodiscard]] std::string encode_call(const Call& call, Serializer serializer);
/// A job's `data` field, compressed or not. `used`, if given, is set to the serializer found.
[[nodiscard]] Parsed<Call> decode_call(std::string_view data, const DecodeLimits& limits = {},
                                       Serializer* used = nullptr) noexcept;
/// `func_name(arg reprs…, k=repr…)`: RQ's default description. Source: rq/utils.py get_call_string.
[[nodiscard]] std::string describe_call(const Call& call);

[[nodiscard]] std::string zlib_compress(std::string_view bytes);
/// Fails on damaged input and where the output would exceed `max_bytes`.
[[nodiscard]] Parsed<std::string> zlib_decompress(std::string_view bytes,
                                                  std::size_t max_bytes) noexcept;
[[nodiscard]] std::string base64_encode(std::string_view bytes);
[[nodiscard]] Parsed<std::string> base64_decode(std::string_view text) noexcept;

}  // namespace rqxx
