#include <gtest/gtest.h>

#include <rqxx/cron.hpp>

using namespace rqxx;
using namespace std::chrono;
using namespace std::chrono_literals;

namespace {

Slot utc(std::string_view text) {
    return time_point_cast<seconds>(parse_utc(std::string(text) + "Z").value());
}

/// The first slots after a moment, on the zone's clock.
std::vector<std::string> slots(std::string_view expression, std::string_view after,
                               std::string_view zone_name = "UTC", std::size_t count = 4) {
    const auto cron = CronExpression::parse(expression).value();
    const auto zone = TimeZone::find(zone_name).value();
    std::vector<std::string> result;
    Slot slot = utc(after);
    while (result.size() < count) {
        const auto next = cron.next(slot, zone);
        if (!next) break;
        slot = *next;
        result.push_back(zone.format(slot));
    }
    return result;
}

/// Where the zone is UTC: without the offset.
std::vector<std::string> utc_slots(std::string_view expression, std::string_view after,
                                   std::size_t count = 4) {
    auto result = slots(expression, after, "UTC", count);
    for (auto& text : result)
        text = text.substr(0, 19);
    return result;
}

using List = std::vector<std::string>;

std::string error_of(std::string_view expression) {
    const auto cron = CronExpression::parse(expression);
    return cron ? "none" : cron.error().describe();
}

}  // namespace

TEST(cron_expression, takes_numbers_lists_ranges_and_steps) {
    EXPECT_EQ(utc_slots("30 4 * * *", "2026-11-25T04:30:00", 2),
              (List{"2026-11-26 04:30:00", "2026-11-27 04:30:00"}));
    EXPECT_EQ(utc_slots("0,10,59 12 * * *", "2026-11-25T12:00:00"),
              (List{"2026-11-25 12:10:00", "2026-11-25 12:59:00", "2026-11-26 12:00:00",
                    "2026-11-26 12:10:00"}));
    EXPECT_EQ(utc_slots("0 9-17/4 * * *", "2026-11-25T00:00:00"),
              (List{"2026-11-25 09:00:00", "2026-11-25 13:00:00", "2026-11-25 17:00:00",
                    "2026-11-26 09:00:00"}));
    EXPECT_EQ(utc_slots("50/5 * * * *", "2026-11-25T00:00:00"),
              (List{"2026-11-25 00:50:00", "2026-11-25 00:55:00", "2026-11-25 01:50:00",
                    "2026-11-25 01:55:00"}));
}

TEST(cron_expression, takes_seconds_first_where_there_are_six_fields) {
    EXPECT_EQ(utc_slots("*/20 59 23 31 12 *", "2026-12-31T23:59:19"),
              (List{"2026-12-31 23:59:20", "2026-12-31 23:59:40", "2027-12-31 23:59:00",
                    "2027-12-31 23:59:20"}));
}

TEST(cron_expression, knows_names_and_both_numbers_of_sunday) {
    const List sundays{"2026-11-29 00:00:00", "2026-12-06 00:00:00"};
    for (const auto* text : {"0 0 * * 0", "0 0 * * 7", "0 0 * * SUN", "@weekly"})
        EXPECT_EQ(utc_slots(text, "2026-11-25T00:00:00", 2), sundays) << text;
    EXPECT_EQ(utc_slots("0 0 * * 7/3", "2026-11-25T00:00:00", 3),
              (List{"2026-11-28 00:00:00", "2026-11-29 00:00:00", "2026-12-02 00:00:00"}));
    EXPECT_EQ(utc_slots("0 0 * * fri-sun", "2026-11-26T12:00:00"),
              (List{"2026-11-27 00:00:00", "2026-11-28 00:00:00", "2026-11-29 00:00:00",
                    "2026-12-04 00:00:00"}));
    EXPECT_EQ(utc_slots("0 0 1 jan,Jul *", "2026-11-25T00:00:00", 2),
              (List{"2027-01-01 00:00:00", "2027-07-01 00:00:00"}));
}

TEST(cron_expression, needs_one_of_two_named_days_and_both_where_one_begins_with_a_star) {
    EXPECT_EQ(utc_slots("0 0 13 * fri", "2026-11-01T00:00:00"),
              (List{"2026-11-06 00:00:00", "2026-11-13 00:00:00", "2026-11-20 00:00:00",
                    "2026-11-27 00:00:00"}));
    EXPECT_EQ(utc_slots("0 0 */2 * fri", "2026-11-01T00:00:00", 2),
              (List{"2026-11-13 00:00:00", "2026-11-27 00:00:00"}));
}

