#include <algorithm>
#include <support/redis_fixture.hpp>
#include <tuple>

using namespace rqxx;
using namespace rqxx::test;

namespace {

class scheduled_page : public RedisTest {};

using Row = std::tuple<double, std::string, std::string>;  ///< Time, id, queue.

std::vector<Row> rows_of(const Reply& reply) {
    std::vector<Row> rows;
    for (std::size_t i = 0; i + 2 < reply.as_array().size(); i += 3)
        rows.emplace_back(std::stod(reply.elements[i + 1].text), reply.elements[i].text,
                          reply.elements[i + 2].text);
    return rows;
}

}  // namespace

TEST_F(scheduled_page, has_no_more_jobs_than_asked_for_in_the_order_of_time_id_and_queue) {
    run([](RedisClient& redis) -> asio::awaitable<void> {
        std::vector<std::string> queues;
        std::vector<Row> all;
        Pipeline pipeline;
        for (int q = 0; q < 40; ++q) {
            queues.push_back("q" + std::to_string(q));
            for (int i = 0; i < 30; ++i) {
                // Times that many share, ids in other cases and letters.
                const int time = (i * 7 + q * 3) % 20;
                const std::string id = std::string(i % 3 == 0   ? "\xc3\xa4"
                                                   : i % 3 == 1 ? "B"
                                                                : "a") +
                                       std::to_string(i);
                pipeline.add("ZADD", "rq:scheduled:" + queues.back(), time, id);
                all.emplace_back(time, id, queues.back());
            }
        }
        co_await redis.run(std::move(pipeline));
        queues.emplace_back("empty");
        co_await redis.command("SET", "rq:scheduled:odd", "no sorted set");
        queues.emplace_back("odd");
        std::ranges::sort(all);
        std::vector<Row> seen;
        for (std::size_t turn = 0; turn < all.size(); ++turn) {
            std::vector<std::string> args{"50", "", "", ""};
            if (!seen.empty())
                args = {"50", std::to_string(std::get<0>(seen.back())), std::get<1>(seen.back()),
                        std::get<2>(seen.back())};
            args.insert(args.end(), queues.begin(), queues.end());
            const auto page =
                rows_of(co_await redis.eval(lua::scheduled_page, {}, std::move(args)));
            EXPECT_LE(page.size(), 50u);
            if (page.empty() || page.size() > 50) break;
            seen.insert(seen.end(), page.begin(), page.end());
        }
        EXPECT_EQ(seen, all);
    });
}
