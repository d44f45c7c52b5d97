#include "index/job_index.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/thread_pool.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <rqxx/job.hpp>
#include <unordered_set>

#include "base/run_blocking.hpp"
#include "base/task_group.hpp"
#include "base/wildcard.hpp"
#include "index/stored_job.hpp"
#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"
#include "ops/upkeep.hpp"

namespace rqxx::index {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;
using std::chrono::steady_clock;

constexpr auto tick = 100ms;
/// How long scripts go on telling of changes when nobody listens any more.
constexpr std::string_view wanted_for = "60";
constexpr std::size_t stream_entries = 500;
/// Changed jobs that wait to be read. Beyond that, all jobs are looked at again.
constexpr std::size_t most_waiting = 100'000;
/// Jobs of one call of a script, and of one tick.
constexpr std::size_t ids_of_call = 200;
constexpr std::size_t changes_of_tick = 2000;
constexpr std::size_t swept_of_tick = 1000;
/// Of a field that is read, and of an answer of Redis.
constexpr std::string_view most_of_field = "262144", most_of_answer = "1048576";
/// Each second, once all jobs have been seen.
constexpr std::size_t walked_of_second = 500;
/// The same where nobody tells of changes.
constexpr std::size_t untold_of_second = 1000;
/// Within which a change that the stream or a place of a queue shows is in the index.
constexpr double told_within = 2;
constexpr std::size_t most_queues = 500;

std::int64_t now_us() {
    return utc_now().time_since_epoch().count();
}

std::optional<Timestamp> time_of(const Reply& field) {
    const auto time = parse_utc(field.text);
    return time ? std::optional(*time) : std::nullopt;
}

std::optional<JobPosition> position_of(const std::string& cursor, const std::string& key) {
    if (cursor.empty()) return std::nullopt;
    const auto position = decode_cursor(cursor, key);
    if (!position) throw Error(Errc::usage, "cursor: not one that this list has given");
    return position;
}

Triage triage_of(const Reply& stored, std::int64_t last_seen) {
    Triage triage;
    if (!stored.is_string()) return triage;
    boost::system::error_code error;
    const auto value = json::parse(stored.text, error);
    if (error || !value.is_object()) return triage;
    const auto text = [&](const char* name) {
        const auto* member = value.as_object().if_contains(name);
        return member != nullptr && member->is_string() ? std::string(member->as_string().c_str())
                                                        : std::string();
    };
    const std::string state = text("state");
    const auto at = parse_utc(text("at"));
    if (!at || (state != "muted" && state != "resolved")) return triage;
    // It was thought to be over, and is not.
    if (state == "resolved" && last_seen > at->time_since_epoch().count()) return triage;
    triage.state = state;
    triage.by = text("by");
    triage.at = *at;
    return triage;
}

}  // namespace

struct JobIndex::Impl {
    Impl(RedisClient& client, std::filesystem::path path, Logger& logger, Mode mode)
        : redis(client),
          file(std::move(path)),
          log(logger),
          writes(mode == Mode::asks_for_changes),
          pause(client.executor()) {}

    RedisClient& redis;
    std::filesystem::path file;
    Logger& log;
    const bool writes;  ///< Else nothing in Redis is changed: it tells what others ask it for.
    Event pause;

    // Used in the writer's thread only, while the coroutine waits for it.
    std::unique_ptr<Store> store;
    // Used in the reader's thread only.
    std::unique_ptr<StoreReader> reader;
    std::string read_failure;  ///< The last that was logged.
    std::int64_t reader_edition = 0;
    std::atomic<std::int64_t> edition{0};  ///< Of the file: counts how often it was opened.

    std::string position;        ///< In the stream.
    std::string saved_position;  ///< Up to which all is in the index.
    std::vector<std::string> waiting;
    std::unordered_set<std::string> waiting_set;
    std::unordered_set<std::string> peeked;