TEST(cron_expression, waits_for_leap_days) {
    EXPECT_EQ(utc_slots("0 0 29 2 *", "2026-01-01T00:00:00", 2),
              (List{"2028-02-29 00:00:00", "2032-02-29 00:00:00"}));
    EXPECT_EQ(utc_slots("0 0 29 2 *", "2096-03-01T00:00:00", 1), (List{"2104-02-29 00:00:00"}));
    EXPECT_EQ(utc_slots("0 0 28-29 2 *", "2028-02-27T00:00:00", 3),
              (List{"2028-02-28 00:00:00", "2028-02-29 00:00:00", "2029-02-28 00:00:00"}));
}

TEST(cron_expression, says_which_field_is_wrong) {
    EXPECT_EQ(error_of("60 * * * *"), "minute: \"60\" is not from 0 to 59");
    EXPECT_EQ(error_of("* 24 * * *"), "hour: \"24\" is not from 0 to 23");
    EXPECT_EQ(error_of("* * 0 * *"), "day of month: \"0\" is not from 1 to 31");
    EXPECT_EQ(error_of("* * * foo *"), "month: \"foo\" is no number and no name");
    EXPECT_EQ(error_of("* * * anf *"), "month: \"anf\" is no number and no name");
    EXPECT_EQ(error_of("* * * * 8"), "day of week: \"8\" is not from 0 to 7");
    EXPECT_EQ(error_of("x * * * * *"), "second: \"x\" is not a number");
    EXPECT_EQ(error_of("9-5 * * * *"), "minute: \"9-5\" ends before it begins");
    EXPECT_EQ(error_of("*/0 * * * *"), "minute: \"*/0\" needs a step from 1 to 59");
    EXPECT_EQ(error_of("*/ * * * *"), "minute: \"*/\" needs a step from 1 to 59");
    EXPECT_EQ(error_of("1, * * * *"), "minute: \"\" is not a number");
    EXPECT_EQ(error_of("-1 * * * *"), "minute: \"\" is not a number");
    EXPECT_EQ(error_of("* * *"), "\"* * *\" has 3 fields; 5 are needed, or 6 with seconds first");
    EXPECT_EQ(error_of(""), "\"\" has 0 fields; 5 are needed, or 6 with seconds first");
    EXPECT_EQ(error_of("0 0 30 2 *"), "\"0 0 30 2 *\" names no day that exists");
    EXPECT_NE(error_of("@fortnightly").find("is not one of @hourly"), std::string::npos);
}

TEST(cron_expression, is_passed_on_in_the_words_of_croniter) {
    EXPECT_EQ(CronExpression::parse("5 4 * JAN Mon-Fri")->croniter_text(), "5 4 * jan mon-fri");
    EXPECT_EQ(CronExpression::parse("*/10 5 4 * * 7")->croniter_text(), "5 4 * * 7 */10");
    EXPECT_EQ(CronExpression::parse("@daily")->croniter_text(), "@daily");
}

// ---- clocks that change. Berlin: 2027-03-28 02:00 -> 03:00, 2027-10-31 03:00 -> 02:00. New York:
// 2027-03-14 02:00 -> 03:00, 2027-11-07 02:00 -> 01:00. Lord Howe, by half an hour: 2026-10-04
// 02:00 -> 02:30, 2027-04-04 02:00 -> 01:30.

TEST(cron_clock_change, a_named_hour_that_is_left_out_runs_right_after_it) {
    EXPECT_EQ(slots("30 2 * * *", "2027-03-27T00:00:00", "Europe/Berlin", 3),
              (List{"2027-03-27 02:30:00 +01:00", "2027-03-28 03:00:00 +02:00",
                    "2027-03-29 02:30:00 +02:00"}));
    EXPECT_EQ(slots("30 2 * * *", "2027-03-13T00:00:00", "America/New_York", 3),
              (List{"2027-03-13 02:30:00 -05:00", "2027-03-14 03:00:00 -04:00",
                    "2027-03-15 02:30:00 -04:00"}));
    EXPECT_EQ(slots("15 2 * * *", "2026-10-02T12:00:00", "Australia/Lord_Howe", 3),
              (List{"2026-10-03 02:15:00 +10:30", "2026-10-04 02:30:00 +11:00",
                    "2026-10-05 02:15:00 +11:00"}));
}

