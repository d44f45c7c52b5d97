#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <rqxx/codec.hpp>
#include <rqxx/timeline.hpp>

using namespace rqxx;

namespace {

/// What a job tells whose field has this.
std::vector<TimelineEvent> told(std::string field) {
    JobInfo info;
    info.job.id = "a";
    info.job.extra.emplace_back("rqxx_timeline", std::move(field));
    return timeline_of(info);
}

std::vector<std::string> words(const std::vector<TimelineEvent>& events) {
    std::vector<std::string> result;
    for (const auto& event : events)
        result.push_back(event.event);
    return result;
}

std::string line(int second, std::string_view event, std::string_view more = "") {
    return fmt::format("{{\"at\":\"2026-01-01T00:{:02}:{:02}.000000Z\",\"event\":\"{}\"{}}}\n",
                       second / 60, second % 60, event, more);
}

using Words = std::vector<std::string>;

}  // namespace

TEST(timeline, is_what_scripts_have_told_oldest_first) {
    const auto events =
        told(line(2, "canceled", R"(,"by":"ann")") +
             line(1, "retried", R"(,"worker":"w","execution":"e","details":"in 5 s")"));
    ASSERT_EQ(words(events), (Words{"retried", "canceled"}));
    EXPECT_EQ(events[0].worker, "w");
    EXPECT_EQ(events[0].execution, "e");
    EXPECT_EQ(events[0].details, "in 5 s");
    EXPECT_EQ(events[1].by, "ann");
    EXPECT_EQ(format_utc(events[1].at), "2026-01-01T00:00:02.000000Z");
}

TEST(timeline, tells_when_an_attempt_began_and_why_it_ended) {
    const auto error = base64_encode(zlib_compress("Traceback\n  File x\nValueError: no\n"));
    const auto events = told(line(9, "retried",
                                  fmt::format(R"(,"worker":"w","execution":"e","details":"again",)"
                                              R"("started_at":"1767225601.5","exc_string":"{}")",
                                              error)));
    ASSERT_EQ(words(events), (Words{"started", "retried"}));
    EXPECT_EQ(format_utc(events[0].at), "2026-01-01T00:00:01.500000Z");
    EXPECT_EQ(events[0].execution, "e");
    EXPECT_EQ(events[1].details, "again: ValueError: no");
}

TEST(timeline, leaves_out_lines_that_cannot_be_read) {
    for (const std::string bad :
         {"", "\n", "\n\n\n", "x\n", "{\n", "[]\n", "{}\n", "null\n", "3\n", "\"text\"\n",
          "\xff\xfe\n", "{\"event\":\"x\"}\n", "{\"at\":\"2026-01-01T00:00:00Z\"}\n",
          "{\"at\":\"2026-01-01T00:00:00Z\",\"event\":\"\"}\n",
          "{\"at\":\"yesterday\",\"event\":\"x\"}\n", "{\"at\":1,\"event\":\"x\"}\n",
          "{\"at\":\"9999999-01-01T00:00:00Z\",\"event\":\"x\"}\n",
          "{\"at\":\"2026-01-01T00:00:00Z\",\"event\":{\"a\":1}}\n",
          "{\"at\":\"2026-01-01T00:00:00Z\",\"event\":\"cut\n"}) {
        EXPECT_EQ(words(told(bad)), Words{}) << bad;
        EXPECT_EQ(words(told(bad + line(1, "good"))), Words{"good"}) << bad;
        EXPECT_EQ(words(told(line(1, "good") + bad)), Words{"good"}) << bad;
    }
    EXPECT_EQ(words(told(std::string(100'000, '['))), Words{});
    EXPECT_EQ(words(told(std::string(1000, '\0') + "\n" + line(1, "good"))), Words{"good"});
}

TEST(timeline, takes_members_of_another_kind_for_missing) {
    const auto events =
        told(line(1, "x",
                  R"(,"worker":1,"execution":[],"by":{},"details":null,"started_at":5,)"
                  R"("exc_string":{"a":1})"));
    ASSERT_EQ(words(events), Words{"x"});
    EXPECT_EQ(events[0].worker + events[0].execution + events[0].by + events[0].details, "");
    for (const char* start : {"x", "-1", "nan", "inf", "1e400", ""})
        EXPECT_LE(told(line(1, "x", fmt::format(R"(,"started_at":"{}")", start))).size(), 2U)
            << start;
    for (const char* error : {"%%%", "", "AAAA", "eJw="})
        EXPECT_EQ(words(told(line(1, "x", fmt::format(R"(,"exc_string":"{}")", error)))),
                  Words{"x"});
}

TEST(timeline, is_bounded_whatever_stands_in_the_field) {
    std::string many;
    for (int n = 0; n < 3000; ++n)
        many += line(n, fmt::format("event_{}", n));
    auto events = told(many);
    ASSERT_EQ(events.size(), 50U);
    EXPECT_EQ(events.front().event, "event_2950");
    EXPECT_EQ(events.back().event, "event_2999");

    // A line that has no end hides those before it, not those behind.
    events = told(line(1, "before") + std::string(3 << 20, 'x') + "\n" + line(2, "behind"));
    EXPECT_EQ(words(events), Words{"behind"});

    const std::string long_text(100'000, 'y');
    events = told(line(
        1, long_text,
        fmt::format(R"(,"worker":"{0}","execution":"{0}","by":"{0}","details":"{0}")", long_text)));
    ASSERT_EQ(events.size(), 1U);
    EXPECT_EQ(events[0].event.size(), 200U);
    EXPECT_EQ(events[0].worker.size(), 200U);
    EXPECT_EQ(events[0].by.size(), 200U);
    EXPECT_EQ(events[0].execution.size(), 200U);
    EXPECT_EQ(events[0].details.size(), 500U);
    // Cut between characters.
    std::string letters;
    for (int n = 0; n < 1000; ++n)
        letters += "ж";
    events = told(line(1, "x" + letters));
    ASSERT_EQ(events.size(), 1U);
    EXPECT_EQ(events[0].event, "x" + letters.substr(0, 198));
}

TEST(timeline, becomes_json_whatever_bytes_it_has) {
    const auto events = told(line(1, "\xff\x01", "") + line(2, "<b>", R"(,"by":"\u0000\ud800")"));
    for (const auto& event : events)
        EXPECT_EQ(boost::json::serialize(to_json(event)).find('\xff'), std::string::npos);
    EXPECT_LE(events.size(), 2U);
}

TEST(timeline, tells_what_always_happens_from_the_hash) {
    JobInfo info;
    info.job.status = "failed";
    info.job.origin = "mail";
    info.job.created_at = parse_utc("2026-01-01T00:00:00Z").value();
    info.job.enqueued_at = info.job.created_at;
    info.job.ended_at = parse_utc("2026-01-01T00:00:05Z").value();
    EXPECT_EQ(words(timeline_of(info)), (Words{"created", "enqueued", "failed"}));
    EXPECT_EQ(timeline_of(info)[1].details, "mail");
    EXPECT_EQ(words(timeline_of(JobInfo{})), Words{});
}
