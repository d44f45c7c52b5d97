#pragma once

#include <rqxx/batch.hpp>
#include <string>

namespace rqxx::ops {

enum class BatchAction { cancel, retry };

/// Cancels or retries the jobs of a batch, step by step, then those of the batches in it.
/// `begin`: false to go on with what somebody else began.
/// @throws Error as `Batch::cancel` and `Batch::retry_failed`.
boost::asio::awaitable<BatchActionResult> act_on_batch(RedisClient& redis, BatchAction action,
                                                       std::string id, bool begin,
                                                       Batch::Report report);

}  // namespace rqxx::ops