    enum class Phase { scanning, walking, done };
    Phase phase = Phase::scanning;
    bool was_empty = false;
    std::string scan_cursor = "0";
    std::vector<std::string> scanned;
    std::int64_t scanned_keys = 0, all_keys = 0;
    std::int64_t row = 0;
    steady_clock::time_point renewed{}, looked{};
    /// Since when the stream has told of all changes without a gap; nothing: it does not.
    std::optional<steady_clock::time_point> told_since;
    /// When the look at all keys, or at all rows, that goes on began, and the one before it.
    struct Round {
        steady_clock::time_point begun, before;
        void next() { before = std::exchange(begun, steady_clock::now()); }
    } key_round, row_round;
    std::function<void(std::vector<JobTransition>)> observer;

    // The threads end before what they use.
    asio::thread_pool writing{1}, reading{1};

    template <class Function>
    asio::awaitable<void> write(Function function) {
        return run_blocking(writing, [this, function = std::move(function)]() mutable {
            if (!store) throw Error(Errc::io, "The job index is not open");
            function(*store);
        });
    }

    template <class Function>
    asio::awaitable<void> read(Function function) {
        return run_blocking(reading, [this, function = std::move(function)]() mutable {
            if (edition == 0) throw Error(Errc::io, "The job index is not ready yet");
            if (!reader || reader_edition != edition) {
                reader_edition = edition;
                reader.reset();
            }
            try {
                if (!reader) reader = std::make_unique<StoreReader>(file);
                function(*reader);
            } catch (const Error& error) {
                reader.reset();
                // Who asks again and again need not fill the log.
                if (std::exchange(read_failure, error.message()) != error.message())
                    log.warning("The job index cannot be read", "error", error.message());
                throw Error(Errc::io, error.message());
            }
        });
    }

    void add_waiting(std::string_view id) {
        if (waiting.size() >= most_waiting) {
            restart_sweep("too many changes wait");
            return;
        }
        if (!is_valid_job_id(id)) return;
        if (waiting_set.emplace(id).second) waiting.emplace_back(id);
    }

    void restart_sweep(std::string_view why) {
        if (phase != Phase::scanning || scan_cursor != "0")
            log.info("The job index looks at all jobs again", "reason", why);
        phase = Phase::scanning;
        scan_cursor = "0";
        scanned.clear();
        scanned_keys = 0;
        was_empty = false;
        key_round.begun = row_round.begun = steady_clock::now();
    }

    asio::awaitable<std::string> identity() {
        if (!writes) {
            const Reply known = co_await redis.command("GET", keys::index_identity);
            co_return known.is_string() ? known.text : std::string();
        }
        Pipeline pipeline;
        pipeline.add("SET", keys::index_identity, new_job_id(), "NX");
        pipeline.add("GET", keys::index_identity);
        const auto replies = co_await redis.run(std::move(pipeline));
        if (replies[1].is_error()) {  // Of another type.
            co_await redis.command("DEL", keys::index_identity);
            throw Error(Errc::unavailable, "The key of the index was not a string");
        }
        co_return replies[1].as_text();
    }

    /// Whether all changes since `position` are there to be read; else it is the place to go on
    /// from.
    asio::awaitable<bool> want_changes() {
        const Reply reply = co_await redis.eval(
            lua::want_changes, {std::string(keys::changes_wanted), std::string(keys::changes)},
            {std::string(wanted_for), position});
        position = reply.as_array().at(1).as_text();
        co_return reply.elements[0].as_integer() == 1;
    }

