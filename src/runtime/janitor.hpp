#pragma once

#include <boost/asio/awaitable.hpp>
#include <rqxx/log.hpp>
#include <rqxx/redis/client.hpp>
#include <rqxx/worker.hpp>
#include <string>
#include <vector>

namespace rqxx::runtime {

/// Recovers the jobs of dead workers every two seconds, and puts queues in order every ten.
///
/// Any number may run: each step is atomic in Redis, and who comes second finds nothing to do.
class Janitor {
public:
    /// @param queues  whose jobs it sees to; none: all that RQ knows.
    Janitor(RedisClient& redis, std::vector<std::string> queues, RecoverPolicy policy, Logger& log)
        : redis_(redis),
          queues_(std::move(queues)),
          all_(queues_.empty()),
          policy_(policy),
          log_(log) {}
    /// Until cancelled.
    boost::asio::awaitable<void> run();
    boost::asio::awaitable<void> recover();

private:
    boost::asio::awaitable<void> maintain();

    RedisClient& redis_;
    std::vector<std::string> queues_;
    bool all_;
    RecoverPolicy policy_;
    Logger& log_;
};

}  // namespace rqxx::runtime
