#include <gtest/gtest.h>

#include <rqxx/log.hpp>
#include <rqxx/time.hpp>

using namespace rqxx;
using namespace std::chrono_literals;

TEST(utc_time, is_written_as_rq_writes_it) {
    EXPECT_EQ(format_utc(Timestamp{}), "1970-01-01T00:00:00.000000Z");
    EXPECT_EQ(format_utc(Timestamp{1795456057728246us}), "2026-11-23T17:47:37.728246Z");
}

TEST(utc_time, reads_zero_to_six_fraction_digits) {
    EXPECT_EQ(parse_utc("2026-11-23T17:47:37Z").value(), Timestamp{1795456057000000us});
    EXPECT_EQ(parse_utc("2026-11-23T17:47:37.7Z").value(), Timestamp{1795456057700000us});
    EXPECT_EQ(parse_utc("2026-11-23T17:47:37.728246Z").value(), Timestamp{1795456057728246us});
}

TEST(utc_time, refuses_everything_else) {
    for (const char* text :
         {"", "2026-11-23", "2026-11-23T17:47:37", "2026-11-23T17:47:37+00:00",
          "2026-11-23T17:47:37.1234567Z", "2026-13-23T17:47:37Z", "2026-02-30T17:47:37Z",
          "2026-11-23T24:00:00Z", "2026-11-23T17:47:37.Z", "0000-01-01T00:00:00Z",
          " 2026-11-23T17:47:37Z"})
        EXPECT_FALSE(parse_utc(text)) << text;
}

TEST(a_moment, is_written_with_an_offset_or_as_seconds) {
    const Timestamp moment{2'000'000'000s};
    for (const char* text :
         {"2033-05-18T03:33:20Z", "2033-05-18T05:33:20+02:00", "2033-05-17T18:03:20-09:30",
          "2033-05-18T03:33:20.000+00:00", "2000000000", "2000000000.0"})
        EXPECT_EQ(parse_time(text).value(), moment) << text;
}

TEST(a_moment, is_refused_in_any_other_form) {
    for (const char* text :
         {"", "tomorrow", "2033-05-18", "2033-05-18T03:33:20", "2033-05-18T03:33:20+aa:00",
          "2033-05-18T03:33:20+24:00", "2033-05-18T03:33:20+01:60", "2033-05-18T03:33:20Z+01:00",
          "+01:00", "1e300", "nan", "inf"})
        EXPECT_FALSE(parse_time(text)) << text;
}

TEST(epoch_time, survives_a_round_trip) {
    for (const auto us : {0us, 1us, 1795456544965519us})
        EXPECT_EQ(parse_epoch(format_epoch(Timestamp{us})).value(), Timestamp{us});
    EXPECT_FALSE(parse_epoch("nan"));
    EXPECT_FALSE(parse_epoch("1e300"));
    EXPECT_FALSE(parse_epoch("1 "));
}

TEST(seconds_text, has_at_most_two_decimals_without_trailing_zeros) {
    EXPECT_EQ(format_seconds(500ms), "0.5");
    EXPECT_EQ(format_seconds(12340ms), "12.34");
    EXPECT_EQ(format_seconds(3s), "3");
    EXPECT_EQ(format_seconds(0s), "0");
    EXPECT_EQ(format_seconds(100s), "100");
    EXPECT_EQ(format_seconds(-1ms), "0");
}

TEST(duration_text, takes_rqs_units) {
    EXPECT_EQ(parse_duration("90").value(), 90s);
    EXPECT_EQ(parse_duration("90s").value(), 90s);
    EXPECT_EQ(parse_duration("5m").value(), 300s);
    EXPECT_EQ(parse_duration("1H").value(), 3600s);
    EXPECT_EQ(parse_duration("2d").value(), 172800s);
    for (const char* text : {"", "s", "1.5", "1w", "-2", "1 h", "99999999999"})
        EXPECT_FALSE(parse_duration(text)) << text;
}

TEST(logger, escapes_what_would_break_a_line) {
    std::string line;
    Logger log(LogLevel::info, LogFormat::text, [&](std::string_view text) { line = text; });
    log.error("Job failed", "id", "a", "error", "one\ntwo\x1b[31m");
    EXPECT_EQ(line, "ERROR: Job failed: id=a, error=one\\ntwo\\u001b[31m");
    log.debug("Hidden");
    EXPECT_EQ(line, "ERROR: Job failed: id=a, error=one\\ntwo\\u001b[31m");
}