    /// Finds out what the file is worth.
    asio::awaitable<void> begin() {
        co_await run_blocking(writing, [this] {
            if (!store) {
                store = std::make_unique<Store>(file);
                ++edition;
            }
        });
        const std::string known_as = co_await identity();
        std::string complete;
        bool empty = false;
        co_await write([&](Store& open) {
            if (open.meta("identity") != known_as) {
                open.clear();
                open.set_meta("identity", known_as);
            }
            complete = open.meta("complete");
            position = open.meta("position");
            empty = open.jobs() == 0;
        });
        waiting.clear();
        waiting_set.clear();
        peeked.clear();
        told_since.reset();
        if (!writes) {
            co_await begin_unasked(empty);
            co_return;
        }
        told_since = steady_clock::now();
        const bool gapless = co_await want_changes();
        if (complete == "1" && gapless) {
            phase = Phase::done;
            key_round = row_round = {steady_clock::now(), steady_clock::now()};
        } else {
            phase = Phase::scanning;
            restart_sweep("it is new");
            was_empty = empty;
            co_await write([&](Store& open) {
                open.set_meta("complete", "0");
                open.set_meta("position", position);
            });
        }
        saved_position = position;
        renewed = looked = {};
    }

    /// All jobs are looked at, whatever the file holds: nobody here knows what it has missed.
    asio::awaitable<void> begin_unasked(bool empty) {
        if (co_await somebody_asks()) told_since = steady_clock::now();
        position = co_await end_of_stream();
        saved_position = position;
        restart_sweep("it is new");
        was_empty = empty;
        co_await write([](Store& open) {
            open.set_meta("complete", "0");
            open.set_meta("position", "");
        });
        renewed = looked = {};
    }

    /// The id of the newest entry; empty without any.
    asio::awaitable<std::string> end_of_stream() {
        if (writes)
            co_return (co_await redis.command("XADD", keys::changes, "*", "ids", "")).as_text();
        const Reply newest =
            co_await redis.command("XREVRANGE", keys::changes, "+", "-", "COUNT", "1");
        if (!newest.is_array() || newest.elements.empty()) co_return std::string();
        const auto& entry = newest.elements[0].elements;
        co_return entry.empty() ? std::string() : entry[0].text;
    }

    /// Whether another index has scripts tell of changes.
    asio::awaitable<bool> somebody_asks() {
        const Reply there = co_await redis.command("EXISTS", keys::changes_wanted);
        co_return there.type == Reply::Type::integer&& there.integer == 1;
    }

    asio::awaitable<void> look_who_asks() {
        if (steady_clock::now() - renewed < 1s) co_return;
        const std::string known_as = co_await identity();
        std::string before;
        co_await write([&](Store& open) { before = open.meta("identity"); });
        if (before != known_as) co_await begin();
        if (!co_await somebody_asks())
            told_since.reset();
        else if (!told_since)
            told_since = steady_clock::now();
        const Reply size = co_await redis.command("DBSIZE");
        if (size.type == Reply::Type::integer) all_keys = size.integer;
        renewed = steady_clock::now();
    }

    asio::awaitable<void> renew() {
        if (!writes) {
            co_await look_who_asks();
            co_return;
        }
        if (steady_clock::now() - renewed < 5s) co_return;
        const std::string known_as = co_await identity();
        std::string before;
        co_await write([&](Store& open) { before = open.meta("identity"); });
        // Another Redis, or one that has lost everything.
        if (before != known_as) co_await begin();
        // A process may have been stopped for longer than scripts go on telling.
        if (!co_await want_changes()) {
            restart_sweep("changes were dropped, or not told");
            told_since = steady_clock::now();
        }
        const Reply size = co_await redis.command("DBSIZE");
        if (size.type == Reply::Type::integer) all_keys = size.integer;
        renewed = steady_clock::now();
    }

