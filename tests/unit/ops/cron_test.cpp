#include <gtest/gtest.h>

#include <rqxx/cron_service.hpp>
#include <set>

using namespace rqxx;
using namespace std::chrono;
using namespace std::chrono_literals;

namespace {

Timestamp utc(std::string_view text) {
    return parse_utc(std::string(text) + "Z").value();
}
Slot slot(std::string_view text) {
    return time_point_cast<seconds>(utc(text));
}

CronSchedule every(seconds interval, CatchUp catch_up = CatchUp::skip) {
    CronSchedule schedule;
    schedule.name = "tick";
    schedule.call.func_name = "tasks.tick";
    schedule.every = interval;
    schedule.catch_up = catch_up;
    return schedule;
}

CronSchedule cron(std::string_view expression, std::string_view zone,
                  CatchUp catch_up = CatchUp::skip) {
    CronSchedule schedule = every(0s, catch_up);
    schedule.cron = CronExpression::parse(expression).value();
    schedule.zone = TimeZone::find(zone).value();
    return schedule;
}

/// A plan of one schedule that has done everything up to a moment.
CronPlan plan_of(CronSchedule schedule, std::string_view done) {
    CronPlan plan({std::move(schedule)});
    plan.resume(0, slot(done));
    return plan;
}

std::vector<std::string> due(CronPlan& plan, std::string_view now) {
    std::vector<std::string> result;
    for (const auto& one : plan.take_due(utc(now)).due)
        result.push_back(format_utc(one.slot).substr(0, 19));
    return result;
}

/// Lets the fake clock run from one wake-up to the next, as the service does.
std::vector<std::string> run(CronPlan& plan, std::string_view until) {
    std::vector<std::string> result;
    for (auto next = plan.next_due(); next && *next <= utc(until); next = plan.next_due()) {
        const auto decision = plan.take_due(*next);
        EXPECT_TRUE(decision.missed.empty());
        for (const auto& one : decision.due)
            result.push_back(plan.schedules()[one.schedule].zone.format(one.slot));
    }
    return result;
}

using List = std::vector<std::string>;

}  // namespace

TEST(cron_plan, tells_each_slot_once_when_its_time_has_come) {
    CronPlan plan = plan_of(every(10s), "2026-11-25T12:00:00");
    EXPECT_EQ(due(plan, "2026-11-25T12:00:09.999999"), List{});
    EXPECT_EQ(plan.next_due(), utc("2026-11-25T12:00:10"));
    EXPECT_EQ(due(plan, "2026-11-25T12:00:10"), (List{"2026-11-25T12:00:10"}));
    EXPECT_EQ(due(plan, "2026-11-25T12:00:10"), List{});
    EXPECT_EQ(due(plan, "2026-11-25T12:00:30.5"),
              (List{"2026-11-25T12:00:20", "2026-11-25T12:00:30"}));
}

TEST(cron_plan, intervals_are_multiples_since_the_epoch) {
    CronPlan plan = plan_of(every(7s), "2026-11-25T12:00:00");
    for (int i = 0; i < 3; ++i) {
        const auto next = *plan.next_slot(0);
        EXPECT_EQ(next.time_since_epoch().count() % 7, 0);
        plan.resume(0, next);
    }
}

TEST(cron_plan, what_is_a_little_late_is_fired_under_every_policy) {
    for (const auto policy : {CatchUp::skip, CatchUp::one, CatchUp::all}) {
        CronPlan plan = plan_of(every(5s, policy), "2026-11-25T12:00:00");
        EXPECT_EQ(due(plan, "2026-11-25T12:00:14"),
                  (List{"2026-11-25T12:00:05", "2026-11-25T12:00:10"}));
    }
}

TEST(cron_plan, skips_a_missed_month) {
    CronPlan plan = plan_of(cron("0 3 * * *", "Europe/Berlin"), "2026-11-25T12:00:00");
    const auto decision = plan.take_due(utc("2026-12-25T12:00:00"));
    EXPECT_TRUE(decision.due.empty());
    ASSERT_EQ(decision.missed.size(), 1);
    EXPECT_EQ(decision.missed[0].since, slot("2026-11-26T02:00:00"));
    EXPECT_EQ(plan.next_due(), utc("2026-12-26T02:00:00"));
}

TEST(cron_plan, makes_up_once_for_a_missed_month) {
    CronPlan plan =
        plan_of(cron("0 3 * * *", "Europe/Berlin", CatchUp::one), "2026-11-25T12:00:00");
    EXPECT_EQ(due(plan, "2026-12-25T12:00:00"), (List{"2026-12-25T02:00:00"}));
    EXPECT_EQ(plan.next_due(), utc("2026-12-26T02:00:00"));
}

TEST(cron_plan, a_slot_that_is_due_makes_up_for_those_before_it) {
    CronPlan plan =
        plan_of(cron("0 3 * * *", "Europe/Berlin", CatchUp::one), "2026-11-25T12:00:00");
    EXPECT_EQ(due(plan, "2026-12-25T02:00:05"), (List{"2026-12-25T02:00:00"}));
}

TEST(cron_plan, makes_up_for_all_of_a_missed_month_over_the_change_of_clocks) {
    CronPlan plan =
        plan_of(cron("30 2 * * *", "Europe/Berlin", CatchUp::all), "2027-03-20T12:00:00");
    const auto slots = due(plan, "2027-04-20T12:00:00");
    ASSERT_EQ(slots.size(), 31);
    EXPECT_EQ(slots[6], "2027-03-27T01:30:00");
    EXPECT_EQ(slots[7], "2027-03-28T01:00:00");  // 02:30 does not exist.
    EXPECT_EQ(slots[8], "2027-03-29T00:30:00");
    EXPECT_EQ(slots[30], "2027-04-20T00:30:00");
}

