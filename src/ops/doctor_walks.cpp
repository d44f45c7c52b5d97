#include "ops/doctor_walks.hpp"

#include <algorithm>
#include <cstdlib>
#include <vector>

namespace rqxx::ops::doctor {

namespace {

/// How many of the last entries are the first of those read before.
std::size_t overlap(const std::vector<Reply>& entries, const std::vector<Reply>& before) {
    if (before.empty()) return 0;
    for (std::size_t from = 0; from < entries.size(); ++from) {
        if (entries[from].text != before.front().text) continue;
        const std::size_t length = entries.size() - from;
        if (length <= before.size() &&
            std::equal(entries.begin() + static_cast<std::ptrdiff_t>(from), entries.end(),
                       before.begin(),
                       [](const Reply& a, const Reply& b) { return a.text == b.text; }))
            return length;
    }
    return 0;
}

}  // namespace

asio::awaitable<bool> walk_list(RedisClient& redis, std::string key, const Visit& visit) {
    std::vector<Reply> before;
    for (std::size_t at = 0;; at += window) {
        Pipeline pipeline;
        pipeline.add("LRANGE", key, -static_cast<std::int64_t>(at + window),
                     -static_cast<std::int64_t>(at + 1));
        auto replies = co_await redis.run(std::move(pipeline));
        if (replies[0].is_error()) co_return false;
        auto entries = std::move(replies[0].elements);
        const std::size_t count = entries.size();
        for (std::size_t i = count - overlap(entries, before); i > 0; --i)
            visit(entries[i - 1].text);
        if (count < window) co_return true;
        before = std::move(entries);
    }
}

asio::awaitable<bool> walk_scores(RedisClient& redis, std::string key,
                                  std::function<void(const std::string&, double)> visit) {
    std::string cursor = "0";
    do {
        Pipeline pipeline;
        pipeline.add("ZSCAN", key, cursor, "COUNT", window);
        const auto replies = co_await redis.run(std::move(pipeline));
        if (replies[0].is_error()) co_return false;
        cursor = replies[0].as_array().at(0).as_text();
        const auto& cells = replies[0].elements.at(1).as_array();
        for (std::size_t i = 0; i + 1 < cells.size(); i += 2)
            visit(cells[i].text, std::strtod(cells[i + 1].text.c_str(), nullptr));
    } while (cursor != "0");
    co_return true;
}

}  // namespace rqxx::ops::doctor
