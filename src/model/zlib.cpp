#include <openssl/evp.h>
#include <zlib.h>

#include <cstring>
#include <rqxx/codec.hpp>

namespace rqxx {
namespace {

/// A deflate stream kept for the next call: setting one up costs more than compressing a job.
class Deflater {
public:
    Deflater(int window_bits, int memory) {
        if (deflateInit2(&stream_, Z_DEFAULT_COMPRESSION, Z_DEFLATED, window_bits, memory,
                         Z_DEFAULT_STRATEGY) != Z_OK)
            throw std::bad_alloc();
    }
    ~Deflater() { deflateEnd(&stream_); }
    Deflater(const Deflater&) = delete;
    Deflater& operator=(const Deflater&) = delete;

    std::string compress(std::string_view bytes) {
        deflateReset(&stream_);
        std::string out(deflateBound(&stream_, static_cast<uLong>(bytes.size())) + 16, '\0');
        stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
        stream_.avail_in = static_cast<uInt>(bytes.size());
        stream_.next_out = reinterpret_cast<Bytef*>(out.data());
        stream_.avail_out = static_cast<uInt>(out.size());
        if (deflate(&stream_, Z_FINISH) != Z_STREAM_END)
            throw Error(Errc::internal, "compression failed");
        out.resize(out.size() - stream_.avail_out);
        return out;
    }

private:
    z_stream stream_{};
};

class Inflater {
public:
    Inflater() {
        if (inflateInit(&stream_) != Z_OK) throw std::bad_alloc();
    }
    ~Inflater() { inflateEnd(&stream_); }
    Inflater(const Inflater&) = delete;
    Inflater& operator=(const Inflater&) = delete;

    Parsed<std::string> decompress(std::string_view bytes, std::size_t max_bytes) {
        inflateReset(&stream_);
        stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
        stream_.avail_in = static_cast<uInt>(bytes.size());
        std::string out(std::min(max_bytes + 1, std::max<std::size_t>(256, bytes.size() * 3)),
                        '\0');
        std::size_t used = 0;
        for (;;) {
            stream_.next_out = reinterpret_cast<Bytef*>(out.data() + used);
            stream_.avail_out = static_cast<uInt>(out.size() - used);
            const int code = inflate(&stream_, Z_NO_FLUSH);
            used = out.size() - stream_.avail_out;
            if (used > max_bytes)
                return ParseError("the compressed data is too large when unpacked");
            if (code == Z_STREAM_END) break;
            if (code != Z_OK || (stream_.avail_in == 0 && stream_.avail_out != 0))
                return ParseError(stream_.msg != nullptr ? stream_.msg
                                                         : "the compressed data is truncated");
            if (stream_.avail_out == 0) out.resize(std::min(max_bytes + 1, out.size() * 2));
        }
        out.resize(used);
        return {boost::system::in_place_value, std::move(out)};
    }

private:
    z_stream stream_{};
};

}  // namespace

std::string zlib_compress(std::string_view bytes) {
    if (bytes.size() > 0x7fffffff) throw Error(Errc::usage, "more than 2 GiB cannot be stored");
    // Small tables are quick to clear; zlib readers take any window size.
    if (bytes.size() <= 512) {
        static thread_local Deflater small(9, 1);
        return small.compress(bytes);
    }
    static thread_local Deflater large(15, 8);
    return large.compress(bytes);
}

Parsed<std::string> zlib_decompress(std::string_view bytes, std::size_t max_bytes) noexcept {
    try {
        if (bytes.size() > 0x7fffffff) return ParseError("the compressed data is too large");
        static thread_local Inflater inflater;
        return inflater.decompress(bytes, std::min<std::size_t>(max_bytes, 0x7ffffffe));
    } catch (const std::exception&) {
        return ParseError("not enough memory to unpack the compressed data");
    }
}

std::string base64_encode(std::string_view bytes) {
    std::string out(4 * ((bytes.size() + 2) / 3) + 1, '\0');
    const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                     reinterpret_cast<const unsigned char*>(bytes.data()),
                                     static_cast<int>(bytes.size()));
    out.resize(static_cast<std::size_t>(size));
    return out;
}

Parsed<std::string> base64_decode(std::string_view text) noexcept {
    try {
        if (text.size() % 4 != 0 || text.size() > 0x7fffffff)
            return ParseError("not base64: its length is no multiple of 4");
        if (text.empty()) return {boost::system::in_place_value};
        std::string out(text.size() / 4 * 3, '\0');
        const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                         reinterpret_cast<const unsigned char*>(text.data()),
                                         static_cast<int>(text.size()));
        if (size < 0) return ParseError("not base64");
        std::size_t padding = 0;
        while (padding < 2 && text[text.size() - 1 - padding] == '=')
            ++padding;
        out.resize(static_cast<std::size_t>(size) - padding);
        return {boost::system::in_place_value, std::move(out)};
    } catch (const std::exception&) {
        return ParseError("not enough memory to read base64");
    }
}

}  // namespace rqxx
