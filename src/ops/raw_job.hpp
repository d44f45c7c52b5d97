#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <rqxx/redis/client.hpp>
#include <string>
#include <vector>

namespace rqxx::ops {

/// A field of a job's hash, any bytes.
struct RawField {
    std::string name;  ///< At most 200 bytes of it.
    std::uint64_t size = 0;
    std::string value;  ///< The beginning, as far as was asked for; nothing of what is over 1 MB.
};

/// What stands under a job's key.
struct RawJob {
    std::string key, type, queue;
    std::optional<std::chrono::milliseconds> ttl;  ///< Nothing: it stays.
    std::uint64_t fields_total = 0;
    std::vector<RawField> fields;  ///< By name; of more than 200 those that RQ writes.
};

/// One round trip; reads only. @param most_bytes  of a value. Nothing where there is no such key.
[[nodiscard]] boost::asio::awaitable<std::optional<RawJob>> raw_job(RedisClient& redis,
                                                                    std::string id,
                                                                    std::size_t most_bytes);

}  // namespace rqxx::ops
