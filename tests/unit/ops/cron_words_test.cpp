#include <gtest/gtest.h>

#include <random>
#include <rqxx/cron.hpp>
#include <rqxx/cron_entries.hpp>

using namespace rqxx;

namespace {

struct Phrase {
    const char* expression;
    const char* words;
};

}  // namespace

TEST(cron_words, say_when_where_it_is_simple) {
    for (const auto& [expression, words] : {
             Phrase{"* * * * *", "every minute"},
             Phrase{"*/5 * * * *", "every 5 minutes"},
             Phrase{"*/30 * * * *", "every 30 minutes"},
             Phrase{"0 * * * *", "every hour"},
             Phrase{"59 * * * *", "every hour at minute 59"},
             Phrase{"0 */2 * * *", "every 2 hours"},
             Phrase{"0 */12 * * *", "every 12 hours"},
             Phrase{"0 12 * * *", "at 12:00, every day"},
             Phrase{"5 0 * * *", "at 00:05, every day"},
             Phrase{"05 09 * * *", "at 09:05, every day"},
             Phrase{"30 2 * * 1", "at 02:30, on Mondays"},
             Phrase{"30 2 * * sun", "at 02:30, on Sundays"},
             Phrase{"30 2 * * 0", "at 02:30, on Sundays"},
             Phrase{"30 2 * * 7", "at 02:30, on Sundays"},
             Phrase{"0 9 * * MON-FRI", "at 09:00, Monday to Friday"},
             Phrase{"0 9 * * 1-5", "at 09:00, Monday to Friday"},
             Phrase{"*/15 * * * 6", "every 15 minutes, on Saturdays"},
             Phrase{"0 3 1 * *", "at 03:00, on day 1 of the month"},
             Phrase{"0 * 31 * *", "every hour, on day 31 of the month"},
             Phrase{"  0   12  *  * * ", "at 12:00, every day"},
             Phrase{"@hourly", "every hour"},
             Phrase{"@daily", "at 00:00, every day"},
             Phrase{"@midnight", "at 00:00, every day"},
             Phrase{"@weekly", "at 00:00, on Sundays"},
             Phrase{"@monthly", "at 00:00, on day 1 of the month"},
             Phrase{"@yearly", "at 00:00, on 1 January"},
             Phrase{"@annually", "at 00:00, on 1 January"},
         })
        EXPECT_EQ(cron_in_words(expression), words) << expression;
}

TEST(cron_words, say_nothing_where_they_would_say_less_than_the_expression) {
    for (const char* expression : {
             "0,30 * * * *",    "0-10 * * * *", "*/7 * * * *",   "*/45 * * * *", "5 */2 * * *",
             "0 */5 * * *",     "* 3 * * *",    "0 9-17 * * *",  "0 9,17 * * *", "0 3 1 1 *",
             "0 3 * JAN *",     "0 3 1,15 * *", "0 3 */2 * *",   "0 3 L * *",    "0 3 1 * MON",
             "0 3 * * MON,FRI", "0 3 * * */2",  "0 3 * * MON#1", "0 3 * * 5L",   "30 0 3 * * *",
         })
        EXPECT_EQ(cron_in_words(expression), "") << expression;
}

TEST(cron_words, say_nothing_of_what_is_no_expression) {
    for (const char* expression : {"",
                                   " ",
                                   "*",
                                   "* * * *",
                                   "* * * * * * *",
                                   "60 * * * *",
                                   "0 24 * * *",
                                   "0 0 0 * *",
                                   "0 0 32 * *",
                                   "0 0 * * 8",
                                   "0 0 * * MON-",
                                   "0 0 * * -MON",
                                   "0 0 * * MON-FRI-SUN",
                                   "0 0 * * M",
                                   "-1 * * * *",
                                   "+1 * * * *",
                                   "1e1 * * * *",
                                   "0x1 * * * *",
                                   "*/0 * * * *",
                                   "*/ * * * *",
                                   "*/99999999999999999999 * * * *",
                                   "99999999999999999999 * * * *",
                                   "@reboot",
                                   "@DAILY ",
                                   "every day",
                                   "\xff * * * *",
                                   "0 12 * * *\x01"})
        EXPECT_EQ(cron_in_words(expression), "") << expression;
    EXPECT_EQ(cron_in_words(std::string(1'000'000, '*')), "");
    EXPECT_EQ(cron_in_words(std::string("0 12 * * *\0", 11)), "");
}

/// Whatever is put together: words are short text, and only of what can be fired.
TEST(cron_words, are_of_valid_expressions_only) {
    std::mt19937 random(7);
    constexpr std::string_view characters = "0123456789*/,-@ LW#?MONdaily\x7f";
    int told = 0;
    for (int n = 0; n < 20'000; ++n) {
        std::string expression;
        if (n % 2 == 0) {
            for (std::size_t i = 0; i < 1 + random() % 14; ++i)
                expression += characters[random() % characters.size()];
        } else {
            constexpr const char* fields[] = {"*",  "*/2", "0",   "1",   "7",
                                              "12", "60",  "MON", "1-5", "-"};
            for (int i = 0; i < 5; ++i)
                expression += std::string(fields[random() % std::size(fields)]) + " ";
        }
        const auto words = cron_in_words(expression);
        if (words.empty()) continue;
        ++told;
        EXPECT_TRUE(CronExpression::parse(expression)) << expression << ": " << words;
        EXPECT_LT(words.size(), 80U) << expression;
    }
    EXPECT_GT(told, 10);
}