TEST(cron_clock_change, several_slots_left_out_run_once) {
    EXPECT_EQ(slots("*/15 2,3 * * *", "2027-03-28T00:00:00", "Europe/Berlin", 4),
              (List{"2027-03-28 03:00:00 +02:00", "2027-03-28 03:15:00 +02:00",
                    "2027-03-28 03:30:00 +02:00", "2027-03-28 03:45:00 +02:00"}));
}

TEST(cron_clock_change, a_named_hour_that_comes_twice_runs_the_first_time) {
    EXPECT_EQ(slots("30 2 * * *", "2027-10-30T12:00:00", "Europe/Berlin", 2),
              (List{"2027-10-31 02:30:00 +02:00", "2027-11-01 02:30:00 +01:00"}));
    EXPECT_EQ(slots("30 1 * * *", "2027-11-06T12:00:00", "America/New_York", 2),
              (List{"2027-11-07 01:30:00 -04:00", "2027-11-08 01:30:00 -05:00"}));
    EXPECT_EQ(slots("45 1 * * *", "2027-04-03T00:00:00", "Australia/Lord_Howe", 2),
              (List{"2027-04-04 01:45:00 +11:00", "2027-04-05 01:45:00 +10:30"}));
}

TEST(cron_clock_change, a_named_hour_does_not_run_again_when_asked_during_the_second_pass) {
    EXPECT_EQ(slots("*/20 2 * * *", "2027-10-31T01:10:00", "Europe/Berlin", 1),
              (List{"2027-11-01 02:00:00 +01:00"}));
}

TEST(cron_clock_change, every_hour_runs_evenly) {
    EXPECT_EQ(slots("30 * * * *", "2027-03-28T00:00:00", "Europe/Berlin", 3),
              (List{"2027-03-28 01:30:00 +01:00", "2027-03-28 03:30:00 +02:00",
                    "2027-03-28 04:30:00 +02:00"}));
    EXPECT_EQ(slots("30 * * * *", "2027-10-31T00:00:00", "Europe/Berlin", 3),
              (List{"2027-10-31 02:30:00 +02:00", "2027-10-31 02:30:00 +01:00",
                    "2027-10-31 03:30:00 +01:00"}));
    EXPECT_EQ(slots("0 */2 * * *", "2027-03-14T04:00:00", "America/New_York", 3),
              (List{"2027-03-14 00:00:00 -05:00", "2027-03-14 04:00:00 -04:00",
                    "2027-03-14 06:00:00 -04:00"}));
    EXPECT_EQ(slots("0 * * * *", "2027-11-07T04:30:00", "America/New_York", 3),
              (List{"2027-11-07 01:00:00 -04:00", "2027-11-07 01:00:00 -05:00",
                    "2027-11-07 02:00:00 -05:00"}));
    EXPECT_EQ(slots("*/30 * * * *", "2026-10-03T15:00:00", "Australia/Lord_Howe", 3),
              (List{"2026-10-04 02:30:00 +11:00", "2026-10-04 03:00:00 +11:00",
                    "2026-10-04 03:30:00 +11:00"}));
    EXPECT_EQ(slots("*/30 * * * *", "2027-04-03T14:29:00", "Australia/Lord_Howe", 4),
              (List{"2027-04-04 01:30:00 +11:00", "2027-04-04 01:30:00 +10:30",
                    "2027-04-04 02:00:00 +10:30", "2027-04-04 02:30:00 +10:30"}));
}

TEST(time_zone, refuses_what_tzdata_does_not_have) {
    for (const auto* name :
         {"Europe/Atlantis", "", "../etc/passwd", "/etc/localtime", "CET\n", "Europe"})
        EXPECT_FALSE(TimeZone::find(name)) << name;
    EXPECT_EQ(TimeZone::find("Asia/Kathmandu")->format(utc("2026-01-01T00:00:00")),
              "2026-01-01 05:45:00 +05:45");
    EXPECT_EQ(TimeZone::find("America/St_Johns")->format(utc("2026-01-01T00:00:00")),
              "2025-12-31 20:30:00 -03:30");
}