    asio::awaitable<void> read_stream() {
        if (position.empty()) {
            position = co_await end_of_stream();
            if (told_since) told_since = steady_clock::now();
            co_return;
        }
        for (int round = 0; round < 5; ++round) {
            Pipeline pipeline;
            pipeline.add("XRANGE", keys::changes, position, position);
            pipeline.add("XRANGE", keys::changes, "(" + position, "+", "COUNT", stream_entries);
            const auto replies = co_await redis.run(std::move(pipeline));
            if (replies[1].is_error()) throw ServerError(replies[1].text);
            // What was read last is still there, so nothing behind it can have been dropped.
            if (replies[0].as_array().empty()) {
                restart_sweep("changes were dropped before they were read");
                if (told_since) told_since = steady_clock::now();
                position = co_await end_of_stream();
                if (position.empty()) co_return;
            }
            const auto& entries = replies[1].as_array();
            for (const auto& entry : entries) {
                if (entry.elements.size() != 2) continue;
                if (!replies[0].elements.empty()) position = entry.elements[0].text;
                for (const auto& [field, value] : entry.elements[1].as_pairs()) {
                    std::string_view ids = value;
                    // Written by an index that began: maybe nobody had asked before.
                    if (ids.empty() && !writes && told_since) told_since = steady_clock::now();
                    while (!ids.empty()) {
                        const auto end = ids.find(' ');
                        add_waiting(ids.substr(0, end));
                        ids = end == std::string_view::npos ? std::string_view()
                                                            : ids.substr(end + 1);
                    }
                }
            }
            if (entries.size() < stream_entries || waiting.size() > most_waiting / 2) co_return;
        }
    }

    /// What stock RQ did in the last second, as far as its places show it.
    asio::awaitable<void> peek() {
        auto queues = co_await ops::known_queues(redis);
        if (queues.size() > most_queues) queues.resize(most_queues);
        if (queues.empty()) co_return;
        std::vector<std::string> args{queues.size() > 50 ? "5" : "25"};
        args.insert(args.end(), queues.begin(), queues.end());
        const Reply reply = co_await redis.eval(lua::index_peek, {}, std::move(args));
        std::unordered_set<std::string> seen;
        for (std::size_t i = 0; i + 1 < reply.as_array().size(); i += 2) {
            const std::string& id = reply.elements[i + 1].text;
            std::string key = reply.elements[i].text + " " + id;
            if (!peeked.contains(key)) add_waiting(id);
            seen.insert(std::move(key));
        }
        peeked = std::move(seen);
    }

    /// Whoever looks on does not care for what was there before we looked.
    void tell(std::vector<JobTransition> transitions) {
        constexpr std::int64_t just_now = 10'000'000;
        if (phase != Phase::done)
            std::erase_if(transitions, [now = now_us()](const JobTransition& one) {
                return one.is_new && one.newest < now - just_now;
            });
        if (!transitions.empty()) observer(std::move(transitions));
    }

    /// Reads jobs and writes what has changed. @param news  whether what has changed is told.
    asio::awaitable<void> refresh(std::vector<std::string> ids, bool news = false) {
        std::size_t at = 0;
        while (at < ids.size()) {
            const std::size_t end = std::min(at + ids_of_call, ids.size());
            std::vector<std::string> args{std::string(most_of_field), std::string(most_of_answer)};
            args.insert(args.end(), ids.begin() + static_cast<std::ptrdiff_t>(at),
                        ids.begin() + static_cast<std::ptrdiff_t>(end));
            const Reply reply = co_await redis.eval(lua::index_jobs, {}, std::move(args));
            const std::size_t answered = std::min(reply.as_array().size(), end - at);
            if (answered == 0) throw Error(Errc::protocol, "Redis told of no job");
            std::vector<JobTransition> transitions;
            co_await write([&](Store& open) {
                std::vector<JobChange> changes;
                const std::int64_t now = now_us();
                for (std::size_t i = 0; i < answered; ++i)
                    changes.push_back(read_stored_job(ids[at + i], reply.elements[i], now));
                transitions = open.apply(changes);
            });
            if (news && observer) tell(std::move(transitions));
            at += answered;
        }
    }

