#include "evaluation/packages.hpp"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <fstream>
#include <iterator>
#include <rqxx/error.hpp>

namespace evaluation {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using rqxx::Errc;
using rqxx::Error;

constexpr std::uintmax_t max_file_size = 16u << 20;
constexpr std::size_t max_text = 10'000;
constexpr std::int64_t max_line = 100'000'000;

bool is_plain_name(std::string_view name) {
    return !name.empty() && name.size() <= 200 && name.front() != '.' &&
           std::all_of(name.begin(), name.end(), [](unsigned char c) {
               return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
           });
}

std::string text_field(const json::object& object, std::string_view name, bool may_be_empty) {
    const auto* value = object.if_contains(name);
    if (value == nullptr) throw Error(Errc::usage, fmt::format("{} is missing", name));
    if (!value->is_string()) throw Error(Errc::usage, fmt::format("{} must be a string", name));
    std::string text(value->get_string());
    if (text.empty() && !may_be_empty)
        throw Error(Errc::usage, fmt::format("{} must not be empty", name));
    if (text.size() > max_text)
        throw Error(Errc::usage, fmt::format("{} is longer than {} bytes", name, max_text));
    return text;
}

}  // namespace

Remark parse_remark(const json::value& value) {
    if (!value.is_object()) throw Error(Errc::usage, "must be an object");
    const json::object& object = value.get_object();
    Remark remark;
    remark.file = text_field(object, "file", false);
    remark.type = text_field(object, "type", false);
    remark.text = text_field(object, "text", true);
    const auto* range = object.if_contains("line_range");
    if (range == nullptr) throw Error(Errc::usage, "line_range is missing");
    const bool numbers = range->is_array() && range->get_array().size() == 2 &&
                         range->get_array()[0].is_int64() && range->get_array()[1].is_int64();
    if (numbers) {
        remark.from = range->get_array()[0].get_int64();
        remark.to = range->get_array()[1].get_int64();
    }
    if (!numbers || remark.from < 1 || remark.to < remark.from || remark.to > max_line)
        throw Error(Errc::usage, "line_range must be [from, to] with 1 <= from <= to");
    return remark;
}

json::object to_json(const Remark& remark) {
    return {{"file", remark.file},
            {"line_range", json::array{remark.from, remark.to}},
            {"type", remark.type},
            {"text", remark.text}};
}

fs::path Packages::truth_file(std::string_view name) const {
    return directory_ / name / "golden_truth.json";
}

bool Packages::has(std::string_view name) const {
    std::error_code ignored;
    return is_plain_name(name) && fs::is_regular_file(truth_file(name), ignored);
}

std::vector<Remark> Packages::golden_truth(std::string_view name) const {
    if (!is_plain_name(name))
        throw Error(Errc::io,
                    fmt::format("\"{}\" is not the name of a package", name.substr(0, 80)));
    const fs::path file = truth_file(name);
    std::error_code error;
    const auto size = fs::file_size(file, error);
    if (error) throw Error(Errc::io, fmt::format("{}: {}", file.native(), error.message()));
    if (size > max_file_size)
        throw Error(Errc::decode,
                    fmt::format("{}: larger than {} bytes", file.native(), max_file_size));
    std::ifstream in(file, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    if (!in && !in.eof()) throw Error(Errc::io, fmt::format("{}: cannot be read", file.native()));

    boost::system::error_code bad;
    const json::value list = json::parse(text, bad);
    if (bad)
        throw Error(Errc::decode,
                    fmt::format("{}: not valid JSON: {}", file.native(), bad.message()));
    if (!list.is_array())
        throw Error(Errc::decode, fmt::format("{}: must be a list", file.native()));
    std::vector<Remark> defects;
    for (const auto& entry : list.get_array()) {
        try {
            defects.push_back(parse_remark(entry));
        } catch (const Error& reason) {
            throw Error(Errc::decode, fmt::format("{}: entry {}: {}", file.native(),
                                                  defects.size() + 1, reason.message()));
        }
    }
    return defects;
}

void Packages::install(std::string_view name, std::string_view golden_truth) const {
    if (has(name)) return;
    fs::create_directories(directory_ / name);
    std::ofstream(truth_file(name), std::ios::binary) << golden_truth;
}

}  // namespace evaluation
