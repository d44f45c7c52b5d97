#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/fwd.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <rqxx/codec.hpp>
#include <rqxx/error.hpp>
#include <rqxx/job.hpp>
#include <rqxx/redis/client.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace rqxx {

/// What jobs are told apart by: a path to a value in a job.
///
/// `queue`, `function`, or `args`, `kwargs` or `meta` followed by steps: `args[0]`, `args[-1]`,
/// `kwargs.tenant`, `kwargs['tenant id']`, `meta.owner.id`.
class KeyExpression {
public:
    /// At most 200 bytes and 16 steps.
    [[nodiscard]] static Parsed<KeyExpression> parse(std::string_view text);
    [[nodiscard]] const std::string& text() const noexcept { return text_; }
    /// The value as text. Empty where the job has none, or one that is no number, string, boolean
    /// or other scalar: all such jobs share one key.
    [[nodiscard]] std::string evaluate(const std::string& queue, const Call& call,
                                       const Value& meta) const;
    /// Whether the job's meta is needed.
    [[nodiscard]] bool uses_meta() const noexcept { return root_ == Root::meta; }

private:
    enum class Root { queue, function, args, kwargs, meta };
    using Step = std::variant<std::int64_t, std::string>;
    std::string text_;
    Root root_ = Root::queue;
    std::vector<Step> steps_;
};

/// Something that holds for jobs of all workers and producers: a limit, turns between keys, a
/// pause. Stored in Redis (`rqxx:rules`), and in force the moment it is.
struct Rule {
    enum class Kind {
        token_bucket,    ///< `limit` per `per` on average, `burst` at once.
        leaky_bucket,    ///< `limit` per `per`, evenly spaced.
        fixed_window,    ///< `limit` in each window, which begin at multiples of `per`.
        sliding_window,  ///< `limit` in any stretch of `per`.
        concurrency,     ///< `limit` at once.
        fair,            ///< The values of `key` take turns.
        pause            ///< None is started.
    };
    std::string name;  ///< Letters, digits, `_`, `.`, `-`; at most 100.
    Kind kind = Kind::token_bucket;
    std::string queue;     ///< `*` stands for any text; empty: every queue.
    std::string function;  ///< The same, of the function's name; empty: every function.
    std::string key;  ///< A `KeyExpression`: each value has a limit of its own. Empty: one for all.
    std::int64_t limit = 0;             ///< Points; 1…1 000 000.
    std::chrono::microseconds per{};    ///< 1 ms…a year; of limits in time.
    std::optional<std::int64_t> burst;  ///< Of a token bucket; `limit` unless given.
    /// What a job counts: a number, or a `KeyExpression` (a job without such a number counts 1).
    std::string points = "1";
    bool per_worker = false;  ///< Of `concurrency`: each worker by itself.
};

[[nodiscard]] std::string_view to_string(Rule::Kind kind) noexcept;
[[nodiscard]] Parsed<Rule::Kind> parse_rule_kind(std::string_view text) noexcept;
/// Why a rule cannot be, naming the field; nothing if it can.
[[nodiscard]] std::optional<ParseError> find_fault(const Rule& rule);
/// As stored, and as the API shows it, without its name.
[[nodiscard]] boost::json::object to_json(const Rule& rule);
/// Changes with each change of the rule.
[[nodiscard]] std::string etag_of(const Rule& rule);
[[nodiscard]] Parsed<Rule> parse_rule(std::string name, std::string_view json);

/// How a limiter stands: a rule, or one key of a rule.
struct LimiterUse {
    std::string rule;
    std::string key;                 ///< As stored (percent-encoded); empty without one.
    std::int64_t used = 0;           ///< Points in use, or used in the window that goes on.
    std::int64_t waiting = 0;        ///< Lanes and queues that it holds up.
    std::optional<Timestamp> until;  ///< Pushed back until then.
};

/// With its name, its `etag` and, as `limiters`, those of `uses` that are of this rule.
[[nodiscard]] boost::json::object to_json(const Rule& rule, const std::vector<LimiterUse>& uses);

/// The rules of all workers on one Redis.
class Rules {
public:
    explicit Rules(RedisClient& redis) : redis_(&redis) {}

    struct Listing {
        std::string version;  ///< Changes with every change.
        std::vector<Rule> rules;
        std::vector<ParseError> faults;  ///< Of entries that nobody can read; they hold for none.
    };
    boost::asio::awaitable<Listing> list();
    /// Adds or replaces. @throws Error `Errc::usage` naming the field.
    boost::asio::awaitable<void> set(Rule rule);
    /// Adds it where there is none of its name; false: nothing has changed.
    boost::asio::awaitable<bool> add(Rule rule);
    /// Replaces it where it is still as `etag` says (see `etag_of`); false: nothing has changed.
    boost::asio::awaitable<bool> replace(Rule rule, std::string etag);
    /// False when there is none.
    boost::asio::awaitable<bool> remove(std::string name);
    /// The same where it is still as `etag` says; false: nothing has changed.
    boost::asio::awaitable<bool> remove(std::string name, std::string etag);
    /// Nobody of ours starts jobs of this queue, or function, until it is resumed. Stock workers
    /// know nothing of it. False when that was so already.
    boost::asio::awaitable<bool> pause_queue(std::string queue);
    boost::asio::awaitable<bool> resume_queue(std::string queue);
    boost::asio::awaitable<bool> pause_function(std::string function);
    boost::asio::awaitable<bool> resume_function(std::string function);
    /// Jobs of this queue (`*` stands for any text) take turns by the values of `key`; empty: no
    /// longer. False when that was so already.
    boost::asio::awaitable<bool> share_queue(std::string queue, std::string key);
    /// How many jobs run, of a queue or of a function.
    boost::asio::awaitable<std::int64_t> running_of_queue(std::string queue);
    boost::asio::awaitable<std::int64_t> running_of_function(std::string function);
    /// No worker starts a job, RQ's included, until `resume` or for so long. False when workers
    /// were suspended already; then for so long from now on.
    /// @throws Error `Errc::usage` unless `duration` is from a second to a year.
    boost::asio::awaitable<bool> suspend(std::optional<std::chrono::seconds> duration);
    /// False when workers were not suspended.
    boost::asio::awaitable<bool> resume();
    /// Lets nothing pass a limiter for a while, as after a 429. `key` as `LimiterUse` has it; one
    /// is needed where the rule has a key.
    /// @throws Error `Errc::not_found` for no such limit, `Errc::usage` for `delay` and `key`.
    boost::asio::awaitable<void> push_back(std::string rule, std::string key,
                                           std::chrono::seconds delay);
    /// Of rules that something waits for or that are in use, or of one of them; at most `most`.
    boost::asio::awaitable<std::vector<LimiterUse>> usage(std::size_t most = 1000,
                                                          std::string rule = {});

private:
    boost::asio::awaitable<int> edit(std::string name, std::string json, std::string etag = {});
    boost::asio::awaitable<Rule> find_limit(std::string name);
    RedisClient* redis_;
};

/// The name of a rule for one queue or function: `pause-queue-default`.
[[nodiscard]] std::string rule_name(std::string_view what, std::string_view name);

}  // namespace rqxx