    asio::awaitable<void> refresh_waiting() {
        std::size_t left = changes_of_tick;
        while (!waiting.empty() && left > 0) {
            const std::size_t count = std::min({waiting.size(), left, ids_of_call * 4});
            const auto end = waiting.begin() + static_cast<std::ptrdiff_t>(count);
            std::vector<std::string> ids(waiting.begin(), end);
            waiting.erase(waiting.begin(), end);
            for (const auto& id : ids)
                waiting_set.erase(id);
            try {
                co_await refresh(ids, true);
            } catch (...) {
                for (const auto& id : ids)
                    add_waiting(id);
                throw;
            }
            left -= count;
        }
        if (!writes || !waiting.empty() || position == saved_position) co_return;
        // From this place on nobody need read again what was dropped before it; all jobs it is.
        const bool complete = phase == Phase::done;
        co_await write([this, complete](Store& open) {
            if (!complete) open.set_meta("complete", "0");
            open.set_meta("position", position);
        });
        saved_position = position;
    }

    /// Some more of the jobs in Redis; whether that was the last of them.
    asio::awaitable<bool> scan(std::size_t count) {
        const Reply reply = co_await redis.command("SCAN", scan_cursor, "MATCH", "rq:job:*",
                                                   "COUNT", std::max<std::size_t>(count, 10));
        scan_cursor = reply.as_array().at(0).as_text();
        scanned_keys += static_cast<std::int64_t>(count);
        for (const auto& key : reply.elements.at(1).as_array()) {
            std::string id = key.text.substr(std::min<std::size_t>(7, key.text.size()));
            if (is_valid_job_id(id)) scanned.push_back(std::move(id));
        }
        co_return scan_cursor == "0";
    }

    /// Removes what is gone of the next jobs in the index; whether those were the last.
    asio::awaitable<bool> walk(std::size_t count) {
        std::vector<std::string> ids;
        co_await write([&](Store& open) { ids = open.some_ids(row, count); });
        if (ids.empty()) co_return true;
        Pipeline pipeline;
        for (const auto& id : ids)
            pipeline.add("EXISTS", keys::job(id));
        const auto replies = co_await redis.run(std::move(pipeline));
        std::vector<JobChange> gone;
        for (std::size_t i = 0; i < ids.size(); ++i)
            if (replies[i].type == Reply::Type::integer && replies[i].integer == 0)
                gone.push_back({ids[i], std::nullopt});
        std::vector<JobTransition> transitions;
        if (!gone.empty()) co_await write([&](Store& open) { transitions = open.apply(gone); });
        if (phase == Phase::done && observer) tell(std::move(transitions));
        co_return row == 0;
    }

    /// The first look at all jobs.
    asio::awaitable<void> sweep() {
        if (phase == Phase::scanning) {
            bool last = co_await scan(swept_of_tick);
            co_await refresh(std::exchange(scanned, {}));
            if (!last || phase != Phase::scanning) co_return;
            key_round.next();
            phase = Phase::walking;
            row = 0;
            if (!was_empty) co_return;
        } else if (!co_await walk(swept_of_tick * 2)) {
            co_return;
        }
        if (phase != Phase::walking) co_return;
        phase = Phase::done;
        row = 0;
        row_round.next();
        std::int64_t jobs = 0;
        co_await write([&](Store& open) {
            if (writes) open.set_meta("complete", "1");
            jobs = open.jobs();
        });
        log.info("The job index is complete", "jobs", jobs);
    }

    /// Each second: what stock RQ has changed, what has expired, and a little of everything.
    asio::awaitable<void> look_around() {
        if (steady_clock::now() - looked < 1s) co_return;
        looked = steady_clock::now();
        co_await peek();
        std::vector<std::string> expired;
        co_await write([&](Store& open) {
            expired = open.expired_ids(now_us(), waiting.empty() ? 5000 : 1000);
        });
        co_await refresh(std::move(expired), true);
        if (phase != Phase::done) co_return;
        const std::size_t step = told_since ? walked_of_second : untold_of_second;
        const bool last_key = co_await scan(step);
        co_await refresh(std::exchange(scanned, {}), true);
        if (last_key) key_round.next();
        if (co_await walk(step)) row_round.next();
    }

