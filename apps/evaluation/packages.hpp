#pragma once

#include <boost/json/fwd.hpp>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "evaluation/remark.hpp"

namespace evaluation {

/// A remark from JSON: {"file", "line_range": [from, to], "type", "text"}.
/// @throws rqxx::Error `Errc::usage`: what is wrong, naming the field.
[[nodiscard]] Remark parse_remark(const boost::json::value& json);
[[nodiscard]] boost::json::object to_json(const Remark& remark);

/// The merge-request packages: a folder each, with `golden_truth.json`.
class Packages {
public:
    explicit Packages(std::filesystem::path directory) : directory_(std::move(directory)) {}

    /// Whether a package of this name is there. A name that is no plain folder name is not.
    [[nodiscard]] bool has(std::string_view name) const;
    /// The known defects. @throws rqxx::Error `Errc::io` or `Errc::decode` naming the file and the
    /// reason.
    [[nodiscard]] std::vector<Remark> golden_truth(std::string_view name) const;
    /// Writes a package that is not there yet.
    void install(std::string_view name, std::string_view golden_truth) const;
    [[nodiscard]] const std::filesystem::path& directory() const noexcept { return directory_; }

private:
    [[nodiscard]] std::filesystem::path truth_file(std::string_view name) const;
    std::filesystem::path directory_;
};

}  // namespace evaluation
