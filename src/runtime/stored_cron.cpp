#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <map>
#include <rqxx/cron_entries.hpp>

#include "base/task_group.hpp"
#include "ops/keys.hpp"

namespace rqxx {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

struct StoredCron::Impl {
    Impl(RedisClient& redis_, Logger& log_) : redis(redis_), log(log_), wake(redis_.executor()) {}

    RedisClient& redis;
    Logger& log;
    bool stopping = false;
    std::map<std::string, std::string> refused;  ///< Entries that have been complained of.
    Event wake;

    asio::awaitable<std::string> version() {
        const Reply reply = co_await redis.command("GET", keys::cron_entries_version);
        co_return reply.text;
    }

    asio::awaitable<std::vector<CronSchedule>> read() {
        const Reply reply = co_await redis.command("HGETALL", keys::cron_entries);
        std::vector<CronSchedule> schedules;
        for (const auto& [name, text] : reply.as_pairs()) {
            std::string why;
            try {
                boost::system::error_code malformed;
                const json::value value = json::parse(text, malformed);
                if (malformed || !value.is_object())
                    throw Error(Errc::usage, "it is no JSON object");
                schedules.push_back(read_cron_entry(std::string(name), value.get_object()));
            } catch (const Error& error) {
                why = error.message();
            }
            std::string& told = refused[std::string(name)];
            if (!why.empty() && told != text)
                log.error("Schedule cannot be read", "name", name, "error", why);
            told = why.empty() ? std::string() : std::string(text);
        }
        co_return schedules;
    }

    /// Ends when they have changed.
    asio::awaitable<void> fire(std::vector<CronSchedule> schedules, std::string known) {
        CronServiceOptions options;
        options.group = stored_cron_group;
        options.config_file = stored_cron_file;
        CronService running(redis, std::move(schedules), options, log);
        TaskGroup tasks(redis.executor());
        tasks.spawn("cron", running.run());
        while (!stopping) {
            co_await wake.wait(1s);
            bool changed = false;
            try {
                changed = co_await version() != known;
            } catch (const Error&) {
                // The service itself tells of it.
            }
            if (changed) break;
        }
        running.request_stop();
        co_await tasks.join();
    }

    asio::awaitable<void> run() {
        while (!stopping) {
            std::vector<CronSchedule> schedules;
            std::string known;
            try {
                known = co_await version();
                if (!known.empty()) schedules = co_await read();
            } catch (const Error&) {
                // Redis is away; its client says so.
            }
            if (schedules.empty())
                co_await wake.wait(1s);
            else
                co_await fire(std::move(schedules), known);
        }
    }
};

StoredCron::StoredCron(RedisClient& redis, Logger& log)
    : impl_(std::make_unique<Impl>(redis, log)) {}
StoredCron::~StoredCron() = default;

asio::awaitable<void> StoredCron::run() {
    return impl_->run();
}

void StoredCron::request_stop() {
    impl_->stopping = true;
    impl_->wake.notify();
}

}  // namespace rqxx