    asio::awaitable<void> work() {
        co_await begin();
        for (;;) {
            co_await renew();
            co_await read_stream();
            co_await look_around();
            co_await refresh_waiting();
            if (phase != Phase::done && waiting.size() < changes_of_tick) co_await sweep();
            co_await pause.wait(tick);
        }
    }

    /// How old what the index tells may be: all that was looked at or told of is younger.
    [[nodiscard]] std::optional<double> max_age() const {
        if (phase != Phase::done) return std::nullopt;
        const auto since = std::min(key_round.before, row_round.before);
        if (told_since && *told_since <= since) return told_within;
        const Seconds age = steady_clock::now() - since;
        return std::max(told_within, std::ceil(age.count()));
    }

    asio::awaitable<std::vector<Triage>> triage(const std::vector<Failure>& failures) {
        std::vector<Triage> found;
        if (failures.empty()) co_return found;
        Pipeline pipeline;
        pipeline.begin(2 + failures.size());
        pipeline.argument(std::string_view("HMGET"));
        pipeline.argument(keys::failures);
        for (const auto& failure : failures)
            pipeline.argument(std::string_view(failure.group.id));
        const auto replies = co_await redis.run(std::move(pipeline));
        const Reply none;
        for (std::size_t i = 0; i < failures.size(); ++i) {
            const bool there = replies[0].is_array() && i < replies[0].elements.size();
            found.push_back(
                triage_of(there ? replies[0].elements[i] : none, failures[i].last_seen));
        }
        co_return found;
    }
};

JobIndex::JobIndex(RedisClient& redis, std::filesystem::path file, Logger& log, Mode mode)
    : impl_(std::make_unique<Impl>(redis, std::move(file), log, mode)) {}
JobIndex::~JobIndex() = default;

asio::awaitable<void> JobIndex::run() {
    std::string told;  // Of a trouble that lasts.
    for (;;) {
        std::optional<Error> failed;
        try {
            co_await impl_->work();
        } catch (const Error& error) {
            failed = error;
        }
        const bool damaged = failed && failed->code() == Errc::decode;
        const bool of_file = damaged || (failed && failed->code() == Errc::io);
        if (damaged) {
            impl_->log.warning("The job index is made anew", "error", failed->message());
            // A file goes when nobody has it open.
            impl_->edition = 0;
            co_await run_blocking(impl_->reading, [this] { impl_->reader.reset(); });
            co_await run_blocking(impl_->writing, [this] {
                impl_->store.reset();
                std::error_code ignored;
                for (const char* suffix : {"", "-wal", "-shm"})
                    std::filesystem::remove(impl_->file.native() + suffix, ignored);
            });
        } else if (of_file) {
            if (std::exchange(told, failed->message()) != failed->message())
                impl_->log.warning("The job index cannot be written, and waits", "error",
                                   failed->message());
        } else if (failed) {
            impl_->log.debug("The job index waits for Redis", "error", failed->message());
        }
        co_await impl_->pause.wait(of_file ? 5s : 1s);
    }
}

void JobIndex::on_transition(std::function<void(std::vector<JobTransition>)> observer) {
    impl_->observer = std::move(observer);
}

