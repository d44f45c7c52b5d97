#include <gtest/gtest.h>

#include <boost/json/serialize.hpp>
#include <http/job_log.hpp>

using namespace rqxx::http;
using rqxx::index::JobTransition;

namespace {

std::vector<JobTransition> transitions(int from, int to, const std::string& queue = "q") {
    std::vector<JobTransition> made;
    for (int i = from; i < to; ++i)
        made.push_back({std::to_string(i), queue, "f", "queued", 1, true, 1});
    return made;
}

std::string ids(const JobLog::News& news) {
    std::string all;
    for (const auto& job : news.jobs)
        all += std::string(job.at("id").as_string()) + " ";
    return all;
}

}  // namespace

TEST(job_log, tells_what_a_reader_has_not_seen) {
    JobLog log;
    log.add(transitions(0, 3));
    const auto first = log.after(1, {});
    EXPECT_EQ(ids(first), "1 2 ");
    EXPECT_EQ(first.dropped, 0u);
    EXPECT_EQ(
        boost::json::serialize(first.jobs[0]),
        R"({"id":"1","queue":"q","func_name":"f","status":"queued","at":"1970-01-01T00:00:00.000001Z"})");
    EXPECT_EQ(ids(log.after(first.last, {})), "");
}

TEST(job_log, drops_the_oldest_and_says_how_many) {
    JobLog log;
    log.add(transitions(0, 5000));
    const auto news = log.after(10, {});
    EXPECT_EQ(news.jobs.size(), JobLog::most_told);
    EXPECT_EQ(news.jobs.back().at("id"), "4999");
    EXPECT_EQ(news.dropped, 5000u - 10 - JobLog::most_told);
    EXPECT_EQ(news.last, 5000u);
}

TEST(job_log, keeps_what_is_of_other_queues_to_itself) {
    JobLog log;
    log.add(transitions(0, 2, "mail"));
    log.add(transitions(2, 600, "pay"));
    log.add(transitions(600, 602, "mail"));
    const auto sees = [](std::string_view queue) { return queue == "mail"; };
    EXPECT_EQ(ids(log.after(0, sees)), "0 1 600 601 ");
    EXPECT_EQ(log.after(0, sees).dropped, 0u);
    log.add(transitions(602, 5000, "pay"));
    EXPECT_EQ(ids(log.after(0, sees)), "");
    EXPECT_EQ(log.after(0, sees).dropped, std::nullopt);
}
