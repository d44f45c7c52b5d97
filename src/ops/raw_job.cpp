#include "ops/raw_job.hpp"

#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"

namespace rqxx::ops {

namespace asio = boost::asio;

asio::awaitable<std::optional<RawJob>> raw_job(RedisClient& redis, std::string id,
                                               std::size_t most_bytes) {
    RawJob job;
    job.key = keys::job(id);
    const Reply reply = co_await redis.eval(lua::raw_job, {job.key}, {std::to_string(most_bytes)});
    const auto& parts = reply.as_array();
    job.type = parts.at(0).as_text();
    if (job.type == "none") co_return std::nullopt;
    if (const auto ttl = parts.at(1).as_integer(); ttl >= 0)
        job.ttl = std::chrono::milliseconds(ttl);
    job.fields_total = static_cast<std::uint64_t>(parts.at(2).as_integer());
    job.queue = parts.at(3).as_text();
    const auto& cells = parts.at(4).as_array();
    for (std::size_t i = 0; i + 2 < cells.size(); i += 3)
        job.fields.push_back({cells[i].as_text(),
                              static_cast<std::uint64_t>(cells[i + 1].as_integer()),
                              cells[i + 2].as_text()});
    co_return job;
}

}  // namespace rqxx::ops
