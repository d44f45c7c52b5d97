#include <algorithm>
#include <boost/json/object.hpp>
#include <charconv>
#include <rqxx/audit.hpp>
#include <rqxx/value.hpp>

#include "base/utf8.hpp"
#include "base/wildcard.hpp"
#include "ops/keys.hpp"

namespace rqxx {

namespace asio = boost::asio;
namespace json = boost::json;

namespace {

constexpr std::size_t most_entries = 10'000;
constexpr std::size_t most_looked_at = 1000;

std::string bounded(std::string text) {
    if (text.size() > AuditLog::longest_text) {
        text.resize(AuditLog::longest_text);
        text += "…";
    }
    return to_valid_utf8(text);
}

Timestamp time_of(std::string_view id) {
    std::int64_t ms = 0;
    std::from_chars(id.data(), id.data() + id.size(), ms);
    return Timestamp(std::chrono::milliseconds(ms));
}

AuditEntry entry_of(const Reply& reply) {
    AuditEntry entry;
    entry.id = reply.as_array().at(0).as_text();
    entry.at = time_of(entry.id);
    const Reply& fields = reply.elements.at(1);
    if (!fields.is_array()) return entry;
    const std::pair<std::string_view, std::string*> known[] = {
        {"by", &entry.by},         {"via", &entry.via},         {"action", &entry.action},
        {"target", &entry.target}, {"outcome", &entry.outcome}, {"details", &entry.details}};
    for (const auto& [name, value] : fields.as_pairs())
        for (const auto& [field, member] : known)
            if (name == field) *member = value;
    return entry;
}

json::value text_or_null(const std::string& text) {
    return text.empty() ? json::value() : to_json(Value(text));
}

}  // namespace

json::object to_json(const AuditEntry& entry) {
    return {{"id", entry.id},
            {"at", format_utc(entry.at)},
            {"by", text_or_null(entry.by)},
            {"via", text_or_null(entry.via)},
            {"action", to_json(Value(entry.action))},
            {"target", text_or_null(entry.target)},
            {"outcome", to_json(Value(entry.outcome))},
            {"details", text_or_null(entry.details)}};
}

bool is_audit_place(std::string_view text) noexcept {
    const auto dash = text.find('-');
    const auto is_number = [](std::string_view part) {
        return !part.empty() && part.size() <= 18 &&
               part.find_first_not_of("0123456789") == std::string_view::npos;
    };
    return dash != std::string_view::npos && is_number(text.substr(0, dash)) &&
           is_number(text.substr(dash + 1));
}

asio::awaitable<void> AuditLog::write(AuditEntry entry) {
    co_await redis_->command("XADD", keys::audit, "MAXLEN", "~", most_entries, "*", "by",
                             bounded(entry.by), "via", entry.via, "action", entry.action, "target",
                             bounded(entry.target), "outcome", entry.outcome, "details",
                             bounded(entry.details));
}

asio::awaitable<AuditPage> AuditLog::read(AuditQuery query) {
    const bool filtered = !query.action.empty() || !query.by.empty();
    const std::size_t count = filtered ? most_looked_at : query.limit + 1;
    const Reply reply = co_await redis_->command("XREVRANGE", keys::audit,
                                                 query.cursor.empty() ? "+" : "(" + query.cursor,
                                                 "-", "COUNT", count);
    AuditPage page;
    std::string last;
    for (const auto& row : reply.as_array()) {
        AuditEntry entry = entry_of(row);
        if (page.entries.size() == query.limit) {
            page.next = last;
            co_return page;
        }
        last = entry.id;
        if (!query.action.empty() && !matches_wildcard(query.action, entry.action)) continue;
        if (!query.by.empty() && !matches_wildcard(query.by, entry.by)) continue;
        page.entries.push_back(std::move(entry));
    }
    if (reply.elements.size() == count) page.next = last;
    co_return page;
}

asio::awaitable<std::vector<AuditEntry>> AuditLog::after(std::string id, std::size_t limit) {
    const Reply reply =
        co_await redis_->command("XRANGE", keys::audit, "(" + id, "+", "COUNT", limit);
    std::vector<AuditEntry> entries;
    for (const auto& row : reply.as_array())
        entries.push_back(entry_of(row));
    co_return entries;
}

asio::awaitable<std::string> AuditLog::last() {
    const Reply reply = co_await redis_->command("XREVRANGE", keys::audit, "+", "-", "COUNT", 1);
    if (reply.as_array().empty()) co_return "0-0";
    co_return reply.elements[0].as_array().at(0).as_text();
}

}  // namespace rqxx
