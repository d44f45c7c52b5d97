#include "runtime/batch_upload.hpp"

#include <fmt/format.h>

#include "base/run_blocking.hpp"
#include "base/utf8.hpp"
#include "ops/batch_loader.hpp"
#include "ops/new_job.hpp"

namespace rqxx::runtime {
namespace {

UploadOptions complete(UploadOptions options) {
    if (options.name.empty()) options.name = new_job_id();
    if (!is_valid_job_id(options.name) || options.name.size() > 200)
        ops::refuse("name", "only letters, digits, _ and - are allowed, at most 200");
    if (options.follow_queue.empty()) options.follow_queue = options.queue;
    ops::check_queue_name(options.queue);
    ops::check_queue_name(options.follow_queue, "follow_queue");
    return options;
}

}  // namespace

BatchUpload::BatchUpload(UploadOptions options)
    : options_(complete(std::move(options))),
      lines_({options_.name, options_.queue, options_.serializer, options_.partial,
              options_.functions, options_.folder}) {
    for (const auto* function :
         {&options_.on_complete, &options_.on_success, &options_.on_first_failure}) {
        if (!function->empty() && !is_allowed(options_.functions, *function))
            ops::refuse("func", fmt::format("\"{}\" may not be enqueued here",
                                            to_valid_utf8(function->substr(0, 80))));
    }
}

asio::awaitable<void> BatchUpload::check(RedisClient& redis) {
    Batch batch(redis, options_.name);
    if (co_await batch.progress()) ops::refuse("name", "there is a batch of this name already");
}

std::optional<FollowUp> BatchUpload::follow_up(const std::string& function) const {
    if (function.empty()) return std::nullopt;
    FollowUp result;
    result.queue = options_.follow_queue;
    result.call.func_name = function;
    result.call.args = Value::tuple({Value(options_.name)});
    return result;
}

asio::awaitable<Batch> BatchUpload::enqueue(RedisClient& redis, asio::thread_pool& blocking,
                                            std::function<void(std::uint64_t)> report) {
    BatchOptions options;
    options.id = options_.name;
    options.parent = options_.parent;
    options.ttl = options_.ttl;
    options.open_for = std::chrono::minutes(1);  // No longer than the loader waits for Redis.
    options.on_complete = follow_up(options_.on_complete);
    options.on_success = follow_up(options_.on_success);
    options.on_first_failure = follow_up(options_.on_first_failure);
    Batch batch = co_await Batch::create(redis, std::move(options), options_.serializer);
    ops::BatchLoader loader(redis, batch.id());
    std::vector<ops::EncodedJob> jobs;
    for (;;) {
        co_await run_blocking(blocking, [&] { jobs = lines_.read(); });
        if (jobs.empty()) break;
        for (auto& job : jobs)
            co_await loader.put(std::move(job));
        if (report) report(loader.added() + loader.duplicates());
    }
    co_await loader.finish();
    co_await batch.seal();
    added_ = loader.added();
    duplicates_ = loader.duplicates();
    co_return batch;
}

}  // namespace rqxx::runtime
