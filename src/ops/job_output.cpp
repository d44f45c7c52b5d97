#include <fmt/format.h>

#include <array>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <charconv>
#include <rqxx/monitor.hpp>

#include "base/utf8.hpp"
#include "ops/keys.hpp"
#include "ops/lua_scripts.hpp"

namespace rqxx {

namespace asio = boost::asio;
namespace json = boost::json;

namespace {

constexpr std::size_t most_entries = 2000;

template <class T>
bool read_number(std::string_view text, T& number) {
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, number);
    return !text.empty() && parsed.ec == std::errc{} && parsed.ptr == end;
}

Timestamp time_of(std::string_view entry_id) {
    // Ids may be written by anybody; a Timestamp is in microseconds.
    constexpr std::uint64_t latest = 253402300799999;  // 9999-12-31
    std::uint64_t milliseconds = 0;
    read_number(entry_id.substr(0, entry_id.find('-')), milliseconds);
    return Timestamp{
        std::chrono::milliseconds(static_cast<std::int64_t>(std::min(milliseconds, latest)))};
}

/// What is no piece of output is passed over: the stream is open to anybody.
void add_entry(JobOutput& output, const Reply& row) {
    const auto& cells = row.as_array();
    OutputEntry entry;
    entry.id = cells.at(0).text;
    entry.at = time_of(entry.id);
    const std::string& field = cells.at(1).text;
    if (field == "x") {
        entry.stream = OutputEntry::Stream::cut;
        if (!read_number(cells.at(2).text, entry.missing_bytes)) return;
        output.entries.push_back(std::move(entry));
        return;
    }
    if (field != "1" && field != "2") return;
    entry.stream = field == "1" ? OutputEntry::Stream::out : OutputEntry::Stream::err;
    entry.text = cells.at(2).text;
    const auto missing = cells.at(3).as_integer();
    output.entries.push_back(std::move(entry));
    if (missing <= 0) return;
    OutputEntry rest;
    rest.id = output.entries.back().id;
    rest.at = output.entries.back().at;
    rest.stream = OutputEntry::Stream::cut;
    rest.missing_bytes = static_cast<std::uint64_t>(missing);
    output.entries.push_back(std::move(rest));
}

/// The characters that each stream has begun and not ended yet.
class Begun {
public:
    void see(const OutputEntry& entry) {
        if (entry.stream == OutputEntry::Stream::cut) {
            for (auto& text : texts_)
                text.clear();
            return;
        }
        std::string& text = of(entry);
        text += entry.text;
        text.erase(0, whole_characters(text));
    }
    [[nodiscard]] std::string& of(const OutputEntry& entry) {
        return texts_[static_cast<std::size_t>(entry.stream)];
    }
    [[nodiscard]] bool nothing() const { return texts_[0].empty() && texts_[1].empty(); }

private:
    std::array<std::string, 2> texts_;
};

/// Leaves the end of an answer for the next one where a character is not complete, so that it is
/// shown whole. Not for long: what is no text at all must get through.
void leave_split_character(JobOutput& output) {
    constexpr std::size_t most_left = 4;
    Begun begun;
    std::size_t whole = 0;  // Of the entries.
    for (std::size_t i = 0; i < output.entries.size(); ++i) {
        begun.see(output.entries[i]);
        if (begun.nothing()) whole = i + 1;
    }
    if (output.entries.size() - whole > most_left || (output.more && whole == 0)) return;
    output.entries.resize(whole);
    output.next_after = whole == 0 ? output.after : output.entries.back().id;
}

/// Puts characters that are split between entries of a stream into the later one.
void join_characters(std::vector<OutputEntry>& entries) {
    std::array<OutputEntry*, 2> before{};
    for (auto& entry : entries) {
        if (entry.stream == OutputEntry::Stream::cut) {
            before = {};
            continue;
        }
        OutputEntry*& earlier = before[static_cast<std::size_t>(entry.stream)];
        if (earlier != nullptr) {
            const std::size_t whole = whole_characters(earlier->text);
            entry.text.insert(0, earlier->text, whole);
            earlier->text.resize(whole);
        }
        earlier = &entry;
    }
}

bool is_final(std::string_view job_status) {
    return job_status == status::finished || job_status == status::failed ||
           job_status == status::stopped || job_status == status::canceled;
}

}  // namespace

bool is_output_place(std::string_view text) noexcept {
    // Of a stream's entry: `<milliseconds>-<number>`, the second part optional.
    std::uint64_t number = 0;
    const auto dash = text.find('-');
    return text.empty() ||
           (read_number(text.substr(0, dash), number) &&
            (dash == std::string_view::npos || read_number(text.substr(dash + 1), number)));
}

std::string_view to_string(OutputEntry::Stream stream) noexcept {
    switch (stream) {
        case OutputEntry::Stream::out:
            return "stdout";
        case OutputEntry::Stream::err:
            return "stderr";
        case OutputEntry::Stream::cut:
            break;
    }
    return "cut";
}

asio::awaitable<std::optional<JobOutput>> Monitor::job_output(std::string id, OutputQuery query) {
    if (!is_output_place(query.after))
        throw Error(Errc::usage, fmt::format("after: \"{}\" is not the id of an entry",
                                             to_valid_utf8(query.after.substr(0, 40))));
    if (query.after.empty()) query.after = "0-0";
    const Reply reply = co_await redis_->eval(
        lua::job_output, {keys::job(id), keys::outputs(id)},
        {id, query.execution, query.after, std::to_string(query.max_bytes),
         std::to_string(most_entries), std::to_string(OutputQuery::most_bytes)});
    const auto& cells = reply.as_array();
    if (cells.at(0).is_nil()) co_return std::nullopt;
    JobOutput output;
    output.job_id = std::move(id);
    output.job_status = cells[0].as_text();
    for (const auto& execution : cells.at(1).as_array())
        output.executions.push_back(execution.text);
    output.execution = cells.at(2).as_text();
    const auto state = cells.at(3).as_integer();
    output.more = cells.at(5).as_integer() == 1;
    if (state == 2) output.found = JobOutput::Found::no_such_execution;
    if (state == 3) output.found = JobOutput::Found::several;
    output.after = output.next_after = std::move(query.after);
    for (const auto& row : cells.at(4).as_array()) {
        output.next_after = row.as_array().at(0).text;
        add_entry(output, row);
    }
    output.ended = state == 4 ? is_final(output.job_status) : state == 0 && !output.more;
    co_return output;
}

json::object to_json(JobOutput output) {
    if (!output.ended) leave_split_character(output);
    join_characters(output.entries);
    json::array executions, entries;
    for (const auto& execution : output.executions)
        executions.emplace_back(to_valid_utf8(execution));
    for (const auto& entry : output.entries) {
        json::object one{
            {"id", entry.id}, {"at", format_utc(entry.at)}, {"stream", to_string(entry.stream)}};
        if (entry.stream == OutputEntry::Stream::cut)
            one["missing_bytes"] = entry.missing_bytes;
        else
            one["text"] = to_valid_utf8(entry.text);
        entries.push_back(std::move(one));
    }
    return {{"job_id", output.job_id},
            {"job_status", to_valid_utf8(output.job_status)},
            {"execution", output.execution.empty() ? json::value(nullptr)
                                                   : json::value(to_valid_utf8(output.execution))},
            {"executions", std::move(executions)},
            {"entries", std::move(entries)},
            {"next_after", output.next_after},
            {"ended", output.ended}};
}

}  // namespace rqxx
