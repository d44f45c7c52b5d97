// Any text as a cron expression: what is read has slots, each later than the one before.
#include <cstdlib>
#include <rqxx/cron.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace rqxx;
    const auto cron =
        CronExpression::parse(std::string_view(reinterpret_cast<const char*>(data), size));
    if (!cron) return 0;
    (void)cron->croniter_text();
    static const TimeZone zones[] = {TimeZone(), TimeZone::find("Europe/Berlin").value(),
                                     TimeZone::find("Australia/Lord_Howe").value()};
    for (const TimeZone& zone : zones) {
        Slot last{std::chrono::sys_days(std::chrono::year(2026) / 9 / 30)};
        for (int i = 0; i < 10; ++i) {
            const auto next = cron->next(last, zone);
            if (!next || *next <= last) std::abort();
            last = *next;
        }
    }
    return 0;
}
