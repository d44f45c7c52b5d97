#include "runtime/job_lines.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <rqxx/error.hpp>
#include <system_error>

#include "base/utf8.hpp"
#include "base/wildcard.hpp"
#include "ops/job_description.hpp"
#include "ops/new_job.hpp"

namespace rqxx::runtime {
namespace {

using ops::refuse;

constexpr std::size_t file_piece = 256 * 1024;

void apply_policy(ops::EnqueueRequest& job) {
    EnqueueOptions& options = job.options;
    if (job.queue != "default")
        refuse("queue", "the priority decides the queue; give only one of them");
    const auto& retry = options.retry;
    if (options.result_ttl || options.failure_ttl ||
        (retry && (!retry->intervals.empty() || retry->enqueue_at_front)))
        refuse("priority", "the policy sets TTLs and retries");
    OptimizedOptions wish;
    wish.priority = *job.priority;
    wish.timeout = options.timeout;
    if (retry) wish.retry = retry->max;
    const auto policy = resolve_policy(wish);
    job.queue = policy.queue;
    options.timeout = policy.timeout;
    options.result_ttl = policy.result_ttl;
    options.failure_ttl = policy.failure_ttl;
    options.retry = Retry{policy.retry, {}, false};
}

ops::EnqueueRequest read_line(std::string_view line, const std::string& default_queue) {
    auto job = ops::read_job(line, ops::JobForm::line, default_queue);
    if (job.at && job.in) refuse("at", "give either it or in");
    if (job.in) job.at = utc_now() + *job.in;
    if (job.priority) apply_policy(job);
    return job;
}

int open_nameless_file(std::filesystem::path folder) {
    if (folder.empty()) folder = std::filesystem::temp_directory_path();
    int file = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        std::string name = (folder / "rqxx-jobs-XXXXXX").native();
        file = ::mkostemp(name.data(), O_CLOEXEC);
        if (file >= 0) ::unlink(name.c_str());
    }
    if (file < 0)
        throw Error(Errc::io, fmt::format("cannot make a temporary file in {}: {}", folder.native(),
                                          std::generic_category().message(errno)));
    return file;
}

void append_number(std::string& to, std::uint32_t number) {
    char bytes[sizeof number];
    std::memcpy(bytes, &number, sizeof number);
    to.append(bytes, sizeof number);
}

std::uint32_t number_at(std::string_view from, std::size_t offset) {
    std::uint32_t number = 0;
    std::memcpy(&number, from.data() + offset, sizeof number);
    return number;
}

}  // namespace

JobLines::JobLines(Settings settings)
    : settings_(std::move(settings)), file_(open_nameless_file(settings_.folder)) {}

JobLines::~JobLines() {
    ::close(file_);
}

void JobLines::feed(std::string_view piece) {
    while (!piece.empty()) {
        const auto end = piece.find('\n');
        const std::string_view part = piece.substr(0, end);
        if (rest_.size() + part.size() > longest_line) {
            too_long_ = true;
            rest_.clear();
        }
        if (end == std::string_view::npos) {
            if (!too_long_) rest_ += part;
            return;
        }
        if (rest_.empty()) {
            line(part);
        } else {
            rest_ += part;
            line(rest_);
            rest_.clear();
        }
        too_long_ = false;
        piece.remove_prefix(end + 1);
    }
}

void JobLines::finish() {
    if (!rest_.empty() || too_long_) line(rest_);
    rest_ = {};
    flush();
    if (::lseek(file_, 0, SEEK_SET) != 0)
        throw Error(Errc::io, "cannot read the temporary file of a batch");
}

bool is_allowed(const std::vector<std::string>& functions, std::string_view function) {
    return functions.empty() || std::ranges::any_of(functions, [&](const auto& pattern) {
               return matches_wildcard(pattern, function);
           });
}

void JobLines::check_allowed(std::string_view field, const std::string& function) const {
    if (!is_allowed(settings_.functions, function))
        throw Error(Errc::usage, fmt::format("{}: \"{}\" may not be enqueued here", field,
                                             to_valid_utf8(function.substr(0, 80))));
}

void JobLines::line(std::string_view text) {
    ++lines_;
    if (!too_long_ && text.find_first_not_of(" \t\r") == std::string_view::npos) return;
    try {
        if (too_long_) throw Error(Errc::usage, "longer than 1 MB");
        auto job = read_line(text, settings_.queue);
        check_allowed("func", job.call.func_name);
        if (job.options.on_success) check_allowed("on_success", job.options.on_success->name);
        if (job.options.on_failure) check_allowed("on_failure", job.options.on_failure->name);
        if (job.options.on_stopped) check_allowed("on_stopped", job.options.on_stopped->name);
        order_.check(job.options);
        std::string id;
        const auto encoded = ops::encode_for_batch(settings_.batch, job.queue, settings_.serializer,
                                                   job.call, std::move(job.options), job.at, id);
        if (!acceptable()) return;
        append_number(unwritten_, static_cast<std::uint32_t>(encoded.arguments));
        append_number(unwritten_, static_cast<std::uint32_t>(encoded.bytes.size()));
        unwritten_ += encoded.bytes;
        ++jobs_;
    } catch (const Error& error) {
        if (error.code() != Errc::usage) throw;
        if (first_bad_.size() < most_bad_lines) first_bad_.push_back({lines_, error.message()});
        ++bad_;
    }
    if (unwritten_.size() >= file_piece) flush();
}

void JobLines::flush() {
    std::string_view left = unwritten_;
    while (!left.empty()) {
        const auto written = ::write(file_, left.data(), left.size());
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0)
            throw Error(Errc::io, fmt::format("cannot write the temporary file of a batch: {}",
                                              std::generic_category().message(errno)));
        left.remove_prefix(static_cast<std::size_t>(written));
    }
    unwritten_.clear();
}

std::vector<ops::EncodedJob> JobLines::read() {
    constexpr std::size_t head = 2 * sizeof(std::uint32_t);
    std::vector<ops::EncodedJob> jobs;
    std::size_t at = 0;
    for (;;) {
        const std::string_view ahead = std::string_view(unread_).substr(at);
        if (ahead.size() >= head &&
            ahead.size() - head >= number_at(ahead, sizeof(std::uint32_t))) {
            const std::size_t size = number_at(ahead, sizeof(std::uint32_t));
            jobs.push_back({number_at(ahead, 0), std::string(ahead.substr(head, size))});
            at += head + size;
            continue;
        }
        if (!jobs.empty()) break;
        const std::size_t before = unread_.size();
        unread_.resize(before + file_piece);
        const auto got = ::read(file_, unread_.data() + before, file_piece);
        unread_.resize(before + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) throw Error(Errc::io, "cannot read the temporary file of a batch");
        if (got == 0) break;
    }
    unread_.erase(0, at);
    return jobs;
}

}  // namespace rqxx::runtime
