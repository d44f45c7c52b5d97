#pragma once

#include <boost/json/object.hpp>
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

/// What `rqxx top` shows: answers of the API as lines of text, and what keys do. No terminal in it.
namespace rqxx::cli {

/// Columns that a text takes on a terminal. (Of control characters it knows nothing: see
/// `shown_text`.)
[[nodiscard]] std::size_t columns_of(std::string_view text) noexcept;
/// The beginning of a text that fits, with `…` where something is missing.
[[nodiscard]] std::string cut_to(std::string_view text, std::size_t columns);
/// Data as one harmless line: no control characters, nothing that turns the line around or takes no
/// room.
[[nodiscard]] std::string shown_text(std::string_view text);

/// Answers of the API by the name of their question.
struct TopAnswers {
    std::map<std::string, boost::json::object> answers;  ///< stats, workers, jobs, alerts, history.
    std::string problem;  ///< Why there are no newer ones; empty where these are new.
    std::string at;       ///< When these came, as a person reads it.
};

class TopScreen {
public:
    enum class Key {
        text,  ///< A character.
        enter,
        escape,
        backspace,
        tab,
        back_tab,
        up,
        down,
        page_up,
        page_down,
        home,
        end
    };
    enum class View { overview, queues, workers, jobs };

    TopScreen(std::string source, bool colors) : source_(std::move(source)), colors_(colors) {}

    /// False when the person wants to leave.
    [[nodiscard]] bool press(Key key, std::string_view text = {});
    void set(TopAnswers answers) { now_ = std::move(answers); }

    [[nodiscard]] bool paused() const noexcept { return paused_; }
    [[nodiscard]] View view() const noexcept { return view_; }
    /// The status of jobs that are shown; empty: any.
    [[nodiscard]] const std::string& status() const noexcept { return status_; }

    /// Lines as they are to be written, each of at most `width` columns and `height` of them.
    [[nodiscard]] std::vector<std::string> draw(std::size_t width, std::size_t height);
    /// All that there is, for a file.
    [[nodiscard]] std::vector<std::string> draw_all(std::size_t width);

private:
    class Page;
    void head(Page& page) const;
    void figures(Page& page) const;
    void alerts(Page& page, std::size_t most) const;
    void overview(Page& page, std::size_t height) const;
    void list(Page& page, std::size_t height);
    void foot(Page& page, std::size_t height) const;
    static void help(Page& page);

    std::string source_;
    bool colors_;
    TopAnswers now_;
    View view_ = View::overview;
    std::string status_;
    std::string filter_;
    bool typing_ = false;  ///< Keys go into the filter.
    bool paused_ = false;
    bool help_ = false;
    std::map<View, std::size_t> first_;  ///< Row at the top of each list.
    std::size_t page_rows_ = 10;         ///< Of the list as it was last drawn.
};

}  // namespace rqxx::cli