asio::awaitable<JobLines> JobIndex::list(JobFilter filter, std::string cursor, std::size_t limit) {
    const std::string key = digest(filter);
    auto after = position_of(cursor, key);
    JobLines page;
    std::size_t keys_read = 0;
    for (int round = 0; round < 3; ++round) {
        const std::size_t room = std::min(limit - page.jobs.size(), most_keys - keys_read);
        if (room == 0) break;
        FoundJobs found;
        co_await impl_->read(
            [&](StoreReader& reader) { found = reader.find(filter, after, room); });
        if (round == 0) {
            page.approx_total = found.approx_total;
            page.total_is_exact = found.total_is_exact;
        }
        std::vector<std::string> job_keys;
        job_keys.reserve(found.jobs.size() + 1);
        for (const auto& job : found.jobs)
            job_keys.push_back(keys::job(job.id));
        keys_read += job_keys.size();
        if (job_keys.empty()) job_keys.emplace_back("rq:job:");  // For the time alone.
        const Reply reply =
            co_await impl_->redis.eval(lua::list_jobs, std::move(job_keys), {"1000"});
        const auto& answers = reply.as_array().at(1).as_array();
        bool dropped = false;
        page.now = Timestamp{std::chrono::microseconds(reply.elements[0].as_integer())};
        for (std::size_t i = 0; i < found.jobs.size() && i < answers.size(); ++i) {
            FoundJob& job = found.jobs[i];
            const auto& fields = answers[i].elements;
            if (fields.size() < 8) {
                impl_->add_waiting(job.id);
                dropped = true;
                continue;
            }
            JobLine line;
            line.status =
                fields[0].text.empty() ? std::string(status::created) : short_text(fields[0].text);
            line.queue = short_text(fields[1].text);
            if (line.status != job.status || line.queue != job.queue) {
                // It has moved on since the index was told.
                impl_->add_waiting(job.id);
                const bool by_queue = !filter.queues.empty() && line.queue != job.queue;
                const bool by_status =
                    line.status != job.status &&
                    (!filter.error.empty() || !filter.groups.empty() ||
                     (!filter.statuses.empty() &&
                      std::ranges::find(filter.statuses, line.status) == filter.statuses.end()));
                if (by_queue || by_status) {
                    dropped = true;
                    continue;
                }
            }
            line.id = std::move(job.id);
            line.function = std::move(job.function);
            line.description = short_text(fields[2].text, 1000);
            line.created_at = time_of(fields[3]);
            line.enqueued_at = time_of(fields[4]);
            line.started_at = time_of(fields[5]);
            line.ended_at = time_of(fields[6]);
            line.worker = short_text(fields[7].text);
            if (line.status == status::failed || line.status == status::stopped) {
                line.error = std::move(job.error);
                line.group = std::move(job.group);
            }
            line.tags = std::move(job.tags);
            page.jobs.push_back(std::move(line));
        }
        after = found.next;
        if (!after || !dropped) break;
    }
    if (after) page.next = encode_cursor(*after, key);
    co_return page;
}

asio::awaitable<JobIds> JobIndex::find_ids(JobFilter filter, std::string cursor,
                                           std::size_t limit) {
    const std::string key = digest(filter);
    const auto after = position_of(cursor, key);
    JobIds ids;
    co_await impl_->read([&](StoreReader& reader) {
        auto found = reader.find(filter, after, limit);
        for (auto& job : found.jobs)
            ids.ids.push_back(std::move(job.id));
        if (found.next) ids.next = encode_cursor(*found.next, key);
    });
    co_return ids;
}

namespace {
constexpr std::size_t most_suggestions = 20;

/// Whether what lua/index_jobs.lua answers is of a job of these queues, as it is now.
bool is_of(const std::vector<std::string>& queues, const Reply& fields) {
    return fields.is_array() && fields.elements.size() > 1 &&
           std::ranges::any_of(queues, [&](const std::string& pattern) {
               return matches_wildcard(pattern, fields.elements[1].text);
           });
}
}  // namespace

asio::awaitable<std::vector<NameCount>> JobIndex::suggest(NameKind kind, std::string prefix) {
    std::vector<NameCount> names;
    co_await impl_->read(
        [&](StoreReader& reader) { names = reader.suggest(kind, prefix, most_suggestions); });
    co_return names;
}

asio::awaitable<std::vector<NameCount>> JobIndex::suggest_groups(std::string prefix) {
    std::vector<NameCount> names;
    co_await impl_->read(
        [&](StoreReader& reader) { names = reader.suggest_groups(prefix, most_suggestions); });
    co_return names;
}

