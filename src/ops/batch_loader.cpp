#include "ops/batch_loader.hpp"

#include <fmt/format.h>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <rqxx/events.hpp>

#include "base/task_group.hpp"
#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"
#include "ops/new_job.hpp"

namespace rqxx::ops {

using namespace std::chrono_literals;

namespace {

// As in Queue::enqueue_many. Jobs with large arguments go in smaller calls.
constexpr std::size_t jobs_per_call = 64, bytes_per_call = 256 * 1024;
constexpr std::size_t calls_in_flight = 6;
constexpr auto patience = 30s;  ///< For a Redis that is away.

enum class Code { no_such_batch = 0, added = 1, known = 2, gap = 3, sealed = 4, canceled = 5 };

}  // namespace

EncodedJob encode_for_batch(const std::string& batch, const std::string& queue,
                            Serializer serializer, const rqxx::Call& call, EnqueueOptions options,
                            std::optional<Timestamp> due, std::string& job_id) {
    check_queue_name(queue);
    if (!options.group.empty()) refuse("group", "jobs of a batch are in the group of its name");
    if (due && options.depends_on)
        refuse("depends_on", "a job is either scheduled or waits for others; give one of the two");
    check(options);
    options.group = batch;
    Job job = make_job(call, options, queue, serializer, utc_now());
    if (due && options.at_front) job.enqueue_at_front = true;
    const auto fields = field_values(job);
    Pipeline encoded;
    encoded.reserve(768 + job.data.size() + job.description.size());
    encoded.argument(std::string_view(job.id));
    encoded.argument(std::string_view(queue));
    encoded.argument(std::string_view(options.at_front ? "L" : "R"));
    encoded.argument(std::string_view(job.ttl ? std::to_string(*job.ttl) : std::string()));
    // A registry's score: whole seconds, as RQ's.
    encoded.argument(std::string_view(
        due ? std::to_string(
                  std::chrono::floor<std::chrono::seconds>(due->time_since_epoch()).count())
            : std::string()));
    encoded.argument(std::string_view(options.job_id.empty() ? "0" : "1"));
    encoded.argument(job.dependency_ids.size());
    encoded.argument(fields.size());
    for (const auto& id : job.dependency_ids)
        encoded.argument(std::string_view(id));
    for (const auto& [field, value] : fields) {
        encoded.argument(field);
        encoded.argument(std::string_view(value));
    }
    job_id = std::move(job.id);
    return {8 + job.dependency_ids.size() + 2 * fields.size(), encoded.take_bytes()};
}

void DependencyOrder::check(const EnqueueOptions& options) {
    if (!options.job_id.empty() && wanted_.contains(options.job_id))
        refuse("job_id",
               fmt::format("a job before {} depends on it: put it first", options.job_id));
    if (options.depends_on) {
        for (const auto& id : options.depends_on->job_ids)
            wanted_.insert(id);
    }
}

BatchLoader::BatchLoader(RedisClient& redis, std::string batch)
    : redis_(redis), batch_(std::move(batch)) {
    keys_ = {keys::batch(batch_), keys::batch_loader(batch_, new_execution_id())};
    next_.number = 1;
}

asio::awaitable<void> BatchLoader::put(EncodedJob job) {
    if (next_.jobs > 0 && next_.bytes.size() + job.bytes.size() > bytes_per_call)
        co_await send_next();
    ++next_.jobs;
    next_.arguments += job.arguments;
    next_.bytes += job.bytes;
    if (next_.jobs == jobs_per_call) co_await send_next();
}

asio::awaitable<void> BatchLoader::finish() {
    if (next_.jobs > 0) co_await send_next();
    while (!in_flight_.empty())
        co_await finish_oldest();
}

void BatchLoader::send(Call& call) {
    Pipeline pipeline;
    pipeline.reserve(call.bytes.size() + 512);
    pipeline.begin(3 + keys_.size() + 3 + call.arguments);
    pipeline.argument(std::string_view("EVALSHA"));
    pipeline.argument(lua::add_to_batch.sha1);
    pipeline.argument(keys_.size());
    for (const auto& key : keys_)
        pipeline.argument(std::string_view(key));
    pipeline.argument(std::string_view(batch_));
    pipeline.argument(call.number);
    pipeline.argument(call.jobs);
    pipeline.encoded_arguments(call.bytes);
    call.pending = redis_.submit(std::move(pipeline));
}

/// The next call is filled while Redis works on those before.
asio::awaitable<void> BatchLoader::send_next() {
    in_flight_.push_back(std::move(next_));
    next_ = {};
    next_.number = in_flight_.back().number + 1;
    if (!broken_) send(in_flight_.back());
    co_await asio::post(redis_.executor(), asio::use_awaitable);
    if (in_flight_.size() == calls_in_flight) co_await finish_oldest();
    while (broken_ && !in_flight_.empty())
        co_await finish_oldest();
}

asio::awaitable<void> BatchLoader::finish_oldest() {
    Call call = std::move(in_flight_.front());
    in_flight_.pop_front();
    std::optional<Reply> reply;
    if (call.pending) {
        try {
            auto replies = co_await std::exchange(call.pending, {})->replies();
            reply = std::move(replies.front());
            if (reply->is_error() && reply->text.starts_with("NOSCRIPT")) reply.reset();
        } catch (const Error& error) {
            if (!error.retryable()) throw;
        }
        if (reply && !reply->is_error() && reply->as_array().at(0).as_integer() == 3) reply.reset();
    }
    if (!reply) {
        broken_ = true;
        reply = co_await repeat(call);
    }
    if (in_flight_.empty()) broken_ = false;
    take(call, *reply);
}

/// One call by itself, until it gets an answer.
asio::awaitable<Reply> BatchLoader::repeat(Call& call) {
    Event pause(redis_.executor());
    const auto give_up = std::chrono::steady_clock::now() + patience;
    for (;;) {
        std::optional<Error> failure;
        try {
            send(call);
            auto replies = co_await std::exchange(call.pending, {})->replies();
            if (!replies.front().is_error() || !replies.front().text.starts_with("NOSCRIPT"))
                co_return std::move(replies.front());
            co_await redis_.command("SCRIPT", "LOAD", lua::add_to_batch.body);
        } catch (const Error& error) {
            if (!error.retryable()) throw;
            failure = error;
        }
        if (std::chrono::steady_clock::now() > give_up)
            throw failure.value_or(Error(Errc::unavailable, "Redis does not keep scripts"));
        if (failure) co_await pause.wait(200ms);
    }
}

void BatchLoader::take(const Call& call, const Reply& reply) {
    reply.throw_if_error();
    const auto& parts = reply.as_array();
    switch (static_cast<Code>(parts.at(0).as_integer())) {
        case Code::no_such_batch:
            throw Error(Errc::not_found, fmt::format("there is no batch {}", batch_));
        case Code::sealed:
            throw Error(Errc::usage, fmt::format("batch {} is sealed", batch_));
        case Code::canceled:
            throw Error(Errc::usage, fmt::format("batch {} is canceled", batch_));
        case Code::gap:
            throw Error(Errc::protocol, fmt::format("Redis has lost jobs of batch {}", batch_));
        case Code::known:  // Which ones were in the way was in the reply that got lost.
            added_ += call.jobs;
            for (std::size_t i = 0; on_job_ && i < call.jobs; ++i)
                on_job_(1);
            return;
        case Code::added:
            break;
    }
    for (const auto& row : parts.at(1).as_array()) {
        const auto code = row.as_integer();
        ++(code == 0 ? duplicates_ : added_);
        if (on_job_) on_job_(code);
    }
}

}  // namespace rqxx::ops
