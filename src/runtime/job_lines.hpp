#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <rqxx/batch.hpp>
#include <rqxx/codec.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "ops/batch_loader.hpp"

namespace rqxx::runtime {

/// Whether one of the patterns (`*` for any text) fits, or there are none.
[[nodiscard]] bool is_allowed(const std::vector<std::string>& functions, std::string_view function);

/// Jobs as text, a JSON object per line. They are checked as they come, and kept in a file without
/// a name until all of them are there, so that memory does not grow with them.
///
/// Everything here blocks, and may be used by one thread after another.
class JobLines {
public:
    struct Settings {
        std::string batch;
        std::string queue = "default";  ///< Of lines that name none.
        Serializer serializer = Serializer::pickle;
        bool partial = false;  ///< Bad lines are left out; else nothing is kept once there is one.
        std::vector<std::string>
            functions{};               ///< That may be enqueued, `*` for any text; empty: all.
        std::filesystem::path folder;  ///< Of the file; empty: the system's for temporary ones.
    };
    struct BadLine {
        std::uint64_t number = 0;
        std::string why;
    };
    static constexpr std::size_t longest_line = 1 << 20;
    static constexpr std::size_t most_bad_lines = 10;  ///< That are remembered.

    explicit JobLines(Settings settings);
    ~JobLines();
    JobLines(const JobLines&) = delete;
    JobLines& operator=(const JobLines&) = delete;

    /// The next part of the text, cut anywhere. @throws Error `Errc::io` for the file.
    void feed(std::string_view piece);
    /// The text has ended.
    void finish();
    [[nodiscard]] std::uint64_t jobs() const noexcept { return jobs_; }
    [[nodiscard]] std::uint64_t bad() const noexcept { return bad_; }
    [[nodiscard]] const std::vector<BadLine>& first_bad() const noexcept { return first_bad_; }
    /// Whether the jobs may be enqueued.
    [[nodiscard]] bool acceptable() const noexcept { return bad_ == 0 || settings_.partial; }

    /// The next jobs, some hundreds at a time; none at the end. Only after `finish`.
    [[nodiscard]] std::vector<ops::EncodedJob> read();

private:
    void line(std::string_view text);
    void check_allowed(std::string_view field, const std::string& function) const;
    void flush();

    Settings settings_;
    int file_ = -1;
    std::string rest_;       ///< Of a line that has not ended.
    bool too_long_ = false;  ///< The rest of that line is passed over.
    std::string unwritten_;
    std::string unread_;
    std::uint64_t lines_ = 0, jobs_ = 0, bad_ = 0;
    std::vector<BadLine> first_bad_;
    ops::DependencyOrder order_;
};

}  // namespace rqxx::runtime