asio::awaitable<FailureReports> JobIndex::failures(FailureFilter filter, std::string state,
                                                   std::string cursor, std::size_t limit) {
    const std::string key =
        fmt::format("failures {} {} {} {} {}", filter.by_count, state, filter.queue.size(),
                    filter.queue + " " + filter.function, fmt::join(filter.within, " "));
    auto after = position_of(cursor, key);
    FailureReports page;
    // Groups of another state are passed over, a bounded number of them.
    constexpr int most_rounds = 3;
    constexpr std::size_t groups_of_round = 200;
    bool more = true;
    for (int round = 0; round < most_rounds && more && page.failures.size() < limit; ++round) {
        std::vector<Failure> found;
        const std::size_t asked = state.empty() ? limit + 1 : groups_of_round;
        co_await impl_->read([&](StoreReader& reader) {
            found = filter.within.empty() ? reader.failures(filter, after, asked)
                                          : reader.failures_within(filter, after, asked, now_us());
        });
        more = found.size() == asked;
        const auto triage = co_await impl_->triage(found);
        for (std::size_t i = 0; i < found.size(); ++i) {
            if (page.failures.size() == limit) {
                more = true;
                break;
            }
            after =
                JobPosition{filter.by_count ? found[i].count : found[i].last_seen, found[i].row};
            if (!state.empty() && triage[i].state != state) continue;
            page.failures.push_back({std::move(found[i]), triage[i], {}});
        }
    }
    if (filter.within.empty())
        co_await impl_->read([&](StoreReader& reader) {
            for (auto& report : page.failures)
                reader.complete(report.failure, now_us());
        });
    if (more && after) page.next = encode_cursor(*after, key);
    co_return page;
}

asio::awaitable<std::optional<FailureReport>> JobIndex::failure(std::string id,
                                                                std::vector<std::string> within) {
    std::optional<Failure> found;
    co_await impl_->read([&](StoreReader& reader) {
        if (!within.empty()) {
            found = reader.failure_within(id, within, now_us());
            return;
        }
        found = reader.failure(id);
        if (found) reader.complete(*found, now_us());
    });
    if (!found) co_return std::nullopt;
    FailureReport report;
    std::vector<Failure> one{*found};
    report.triage = (co_await impl_->triage(one)).at(0);
    report.failure = std::move(*found);
    std::vector<std::string> args{std::string(most_of_field), std::string(most_of_answer)};
    for (const auto& sample : report.failure.samples)
        args.push_back(sample);
    if (!report.failure.samples.empty()) {
        const Reply reply = co_await impl_->redis.eval(lua::index_jobs, {}, std::move(args));
        for (const auto& fields : reply.as_array()) {
            if (!within.empty() && !is_of(within, fields)) continue;
            report.traceback = short_text(error_text(fields), 65'536);
            if (!report.traceback.empty()) break;
        }
    }
    co_return report;
}

asio::awaitable<void> JobIndex::decide(std::string id, std::string state, std::string by) {
    if (state == "open") {
        co_await impl_->redis.command("HDEL", keys::failures, id);
        co_return;
    }
    const Reply time = co_await impl_->redis.command("TIME");
    const Timestamp now{std::chrono::seconds(time.as_array().at(0).as_integer()) +
                        std::chrono::microseconds(time.as_array().at(1).as_integer())};
    co_await impl_->redis.command(
        "HSET", keys::failures, id,
        json::serialize(json::object{{"state", state}, {"by", by}, {"at", format_utc(now)}}));
}

asio::awaitable<IndexState> JobIndex::state() {
    IndexState state;
    const Impl& impl = *impl_;
    state.complete = impl.phase == Impl::Phase::done;
    const double part = static_cast<double>(impl.scanned_keys) /
                        static_cast<double>(std::max<std::int64_t>(impl.all_keys, 1));
    state.progress = impl.phase == Impl::Phase::scanning  ? std::clamp(part, 0.0, 0.95)
                     : impl.phase == Impl::Phase::walking ? 0.95
                                                          : 1.0;
    state.max_age = impl.max_age();
    co_await impl_->read([&](StoreReader& reader) { state.jobs = reader.jobs(); });
    co_return state;
}

}  // namespace rqxx::index