TEST(cron_plan, makes_up_for_the_newest_thousand_at_most) {
    CronPlan plan = plan_of(every(1s, CatchUp::all), "2026-11-25T12:00:00");
    const auto decision = plan.take_due(utc("2026-12-25T12:00:00"));
    ASSERT_EQ(decision.due.size(), 1000 + 15);
    EXPECT_EQ(decision.due.back().slot, slot("2026-12-25T12:00:00"));
    EXPECT_EQ(decision.due[999].slot, slot("2026-12-25T11:59:45"));
    ASSERT_EQ(decision.missed.size(), 1);
    CronPlan seconds_plan =
        plan_of(cron("* * * * * *", "America/New_York", CatchUp::all), "2020-11-25T12:00:00");
    EXPECT_EQ(seconds_plan.take_due(utc("2026-12-25T12:00:00")).due.size(), 1000 + 15);
}

TEST(cron_plan, runs_a_named_hour_once_a_day_over_both_changes_in_three_zones) {
    for (const auto* zone : {"Europe/Berlin", "America/New_York", "Australia/Lord_Howe"}) {
        for (const auto* expression : {"45 1 * * *", "15 2 * * *", "0 3 * * *"}) {
            CronPlan plan = plan_of(cron(expression, zone), "2026-09-01T00:00:00");
            const auto slots = run(plan, "2027-08-31T23:59:59");
            EXPECT_EQ(slots.size(), 365) << zone << ' ' << expression;
            for (std::size_t i = 1; i < slots.size(); ++i)
                EXPECT_NE(slots[i - 1].substr(0, 10), slots[i].substr(0, 10));
        }
    }
}

TEST(cron_plan, runs_every_hour_once_an_hour_over_both_changes_in_three_zones) {
    for (const auto* zone : {"Europe/Berlin", "America/New_York"}) {
        CronPlan plan = plan_of(cron("20 * * * *", zone), "2026-09-01T00:00:00");
        EXPECT_EQ(run(plan, "2027-08-31T23:59:59").size(), 365 * 24) << zone;
    }
    // By half an hour: 01:40 comes twice in April, 02:20 does not come in October.
    CronPlan plan = plan_of(cron("20 * * * *", "Australia/Lord_Howe"), "2026-09-01T00:00:00");
    EXPECT_EQ(run(plan, "2027-08-31T23:59:59").size(), 365 * 24 - 1);
    plan = plan_of(cron("40 * * * *", "Australia/Lord_Howe"), "2026-09-01T00:00:00");
    EXPECT_EQ(run(plan, "2027-08-31T23:59:59").size(), 365 * 24 + 1);
}

TEST(cron_plan, waits_for_the_leap_day) {
    CronPlan plan = plan_of(cron("0 12 29 2 *", "Europe/Berlin"), "2026-11-25T12:00:00");
    EXPECT_EQ(run(plan, "2033-01-01T00:00:00"),
              (List{"2028-02-29 12:00:00 +01:00", "2032-02-29 12:00:00 +01:00"}));
}

TEST(cron_plan, delays_a_slot_by_its_own_share_of_the_jitter) {
    CronSchedule schedule = every(60s);
    schedule.jitter = 30s;
    std::set<std::int64_t> delays;
    for (Slot at = slot("2026-11-25T12:00:00"); at < slot("2026-11-25T14:00:00"); at += 60s) {
        EXPECT_GE(schedule.delay(at), 0us);
        EXPECT_LT(schedule.delay(at), 30s);
        EXPECT_EQ(schedule.delay(at), schedule.delay(at));
        delays.insert(schedule.delay(at).count());
    }
    EXPECT_GT(delays.size(), 100);
    const Slot first = slot("2026-11-25T12:01:00");
    const auto delay = schedule.delay(first);
    CronPlan plan = plan_of(schedule, "2026-11-25T12:00:00");
    EXPECT_EQ(plan.next_due(), first + delay);
    EXPECT_TRUE(plan.take_due(first + delay - 1us).due.empty());
    EXPECT_EQ(plan.take_due(first + delay).due.size(), 1);
}

TEST(cron_plan, keeps_the_order_where_the_jitter_is_longer_than_the_interval) {
    CronSchedule schedule = every(1s);
    schedule.jitter = 10s;
    CronPlan plan = plan_of(schedule, "2026-11-25T12:00:00");
    Slot before = slot("2026-11-25T12:00:00");
    for (Timestamp now = before; now < utc("2026-11-25T12:02:00"); now += 100ms) {
        for (const auto& one : plan.take_due(now).due) {
            EXPECT_EQ(one.slot - before, 1s);
            before = one.slot;
        }
    }
    EXPECT_GT(before, slot("2026-11-25T12:01:40"));
}

TEST(cron_schedule, names_the_job_after_the_slot) {
    EXPECT_EQ(every(5s).job_id(slot("2026-11-25T12:00:00")), "cron-tick-1795608000");
}

TEST(cron_schedule, is_checked) {
    const auto error_of = [](CronSchedule schedule) -> std::string {
        try {
            schedule.check();
        } catch (const Error& error) {
            return error.message();
        }
        return "";
    };
    EXPECT_EQ(error_of(every(5s)), "");
    EXPECT_EQ(error_of(every(0s)), "cron: either it or every is needed");
    CronSchedule both = cron("* * * * *", "UTC");
    both.every = 5s;
    EXPECT_EQ(error_of(both), "every: give either it or cron");
    CronSchedule named = every(5s);
    named.name = "a b";
    EXPECT_EQ(error_of(named).substr(0, 5), "name:");
    EXPECT_EQ(error_of(every(days(10000))).substr(0, 6), "every:");
}
