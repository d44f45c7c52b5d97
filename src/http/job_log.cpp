#include "http/job_log.hpp"

#include <algorithm>
#include <boost/json/object.hpp>
#include <rqxx/time.hpp>

namespace rqxx::http {

namespace json = boost::json;

void JobLog::add(std::vector<index::JobTransition> transitions) {
    const std::int64_t now = utc_now().time_since_epoch().count();
    for (auto& one : transitions) {
        if (one.since == 0) one.since = now;
        kept_.push_back(std::move(one));
        ++last_;
    }
    while (kept_.size() > most_kept)
        kept_.pop_front();
}

JobLog::News JobLog::after(std::uint64_t number,
                           const std::function<bool(std::string_view)>& sees) const {
    News news;
    news.last = last_;
    std::uint64_t at = last_;
    std::vector<const index::JobTransition*> newest;
    for (auto one = kept_.rbegin(); one != kept_.rend() && at > number; ++one, --at) {
        if (newest.size() == most_told) break;
        if (!sees || sees(one->queue)) newest.push_back(&*one);
    }
    if (at > number) news.dropped = sees ? std::nullopt : std::optional(at - number);
    for (const auto* one : newest)
        news.jobs.push_back(json::object{
            {"id", one->id},
            {"queue", one->queue},
            {"func_name", one->function.empty() ? json::value() : json::value(one->function)},
            {"status", one->status},
            {"at", format_utc(Timestamp{std::chrono::microseconds(one->since)})}});
    std::reverse(news.jobs.begin(), news.jobs.end());
    return news;
}

}  // namespace rqxx::http
