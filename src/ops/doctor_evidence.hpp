#pragma once

#include <boost/asio/awaitable.hpp>
#include <compare>
#include <cstdint>
#include <map>
#include <rqxx/redis/client.hpp>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "ops/doctor.hpp"

namespace rqxx::ops::doctor {

/// Something that may be wrong. `key`, `id` and `detail` are as lua/doctor.lua wants them for its
/// kind.
struct Suspect {
    std::string key, id, detail;
    std::string mark, note;  ///< As the script answered at the last look.

    auto operator<=>(const Suspect& other) const {
        return std::tie(key, id, detail) <=> std::tie(other.key, other.id, other.detail);
    }
    bool operator==(const Suspect& other) const {
        return std::tie(key, id, detail) == std::tie(other.key, other.id, other.detail);
    }
};

/// What was found, by the code of its kind: suspects, which lua/doctor.lua judges and mends, and
/// facts, which need no second look.
class Evidence {
public:
    Evidence(RedisClient& redis, const DoctorOptions& options)
        : redis_(&redis), options_(&options) {}

    /// Adds a suspect, if its queue is looked at.
    void add(std::string_view code, std::string_view queue, std::string key, std::string id,
             std::string detail = {});
    /// Adds those of `list` that the script takes for one.
    asio::awaitable<void> add_confirmed(std::string_view code, const std::vector<Suspect>& list);
    void add_fact(std::string_view code, std::uint64_t count, std::string subject,
                  std::string note);
    /// To be called when all suspects are there: some are met in two places.
    void remove_repeated();

    [[nodiscard]] bool any_suspect() const noexcept;
    /// For those who know more than the script.
    [[nodiscard]] std::vector<Suspect>& suspects(std::string_view code) { return suspects_[code]; }

    /// Drops what is not so, or not as it was at the first look.
    asio::awaitable<void> look(bool second);
    /// How many of each kind were mended.
    asio::awaitable<std::map<std::string_view, std::uint64_t>> mend();

    struct Fact {
        std::uint64_t count = 0;
        std::vector<FindingExample> examples;
    };
    /// What was found of a kind.
    [[nodiscard]] Fact found(std::string_view code) const;

private:
    struct Answer {
        std::int64_t code = 0;
        std::string mark, note;
    };
    asio::awaitable<std::vector<Answer>> ask(std::string_view code,
                                             const std::vector<Suspect>& list, bool mend);

    RedisClient* redis_;
    const DoctorOptions* options_;
    std::map<std::string_view, std::vector<Suspect>> suspects_;
    std::map<std::string_view, Fact> facts_;
};

}  // namespace rqxx::ops::doctor
