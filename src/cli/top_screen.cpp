#include "cli/top_screen.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <cctype>
#include <cmath>
#include <optional>
#include <rqxx/time.hpp>

#include "base/utf8.hpp"
#include "cli/commands.hpp"

namespace rqxx::cli {

namespace json = boost::json;

namespace {

constexpr std::string_view dim = "\x1b[2m", bold = "\x1b[1m", red = "\x1b[31m", green = "\x1b[32m",
                           yellow = "\x1b[33m", inverse = "\x1b[7m", plain = "";
constexpr std::size_t longest_cell = 60;
constexpr std::array<std::string_view, 8> statuses{"",       "queued",   "started",   "finished",
                                                   "failed", "deferred", "scheduled", "canceled"};

/// Source: Unicode 15, EastAsianWidth.txt (W and F) and emoji; blocks, not single characters.
bool is_wide(std::uint32_t c) {
    constexpr std::pair<std::uint32_t, std::uint32_t> ranges[] = {
        {0x1100, 0x115f},   {0x231a, 0x231b},   {0x23e9, 0x23f3},   {0x25fd, 0x25fe},
        {0x2614, 0x2615},   {0x2648, 0x2653},   {0x26a1, 0x26a1},   {0x2705, 0x2705},
        {0x274c, 0x274c},   {0x2e80, 0x303e},   {0x3041, 0xa4cf},   {0xa960, 0xa97c},
        {0xac00, 0xd7a3},   {0xf900, 0xfaff},   {0xfe30, 0xfe6f},   {0xff00, 0xff60},
        {0xffe0, 0xffe6},   {0x16fe0, 0x18aff}, {0x1b000, 0x1b2ff}, {0x1f300, 0x1f64f},
        {0x1f680, 0x1f6ff}, {0x1f900, 0x1faff}, {0x20000, 0x3fffd}};
    return std::ranges::any_of(ranges,
                               [c](auto range) { return c >= range.first && c <= range.second; });
}

/// Characters without a column of their own. Source: Unicode 15, general categories Mn, Me and Cf.
bool has_no_column(std::uint32_t c) {
    constexpr std::pair<std::uint32_t, std::uint32_t> ranges[] = {
        {0xad, 0xad},     {0x300, 0x36f},   {0x483, 0x489},   {0x591, 0x5c7},   {0x600, 0x61c},
        {0x64b, 0x65f},   {0x6d6, 0x6ed},   {0x70f, 0x74a},   {0x7a6, 0x8ff},   {0x93a, 0x94d},
        {0xe31, 0xe31},   {0xe34, 0xe3a},   {0xe47, 0xe4e},   {0x180b, 0x180f}, {0x1ab0, 0x1aff},
        {0x1dc0, 0x1dff}, {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f}, {0x20d0, 0x20ff},
        {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f}, {0xfeff, 0xfeff}, {0xfff0, 0xfffb}, {0xe0000, 0xe0fff}};
    return std::ranges::any_of(ranges,
                               [c](auto range) { return c >= range.first && c <= range.second; });
}

std::size_t columns_of_character(std::uint32_t code) {
    return is_wide(code) ? 2 : 1;
}

const json::value* find(const json::object& object, std::string_view name) {
    return object.if_contains(name);
}

std::string text_of(const json::object& object, std::string_view name) {
    const auto* value = find(object, name);
    if (value == nullptr) return {};
    if (const auto* text = value->if_string()) return shown_text(*text);
    if (const auto* number = value->if_int64()) return std::to_string(*number);
    return {};
}

std::optional<double> number_of(const json::value* value) {
    if (value == nullptr) return std::nullopt;
    if (const auto* whole = value->if_int64()) return static_cast<double>(*whole);
    if (const auto* whole = value->if_uint64()) return static_cast<double>(*whole);
    if (const auto* real = value->if_double()) return *real;
    return std::nullopt;
}

std::string duration(double seconds) {
    if (seconds < 0) seconds = 0;
    if (seconds < 0.0995) return fmt::format("{:.1f} ms", seconds * 1000);
    if (seconds < 1) return fmt::format("{:.0f} ms", seconds * 1000);
    if (seconds < 60) return fmt::format("{:.1f} s", seconds);
    const auto whole = static_cast<std::int64_t>(seconds);
    if (seconds < 3600) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
    if (seconds < 86400) return fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
    return fmt::format("{}d{:02}h", whole / 86400, whole / 3600 % 24);
}

std::string short_number(double value) {
    if (value < 9.995) return fmt::format("{:.2g}", value);
    if (value < 1e5) return fmt::format("{:.0f}", value);
    if (value < 1e9) return fmt::format("{:.1f}M", value / 1e6);
    return fmt::format("{:.1f}G", value / 1e9);
}

std::string bytes_text(double bytes) {
    if (bytes < 1 << 20) return fmt::format("{:.0f} kB", bytes / 1024);
    if (bytes < 1 << 30) return fmt::format("{:.1f} MB", bytes / (1 << 20));
    return fmt::format("{:.2f} GB", bytes / (1 << 30));
}

/// How long ago; empty where there is no such time.
std::string age(const json::object& object, std::string_view name) {
    const auto* value = find(object, name);
    if (value == nullptr || !value->is_string()) return {};
    const auto time = parse_utc(std::string_view(value->get_string()));
    return time ? duration(Seconds(utc_now() - *time).count()) : std::string();
}

std::string lower(std::string_view text) {
    std::string result(text);
    std::ranges::transform(result, result.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return result;
}

std::string_view color_of(std::string_view word) {
    if (word == "failed" || word == "error" || word == "paused" || word == "canceled") return red;
    if (word == "started" || word == "busy") return green;
    if (word == "deferred" || word == "scheduled" || word == "suspended" || word == "stopped")
        return yellow;
    return plain;
}

/// Rows under headings. What does not fit is cut, the least important columns first.
struct Grid {
    struct Column {
        std::string title;
        bool number = false;
        bool elastic = false;  ///< Cut first.
    };
    std::vector<Column> columns;  ///< The last are the first to go.
    std::vector<std::vector<std::string>> rows;
    std::size_t marked = 0;  ///< The column whose word has a colour.

    [[nodiscard]] std::vector<std::size_t> widths(std::size_t most) const {
        std::vector<std::size_t> wide;
        for (std::size_t c = 0; c < columns.size(); ++c) {
            std::size_t width = columns[c].title.size();
            for (const auto& row : rows)
                width = std::max(width, columns_of(row[c]));
            wide.push_back(std::min(width, longest_cell));
        }
        const auto total = [&] {
            std::size_t sum = 0;
            for (const auto width : wide)
                sum += width + 2;
            return sum - std::min<std::size_t>(sum, 2);
        };
        for (std::size_t c = columns.size(); c-- > 0 && total() > most;) {
            if (!columns[c].elastic) continue;
            const std::size_t over = total() - most;
            wide[c] = wide[c] > over + 12 ? wide[c] - over : std::min<std::size_t>(wide[c], 12);
        }
        while (wide.size() > 1 && total() > most)
            wide.pop_back();
        return wide;
    }
};

Grid queues_grid(const json::object& stats) {
    Grid grid;
    grid.columns = {{"QUEUE", false, true}, {"QUEUED", true},   {"STARTED", true},
                    {"FAILED", true},       {"FINISHED", true}, {"SCHEDULED", true},
                    {"DEFERRED", true},     {"STATE"}};
    grid.marked = 7;
    const auto* queues = find(stats, "queues");
    if (queues == nullptr || !queues->is_array()) return grid;
    std::vector<const json::object*> sorted;
    for (const auto& queue : queues->get_array()) {
        if (queue.is_object()) sorted.push_back(&queue.get_object());
    }
    const auto waiting = [](const json::object* queue) {
        return number_of(find(*queue, "queued")).value_or(0);
    };
    std::ranges::stable_sort(sorted, [&](auto* a, auto* b) { return waiting(a) > waiting(b); });
    for (const auto* queue : sorted) {
        const auto* paused = find(*queue, "paused");
        const bool is_paused = paused != nullptr && paused->is_bool() && paused->get_bool();
        grid.rows.push_back({text_of(*queue, "queue_name"), text_of(*queue, "queued"),
                             text_of(*queue, "started"), text_of(*queue, "failed"),
                             text_of(*queue, "finished"), text_of(*queue, "scheduled"),
                             text_of(*queue, "deferred"), is_paused ? "paused" : ""});
    }
    return grid;
}

Grid workers_grid(const json::object& answer) {
    Grid grid;
    grid.columns = {{"WORKER", false, true},
                    {"STATE"},
                    {"RUNS", true},
                    {"QUEUES", false, true},
                    {"DONE", true},
                    {"FAILED", true},
                    {"HEARD", true},
                    {"HOST", false, true},
                    {"PID", true}};
    grid.marked = 1;
    const auto* workers = find(answer, "workers");
    if (workers == nullptr || !workers->is_array()) return grid;
    for (const auto& one : workers->get_array()) {
        if (!one.is_object()) continue;
        const auto& worker = one.get_object();
        std::string queues;
        if (const auto* names = find(worker, "queues"); names != nullptr && names->is_array()) {
            for (const auto& name : names->get_array()) {
                if (!name.is_string()) continue;
                queues += queues.empty() ? "" : ",";
                queues += shown_text(name.get_string());
            }
        }
        const auto* jobs = find(worker, "jobs");
        std::size_t running = jobs != nullptr && jobs->is_array() ? jobs->get_array().size() : 0;
        if (running == 0 && !text_of(worker, "current_job").empty()) running = 1;
        grid.rows.push_back({text_of(worker, "name"), text_of(worker, "state"),
                             std::to_string(running), std::move(queues),
                             text_of(worker, "successful_job_count"),
                             text_of(worker, "failed_job_count"), age(worker, "last_heartbeat"),
                             text_of(worker, "hostname"), text_of(worker, "pid")});
    }
    return grid;
}

Grid jobs_grid(const json::object& answer) {
    Grid grid;
    grid.columns = {{"STATUS"},
                    {"FUNCTION", false, true},
                    {"QUEUE", false, true},
                    {"AGE", true},
                    {"TOOK", true},
                    {"ID"},
                    {"WORKER", false, true}};
    const auto* jobs = find(answer, "jobs");
    if (jobs == nullptr || !jobs->is_array()) return grid;
    for (const auto& one : jobs->get_array()) {
        if (!one.is_object()) continue;
        const auto& job = one.get_object();
        std::string name = text_of(job, "func_name");
        if (name.empty()) name = text_of(job, "description");
        const auto took = number_of(find(job, "duration"));
        grid.rows.push_back({text_of(job, "status"), std::move(name), text_of(job, "queue"),
                             age(job, "created_at"), took ? duration(*took) : std::string(),
                             text_of(job, "id"), text_of(job, "worker_name")});
    }
    return grid;
}

std::optional<double> newest(const json::object& history, std::string_view field) {
    const auto* series = find(history, "series");
    if (series == nullptr || !series->is_object()) return std::nullopt;
    const auto* values = find(series->get_object(), field);
    if (values == nullptr || !values->is_array()) return std::nullopt;
    const auto& all = values->get_array();
    // A point or two may not have been taken yet.
    for (std::size_t back = 1; back <= std::min<std::size_t>(all.size(), 4); ++back) {
        if (const auto value = number_of(&all[all.size() - back])) return value;
    }
    return std::nullopt;
}

std::string sparkline(const json::object& history, std::string_view field, std::size_t points) {
    static constexpr std::array<std::string_view, 8> bars{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    const auto* series = find(history, "series");
    const auto* values =
        series != nullptr && series->is_object() ? find(series->get_object(), field) : nullptr;
    if (values == nullptr || !values->is_array() || values->get_array().empty()) return {};
    const auto& all = values->get_array();
    const std::size_t from = all.size() - std::min(all.size(), points);
    double most = 0;
    for (std::size_t i = from; i < all.size(); ++i)
        most = std::max(most, number_of(&all[i]).value_or(0));
    std::string line;
    for (std::size_t i = from; i < all.size(); ++i) {
        const auto value = number_of(&all[i]);
        if (!value) {
            line += ' ';
            continue;
        }
        const double level = most > 0 ? *value / most * 7 : 0;
        line += bars[static_cast<std::size_t>(std::clamp(std::llround(level), 0LL, 7LL))];
    }
    return line;
}

}  // namespace

std::size_t columns_of(std::string_view text) noexcept {
    std::size_t columns = 0;
    for (std::size_t at = 0; at < text.size();) {
        const auto character = next_utf8(text, at);
        columns += columns_of_character(character.code);
        at += character.length;
    }
    return columns;
}

std::string cut_to(std::string_view text, std::size_t columns) {
    if (columns_of(text) <= columns) return std::string(text);
    if (columns == 0) return {};
    std::size_t taken = 0, at = 0;
    while (at < text.size()) {
        const auto character = next_utf8(text, at);
        const std::size_t more = columns_of_character(character.code);
        if (taken + more > columns - 1) break;
        taken += more;
        at += character.length;
    }
    return std::string(text.substr(0, at)) + "…";
}

std::string shown_text(std::string_view text) {
    // More is never shown in a line.
    const std::string safe = printable(text.substr(0, 1000));
    std::string line;
    for (std::size_t at = 0; at < safe.size();) {
        const auto character = next_utf8(safe, at);
        const auto bytes = std::string_view(safe).substr(at, character.length);
        at += character.length;
        if (bytes == "\n" || bytes == "\t")
            line += ' ';
        else if (character.code == Utf8::invalid || has_no_column(character.code))
            line += "\xef\xbf\xbd";
        else
            line += bytes;
    }
    return line;
}

// ---- drawing -----------------------------------------------------------------------------------

/// Lines that are cut to the width; what is data has been made harmless before.
class TopScreen::Page {
public:
    Page(std::size_t width, bool colors) : width_(width), colors_(colors) {}

    struct Piece {
        std::string text;
        std::string_view style = plain;
    };
    void add(const std::vector<Piece>& pieces) {
        std::string line;
        std::size_t left = width_;
        for (const auto& piece : pieces) {
            if (left == 0) break;
            const std::string text = cut_to(piece.text, left);
            left -= columns_of(text);
            const bool styled = colors_ && !piece.style.empty();
            if (styled) line += piece.style;
            line += text;
            if (styled) line += "\x1b[0m";
        }
        lines_.push_back(std::move(line));
    }
    void add(std::string text, std::string_view style = plain) { add({{std::move(text), style}}); }
    void blank() { lines_.emplace_back(); }

    /// Rows from `first` on, at most `most`, under the headings.
    void add(const Grid& grid, std::size_t first, std::size_t most) {
        const auto widths = grid.widths(width_);
        std::vector<Piece> heading;
        for (std::size_t c = 0; c < widths.size(); ++c)
            heading.push_back({cell(grid.columns[c].title, widths[c], grid.columns[c].number,
                                    c + 1 == widths.size()),
                               bold});
        add(heading);
        for (std::size_t r = first; r < std::min(grid.rows.size(), first + most); ++r) {
            std::vector<Piece> row;
            for (std::size_t c = 0; c < widths.size(); ++c) {
                const std::string& text = grid.rows[r][c];
                row.push_back(
                    {cell(text, widths[c], grid.columns[c].number, c + 1 == widths.size()),
                     c == grid.marked ? color_of(text) : plain});
            }
            add(row);
        }
    }

    [[nodiscard]] std::size_t width() const { return width_; }
    [[nodiscard]] std::size_t size() const { return lines_.size(); }
    [[nodiscard]] std::vector<std::string> take() { return std::move(lines_); }

private:
    static std::string cell(const std::string& text, std::size_t width, bool number, bool last) {
        std::string cut = cut_to(text, width);
        const std::string gap(width - std::min(width, columns_of(cut)), ' ');
        cut = number ? gap + cut : last ? cut : cut + gap;
        return last ? cut : cut + "  ";
    }

    std::size_t width_;
    bool colors_;
    std::vector<std::string> lines_;
};

void TopScreen::head(Page& page) const {
    std::vector<Page::Piece> line{
        {"rqxx top", bold}, {"  " + source_, dim}, {"  " + now_.at, plain}};
    if (paused_)
        line.push_back({"  paused", yellow});
    else if (!now_.problem.empty())
        line.push_back({"  no answer", red});
    else
        line.push_back({"  live", green});
    page.add(line);
    std::vector<Page::Piece> tabs;
    static constexpr std::array<std::string_view, 4> names{"1 Overview", "2 Queues", "3 Workers",
                                                           "4 Jobs"};
    for (std::size_t i = 0; i < names.size(); ++i) {
        const bool here = static_cast<std::size_t>(view_) == i;
        tabs.push_back(
            {fmt::format(" {}{}", names[i], here && !colors_ ? "* " : " "), here ? inverse : dim});
    }
    tabs.push_back({"   ? help  q quit", dim});
    page.add(tabs);
    if (!now_.problem.empty()) page.add(shown_text(now_.problem), red);
}

void TopScreen::figures(Page& page) const {
    const auto stats = now_.answers.find("stats");
    if (stats != now_.answers.end()) {
        const auto* totals = find(stats->second, "totals");
        if (totals != nullptr && totals->is_object()) {
            std::vector<Page::Piece> line;
            for (const auto name :
                 {"queued", "started", "failed", "finished", "scheduled", "deferred", "canceled"}) {
                const std::string count = text_of(totals->get_object(), name);
                const bool marked = count != "0" && std::string_view(name) == "failed";
                line.push_back({std::string(name) + " ", dim});
                line.push_back({count + "  ", marked ? red : bold});
            }
            page.add(line);
        }
    }
    const auto found = now_.answers.find("history");
    if (found == now_.answers.end()) return;
    const auto& history = found->second;
    const auto shown = [&](std::string_view field, auto format) {
        const auto value = newest(history, field);
        return value ? format(*value) : std::string("-");
    };
    page.add({{"per second: ", dim},
              {shown("finished", short_number) + " finished  " + shown("failed", short_number) +
                   " failed  " + shown("retried", short_number) + " retried",
               plain},
              {"   wait p50 ", dim},
              {shown("wait_p50", duration), plain},
              {" p95 ", dim},
              {shown("wait_p95", duration), plain},
              {"   oldest ", dim},
              {shown("oldest_age", duration), plain}});
    page.add(
        {{"slots: ", dim},
         {shown("busy", short_number) + " of " + shown("slots", short_number) + " busy", plain},
         {"   Redis: ", dim},
         {shown("redis_ops", short_number) + " commands/s  " + shown("redis_memory", bytes_text),
          plain}});
    const std::string line =
        sparkline(history, "finished", page.width() - std::min<std::size_t>(page.width(), 12));
    if (!line.empty()) page.add({{"finished/s  ", dim}, {line, green}});
}

void TopScreen::alerts(Page& page, std::size_t most) const {
    const auto found = now_.answers.find("alerts");
    if (found == now_.answers.end()) return;
    const auto* list = find(found->second, "alerts");
    if (list == nullptr || !list->is_array()) return;
    std::size_t shown = 0;
    for (const auto& one : list->get_array()) {
        if (!one.is_object()) continue;
        if (shown == most) {
            page.add(fmt::format("! and {} more", list->get_array().size() - shown), yellow);
            break;
        }
        ++shown;
        const auto& alert = one.get_object();
        const std::string queue = text_of(alert, "queue");
        page.add("! " + (queue.empty() ? "" : queue + ": ") + text_of(alert, "text"),
                 text_of(alert, "level") == "error" ? red : yellow);
    }
}

namespace {

Grid filtered(Grid grid, const std::string& filter) {
    if (filter.empty()) return grid;
    const std::string wanted = lower(filter);
    std::erase_if(grid.rows, [&](const auto& row) {
        return std::ranges::none_of(
            row, [&](const auto& cell) { return lower(cell).find(wanted) != std::string::npos; });
    });
    return grid;
}

const json::object& answer_of(const TopAnswers& answers, const std::string& name) {
    static const json::object none;
    const auto found = answers.answers.find(name);
    return found == answers.answers.end() ? none : found->second;
}

}  // namespace

void TopScreen::overview(Page& page, std::size_t height) const {
    alerts(page, 3);
    const Grid queues = filtered(queues_grid(answer_of(now_, "stats")), filter_);
    const Grid workers = filtered(workers_grid(answer_of(now_, "workers")), filter_);
    const Grid jobs = filtered(jobs_grid(answer_of(now_, "jobs")), filter_);
    // Each gets a third of the room, and what others leave.
    const std::size_t room = height - std::min(height, page.size() + 6);
    const std::size_t third = std::max<std::size_t>(room / 3, 1);
    const std::size_t shown_queues = std::min(queues.rows.size(), third);
    const std::size_t shown_workers = std::min(
        workers.rows.size(), std::max<std::size_t>((room - std::min(room, shown_queues)) / 2, 1));
    const std::size_t left = room - std::min(room, shown_queues + shown_workers);
    const auto part = [&](const Grid& grid, std::size_t most, std::string_view none) {
        page.blank();
        if (grid.rows.empty())
            page.add(std::string(none), dim);
        else
            page.add(grid, 0, most);
    };
    part(queues, shown_queues,
         "No queues yet. The first job makes one: rqxx enqueue FUNC [ARG...]");
    part(workers, shown_workers, "No workers. Start one: rqxx worker");
    part(jobs, left, "No jobs.");
}

void TopScreen::list(Page& page, std::size_t height) {
    page.blank();
    const Grid all = view_ == View::queues    ? queues_grid(answer_of(now_, "stats"))
                     : view_ == View::workers ? workers_grid(answer_of(now_, "workers"))
                                              : jobs_grid(answer_of(now_, "jobs"));
    const std::size_t before = all.rows.size();
    const Grid grid = filtered(all, filter_);
    const std::size_t room = height - std::min(height, page.size() + 2);
    page_rows_ = std::max<std::size_t>(room, 1);
    std::size_t& first = first_[view_];
    first = std::min(first, grid.rows.size() - std::min(grid.rows.size(), page_rows_));
    if (grid.rows.empty())
        page.add(before == 0 ? "Nothing here." : "Nothing fits the filter.", dim);
    else
        page.add(grid, first, page_rows_);
}

void TopScreen::help(Page& page) {
    page.blank();
    for (const auto* line :
         {"1 2 3 4, Tab      overview, queues, workers, jobs", "Up Down           one row",
          "PgUp PgDn         one page", "Home End          the first, the last",
          "/                 show only rows with a text; Enter keeps it, Esc takes it away",
          "f                 jobs: only those of a status; again for the next",
          "p                 pause, go on", "?                 this help, and back",
          "q, Ctrl-C         quit"})
        page.add(std::string("  ") + line);
}

void TopScreen::foot(Page& page, std::size_t height) const {
    while (page.size() + 1 < height)
        page.blank();
    if (typing_) {
        page.add({{"/", bold}, {filter_, plain}, {"_", inverse}});
        return;
    }
    std::string text;
    if (!filter_.empty()) text += "filter: " + filter_ + "  ";
    if (view_ == View::jobs) text += "status: " + (status_.empty() ? "any" : status_) + " (f)  ";
    if (view_ != View::overview && !help_) {
        const auto found = first_.find(view_);
        if (found != first_.end() && found->second > 0)
            text += fmt::format("from row {}", found->second + 1);
    }
    page.add(text, dim);
}

std::vector<std::string> TopScreen::draw(std::size_t width, std::size_t height) {
    width = std::max<std::size_t>(width, 1);
    Page page(width, colors_);
    head(page);
    if (help_) {
        help(page);
    } else if (view_ == View::overview) {
        figures(page);
        overview(page, height);
    } else {
        list(page, height);
    }
    foot(page, height);
    auto lines = page.take();
    if (lines.size() > height) {
        // The last line is where one types.
        const std::string last = lines.back();
        lines.resize(height);
        if (height > 1 || typing_) lines.back() = last;
    }
    return lines;
}

std::vector<std::string> TopScreen::draw_all(std::size_t width) {
    Page page(width, colors_);
    std::vector<Page::Piece> line{
        {"rqxx top", bold}, {"  " + source_, dim}, {"  " + now_.at, plain}};
    page.add(line);
    figures(page);
    alerts(page, 100);
    for (const auto& grid :
         {queues_grid(answer_of(now_, "stats")), workers_grid(answer_of(now_, "workers")),
          jobs_grid(answer_of(now_, "jobs"))}) {
        page.blank();
        page.add(grid, 0, grid.rows.size());
    }
    return page.take();
}

// ---- keys --------------------------------------------------------------------------------------

bool TopScreen::press(Key key, std::string_view text) {
    if (typing_) {
        if (key == Key::enter) {
            typing_ = false;
        } else if (key == Key::escape) {
            typing_ = false;
            filter_.clear();
        } else if (key == Key::backspace) {
            while (!filter_.empty() && (static_cast<unsigned char>(filter_.back()) & 0xc0) == 0x80)
                filter_.pop_back();
            if (!filter_.empty()) filter_.pop_back();
        } else if (key == Key::text && filter_.size() < 100) {
            filter_ += shown_text(text);
        }
        return true;
    }
    std::size_t& first = first_[view_];
    const auto turn = [&](std::size_t by) {
        view_ = static_cast<View>((static_cast<std::size_t>(view_) + by) % 4);
    };
    switch (key) {
        case Key::text:
            if (text == "q" || text == "Q") return false;
            if (text.size() == 1 && text[0] >= '1' && text[0] <= '4')
                view_ = static_cast<View>(text[0] - '1');
            else if (text == "p")
                paused_ = !paused_;
            else if (text == "/")
                typing_ = true;
            else if (text == "k")
                first -= std::min<std::size_t>(first, 1);
            else if (text == "j")
                ++first;
            else if (text == "f" && view_ == View::jobs)
                status_ =
                    statuses.at(static_cast<std::size_t>(std::ranges::find(statuses, status_) -
                                                         statuses.begin() + 1) %
                                statuses.size());
            help_ = text == "?" || text == "h" ? !help_ : false;
            break;
        case Key::tab:
            turn(1);
            help_ = false;
            break;
        case Key::back_tab:
            turn(3);
            help_ = false;
            break;
        case Key::up:
            first -= std::min<std::size_t>(first, 1);
            break;
        case Key::down:
            ++first;
            break;
        case Key::page_up:
            first -= std::min(first, page_rows_);
            break;
        case Key::page_down:
            first += page_rows_;
            break;
        case Key::home:
            first = 0;
            break;
        case Key::end:
            first = 1'000'000;
            break;
        case Key::escape:
            help_ = false;
            filter_.clear();
            break;
        case Key::enter:
        case Key::backspace:
            break;
    }
    return true;
}

}  // namespace rqxx::cli
