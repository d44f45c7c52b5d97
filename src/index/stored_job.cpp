#include "index/stored_job.hpp"

#include <algorithm>
#include <rqxx/codec.hpp>
#include <rqxx/job.hpp>

#include "base/utf8.hpp"

namespace rqxx::index {
namespace {

// Of untrusted payloads. Reading them must not hold up the others.
constexpr DecodeLimits limits{.max_bytes = 4u << 20, .max_depth = 100, .max_nodes = 100'000};
constexpr std::size_t longest_error = 300;
constexpr std::size_t most_tags = 16;
constexpr std::size_t longest_tag = 80;

std::int64_t time_of(const Reply& field) {
    const auto time = parse_utc(field.text);
    return time ? time->time_since_epoch().count() : 0;
}

std::vector<std::string> tags_of(const std::string& meta) {
    std::vector<std::string> tags;
    if (meta.empty()) return tags;
    const auto value = decode(meta, limits);
    if (!value || !value->is_dict()) return tags;
    const Value* list = value->find("tags");
    if (list == nullptr || !list->is_sequence()) return tags;
    for (const auto& tag : list->items()) {
        if (tags.size() == most_tags) break;
        if (!tag.is_string() || tag.as_text().empty()) continue;
        std::string text = short_text(tag.as_text(), longest_tag);
        if (std::ranges::find(tags, text) == tags.end()) tags.push_back(std::move(text));
    }
    return tags;
}

}  // namespace

std::string short_text(std::string_view text, std::size_t most) {
    if (text.size() > most) text = text.substr(0, whole_characters(text.substr(0, most)));
    std::string valid = to_valid_utf8(text);
    // A replaced byte is longer than it was.
    if (valid.size() > most)
        valid.resize(whole_characters(std::string_view(valid).substr(0, most)));
    return valid;
}

std::string error_text(const Reply& fields) {
    if (fields.elements.size() < 10 || fields.elements[9].text.empty()) return {};
    const std::string& stored = fields.elements[9].text;
    // A result entry has base64 of zlib, the hash of a job of old RQ zlib alone.
    const auto packed = base64_decode(stored);
    const auto text = zlib_decompress(packed ? *packed : stored, limits.max_bytes);
    if (text) return *text;
    return stored;
}

JobChange read_stored_job(std::string id, const Reply& fields, std::int64_t now) {
    JobChange change{std::move(id), std::nullopt};
    if (!fields.is_array() || fields.elements.size() < 10) return change;
    const auto& field = fields.elements;
    IndexedJob job;
    job.status = field[0].text.empty() ? std::string(status::created) : short_text(field[0].text);
    job.queue = short_text(field[1].text);
    job.created = time_of(field[2]);
    const std::int64_t started = time_of(field[3]);
    const bool running = job.status == status::started;
    job.ended = running ? 0 : time_of(field[4]);
    if (started != 0 && job.ended != 0)
        job.duration = std::max<std::int64_t>(job.ended - started, 0);
    job.since = running ? started : job.ended;
    job.worker = short_text(field[5].text);
    if (const auto call = decode_call(field[6].text, limits))
        job.function = short_text(call->func_name);
    job.tags = tags_of(field[7].text);
    constexpr std::int64_t step = 10'000'000;
    // Rounded: a moment later it would be another.
    if (field[8].integer > 0) job.expires = (now + field[8].integer * 1000) / step * step + step;
    const std::string error = error_text(fields);
    if (!error.empty()) {
        job.error = last_line(error, longest_error);
        if (job.status == status::failed) job.group = group_error(error);
    }
    change.job = std::move(job);
    return change;
}

}  // namespace rqxx::index
