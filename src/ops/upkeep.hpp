#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <map>
#include <rqxx/redis/client.hpp>
#include <rqxx/worker.hpp>
#include <string>
#include <vector>

/// What any process of rqxx does for all: taking jobs back from the dead, and putting in order what
/// crashes and stock workers leave behind.
namespace rqxx::ops {

namespace asio = boost::asio;

/// The error of a job whose worker is gone, as stored. Source: rq/registry.py (RQ 2.10).
[[nodiscard]] std::string abandoned_exc_string();

struct Recovered {
    std::string job_id, what, worker, queue;
    std::int64_t attempt = 0, of = 0;
};

struct RecoverResult {
    bool more = false;
    std::vector<Recovered> jobs;
};

/// Takes back what dead workers were running: ours by their leases, others of `queues` by the
/// scores of their executions.
asio::awaitable<RecoverResult> recover(RedisClient& redis, std::vector<std::string> queues,
                                       RecoverPolicy policy);
/// A pass over one queue, unless there was one within the last ten seconds. What was put in order,
/// as in lua/maintain.lua.
asio::awaitable<std::map<std::string, std::int64_t>> maintain(RedisClient& redis,
                                                              std::string queue);
/// Lets pass what limiters hold up and need not any more, where no worker did.
asio::awaitable<void> tend_limits(RedisClient& redis);
asio::awaitable<void> maintain_groups(RedisClient& redis);
/// A pass over some of RQ's rate limits, unless there was one within the last ten seconds. How many
/// slots were freed that nobody needed any more.
asio::awaitable<std::int64_t> maintain_rate_limits(RedisClient& redis);
/// Deduplication keys whose job has ended, unless there was a pass within the last ten seconds. How
/// many were forgotten.
asio::awaitable<std::int64_t> maintain_dedups(RedisClient& redis);
/// Counts jobs of batches that stock workers ended, and goes on with what was begun with batches
/// and nobody drives any more. Nothing is done where another process did within the last two
/// seconds.
asio::awaitable<void> maintain_batches(RedisClient& redis);
/// Names of the queues that RQ knows.
asio::awaitable<std::vector<std::string>> known_queues(RedisClient& redis);

}  // namespace rqxx::ops
