#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <charconv>
#include <cmath>
#include <rqxx/batch.hpp>
#include <rqxx/events.hpp>

#include "base/task_group.hpp"
#include "ops/batch_actions.hpp"
#include "ops/batch_loader.hpp"
#include "ops/batch_size.hpp"
#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"
#include "ops/new_job.hpp"

namespace rqxx {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;
using ops::refuse;

namespace {

void check_batch_id(std::string_view name, std::string_view id) {
    if (!is_valid_job_id(id) || id.size() > 200)
        refuse(name, "only letters, digits, _ and - are allowed, at most 200");
}

void check(const BatchOptions& options) {
    if (!options.id.empty()) check_batch_id("name", options.id);
    if (!options.parent.empty()) check_batch_id("parent", options.parent);
    if (options.ttl.count() < 1) refuse("ttl", "must be at least 1 s");
    if (options.open_for.count() < 1) refuse("open_for", "must be at least 1 s");
}

void add_follow_up(std::vector<std::string>& args, std::string_view what,
                   const std::optional<FollowUp>& follow_up, Serializer serializer) {
    if (!follow_up) return;
    if (!follow_up->options.job_id.empty() || !follow_up->options.group.empty() ||
        follow_up->options.depends_on)
        refuse(what, "job_id, group and depends_on have no place here");
    ops::check_queue_name(follow_up->queue);
    ops::check(follow_up->options);
    Job job =
        ops::make_job(follow_up->call, follow_up->options, follow_up->queue, serializer, utc_now());
    if (follow_up->options.at_front) job.enqueue_at_front = true;
    auto fields = field_values(job);
    args.emplace_back(what);
    args.push_back(std::move(job.id));
    args.push_back(std::to_string(fields.size()));
    for (auto& [field, value] : fields) {
        args.emplace_back(field);
        args.push_back(std::move(value));
    }
}

/// The hash of a batch, read without trust.
class Fields {
public:
    explicit Fields(const Reply& hash) : pairs_(hash.as_pairs()) {}
    [[nodiscard]] std::string_view text(std::string_view name) const {
        for (const auto& [field, value] : pairs_)
            if (field == name) return value;
        return {};
    }
    [[nodiscard]] std::int64_t number(std::string_view name) const {
        const auto value = text(name);
        std::int64_t result = 0;
        std::from_chars(value.data(), value.data() + value.size(), result);
        return result;
    }
    [[nodiscard]] std::optional<Timestamp> time(std::string_view name) const {
        const auto time = parse_utc(text(name));
        return time ? std::optional(*time) : std::nullopt;
    }

private:
    std::vector<std::pair<std::string_view, std::string_view>> pairs_;
};

BatchProgress progress_of(const Reply& row, std::int64_t now_us) {
    const auto& cells = row.as_array();
    const Fields fields(cells.at(2));
    BatchProgress progress;
    progress.id = cells.at(0).text;
    progress.pending = cells.at(1).as_integer();
    progress.total = fields.number("total");
    progress.finished = fields.number("finished");
    progress.failed = fields.number("failed");
    progress.stopped = fields.number("stopped");
    progress.canceled = fields.number("canceled");
    progress.deleted = fields.number("deleted");
    progress.state = fields.text("state");
    if (progress.state == "open" && now_us > fields.number("open_until"))
        progress.state = "abandoned";
    progress.parent = fields.text("parent");
    progress.children_total = fields.number("children_total");
    progress.children_waiting = fields.number("children_waiting");
    progress.children_failed = fields.number("children_failed");
    for (const auto& [child, state] : cells.at(3).as_pairs())
        progress.children.emplace_back(child);
    std::ranges::sort(progress.children);
    progress.created_at = fields.time("created_at");
    progress.sealed_at = fields.time("sealed_at");
    progress.completed_at = fields.time("completed_at");
    progress.first_failure_at = fields.time("first_failure_at");
    if (const auto wants = fields.text("wants"); wants == "cancel" || wants == "retry")
        progress.in_progress = wants;
    progress.on_complete = fields.text("on_complete");
    progress.on_success = fields.text("on_success");
    progress.on_first_failure = fields.text("on_first_failure");

    const bool has_window = !fields.text("window_at").empty();
    const auto since = fields.number(has_window ? "window_at" : "last_at");
    const auto before = fields.number(has_window ? "window_done" : "last_done");
    if (!progress.complete() && now_us > since && progress.done() > before) {
        progress.jobs_per_second = static_cast<double>(progress.done() - before) * 1e6 /
                                   static_cast<double>(now_us - since);
        progress.eta = Seconds(static_cast<double>(progress.pending) / progress.jobs_per_second);
    }
    return progress;
}

asio::awaitable<std::vector<BatchProgress>> show(RedisClient& redis,
                                                 std::vector<std::string> args) {
    const Reply reply = co_await redis.eval(lua::show_batches, {}, std::move(args));
    const auto now_us = reply.as_array().at(0).as_integer();
    std::vector<BatchProgress> result;
    for (const auto& row : reply.as_array().at(1).as_array())
        result.push_back(progress_of(row, now_us));
    co_return result;
}

[[noreturn]] void not_found(std::string_view id) {
    throw Error(Errc::not_found, fmt::format("there is no batch {}", id));
}

json::value time_json(const std::optional<Timestamp>& time) {
    return time ? json::value(format_utc(*time)) : json::value(nullptr);
}
json::value text_json(const std::string& text) {
    return text.empty() ? json::value(nullptr) : to_json(Value(text));
}

}  // namespace

bool BatchProgress::successful() const noexcept {
    return complete() && failed + stopped + canceled + deleted + children_failed == 0;
}

json::object to_json(const BatchProgress& progress) {
    json::array children;
    for (const auto& child : progress.children)
        children.push_back(to_json(Value(child)));
    const auto rounded = [](double number) { return std::round(number * 100) / 100; };
    return {{"id", progress.id},
            {"state", to_json(Value(progress.state))},
            {"successful", progress.successful()},
            {"total", progress.total},
            {"done", progress.done()},
            {"pending", progress.pending},
            {"finished", progress.finished},
            {"failed", progress.failed},
            {"stopped", progress.stopped},
            {"canceled", progress.canceled},
            {"deleted", progress.deleted},
            {"parent", text_json(progress.parent)},
            {"children",
             {{"total", progress.children_total},
              {"waiting", progress.children_waiting},
              {"failed", progress.children_failed},
              {"ids", std::move(children)}}},
            {"created_at", time_json(progress.created_at)},
            {"sealed_at", time_json(progress.sealed_at)},
            {"completed_at", time_json(progress.completed_at)},
            {"first_failure_at", time_json(progress.first_failure_at)},
            {"jobs_per_second", rounded(progress.jobs_per_second)},
            {"eta", progress.eta ? json::value(rounded(progress.eta->count())) : nullptr},
            {"in_progress", text_json(progress.in_progress)},
            {"on_complete", text_json(progress.on_complete)},
            {"on_success", text_json(progress.on_success)},
            {"on_first_failure", text_json(progress.on_first_failure)}};
}

Batch::Batch(RedisClient& redis, std::string id) : redis_(&redis), id_(std::move(id)) {
    check_batch_id("batch", id_);
}

asio::awaitable<Batch> Batch::create(RedisClient& redis, BatchOptions options,
                                     Serializer serializer) {
    check(options);
    if (options.id.empty()) options.id = new_job_id();
    std::vector<std::string> args{options.id, options.parent, std::to_string(options.ttl.count()),
                                  std::to_string(options.open_for.count())};
    add_follow_up(args, "on_complete", options.on_complete, serializer);
    add_follow_up(args, "on_success", options.on_success, serializer);
    add_follow_up(args, "on_first_failure", options.on_first_failure, serializer);
    const Reply reply = co_await redis.eval(
        lua::create_batch, {keys::batch(options.id), keys::group(options.id)}, std::move(args));
    switch (reply.as_array().at(0).as_integer()) {
        case 0:
            refuse("name", fmt::format("there is a batch or group {} already", options.id));
        case 2:
            refuse("parent", fmt::format("there is no batch {}", options.parent));
        case 3:
            refuse("parent", fmt::format("batch {} is complete", options.parent));
        case 4:
            refuse("parent", fmt::format("batch {} is canceled", options.parent));
        case 5:
            refuse("parent", "more than 16 batches in each other");
        default:
            co_return Batch(redis, std::move(options.id));
    }
}

asio::awaitable<Batch> Batch::create_with(RedisClient& redis, BatchOptions options, Queue queue,
                                          std::vector<NewJob> jobs) {
    for (const auto& job : jobs)
        ops::check(job.options);
    Batch batch = co_await create(redis, std::move(options), queue.serializer());
    co_await batch.add(std::move(queue), std::move(jobs));
    co_await batch.seal();
    co_return batch;
}

asio::awaitable<std::vector<Enqueued>> Batch::add(Queue queue, std::vector<NewJob> jobs) {
    static constexpr std::string_view words[] = {"", status::queued, status::scheduled,
                                                 status::deferred};
    ops::DependencyOrder order;
    for (const auto& job : jobs) {
        ops::check(job.options);
        order.check(job.options);
    }
    std::vector<Enqueued> results;
    results.reserve(jobs.size());
    std::size_t answered = 0;
    ops::BatchLoader loader(*redis_, id_);
    loader.on_job([&](std::int64_t code) {
        results[answered].duplicate = code == 0;
        results[answered].status = words[static_cast<std::size_t>(code)];
        ++answered;
    });
    for (const auto& job : jobs) {
        results.emplace_back();
        auto encoded = ops::encode_for_batch(id_, queue.name(), queue.serializer(), job.call,
                                             job.options, {}, results.back().job_id);
        co_await loader.put(std::move(encoded));
    }
    co_await loader.finish();
    co_return results;
}

asio::awaitable<void> Batch::seal() {
    const Reply reply =
        co_await redis_->eval(lua::seal_batch, {keys::batch(id_)}, std::vector<std::string>{id_});
    if (reply.as_integer() == 0) not_found(id_);
}

asio::awaitable<std::optional<BatchProgress>> Batch::progress() {
    auto shown = co_await show(*redis_, std::vector<std::string>{id_});
    if (shown.empty()) co_return std::nullopt;
    co_return std::move(shown.front());
}

asio::awaitable<BatchProgress> Batch::wait(std::chrono::milliseconds timeout) {
    Event pause(redis_->executor());
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    for (auto interval = 5ms;; interval = std::min(interval * 2, 500ms)) {
        auto now = co_await progress();
        if (!now) not_found(id_);
        const auto left = deadline - std::chrono::steady_clock::now();
        if (now->complete() || left <= 0s) co_return std::move(*now);
        co_await pause.wait(std::min<std::chrono::steady_clock::duration>(interval, left));
    }
}

asio::awaitable<BatchActionResult> Batch::cancel(Report report) {
    return ops::act_on_batch(*redis_, ops::BatchAction::cancel, id_, true, std::move(report));
}

asio::awaitable<BatchActionResult> Batch::retry_failed(Report report) {
    return ops::act_on_batch(*redis_, ops::BatchAction::retry, id_, true, std::move(report));
}

asio::awaitable<std::vector<BatchProgress>> list_batches(RedisClient& redis, std::size_t limit,
                                                         std::size_t offset) {
    if (limit == 0) co_return std::vector<BatchProgress>();
    co_return co_await show(
        redis, std::vector<std::string>{"", std::to_string(offset), std::to_string(limit)});
}

namespace ops {

asio::awaitable<BatchActionResult> act_on_batch(RedisClient& redis, BatchAction action,
                                                std::string id, bool begin, Batch::Report report) {
    const Script& script = action == BatchAction::cancel ? lua::cancel_batch : lua::retry_batch;
    // Who goes on with what others began has more to do, and comes again.
    constexpr int most_steps = 200;
    int steps = 0;
    BatchActionResult result;
    std::vector<std::string> open{id};
    while (!open.empty()) {
        const std::string batch = std::move(open.back());
        open.pop_back();
        const bool is_first = batch == id;
        BatchSize size;
        for (bool first_step = true;; first_step = false) {
            std::vector<std::string> args{batch, std::to_string(size.get()),
                                          first_step && begin ? "1" : "0"};
            const auto before = std::chrono::steady_clock::now();
            const Reply reply = co_await redis.eval(script, {keys::batch(batch)}, std::move(args));
            size.took(std::chrono::steady_clock::now() - before);
            const auto& parts = reply.as_array();
            const auto code = parts.at(0).as_integer();
            if (is_first && begin && code == 0) not_found(id);
            if (is_first && begin && code == 3) {
                if (action == BatchAction::retry)
                    refuse("batch", fmt::format("{} is being canceled", id));
                result.complete = true;
            }
            result.done += static_cast<std::uint64_t>(parts.at(1).as_integer());
            if (report) report(result.done);
            if (code != 1) break;
            if (!begin && ++steps == most_steps) co_return result;
        }
        const auto shown = co_await show(redis, std::vector<std::string>{batch});
        if (!shown.empty() && begin && !result.complete)
            open.insert(open.end(), shown.front().children.begin(), shown.front().children.end());
    }
    co_return result;
}

}  // namespace ops
}  // namespace rqxx
