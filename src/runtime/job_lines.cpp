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
#include "ops/new_job.hpp"

namespace rqxx::runtime {
namespace {

using ops::refuse;

constexpr std::size_t file_piece = 256 * 1024;

std::string text_of(std::string_view name, const Value& value) {
    if (!value.is_string() || value.as_text().empty()) refuse(name, "a string is expected");
    return value.as_text();
}

std::int64_t integer_of(std::string_view name, const Value& value) {
    if (value.kind() != Value::Kind::integer) refuse(name, "an integer is expected");
    return value.as_integer();
}

bool flag_of(std::string_view name, const Value& value) {
    if (value.kind() != Value::Kind::boolean) refuse(name, "true or false is expected");
    return value.as_bool();
}

std::chrono::seconds duration_of(std::string_view name, const Value& value) {
    if (value.kind() == Value::Kind::integer) return std::chrono::seconds(value.as_integer());
    if (!value.is_string()) refuse(name, "seconds, or text such as \"5m\", are expected");
    const auto duration = parse_duration(value.as_text());
    if (!duration) refuse(name, duration.error().message);
    return *duration;
}

const Value::Items& list_of(std::string_view name, const Value& value) {
    if (value.kind() != Value::Kind::list) refuse(name, "a list is expected");
    return value.items();
}

std::vector<std::chrono::seconds> durations_of(std::string_view name, const Value& value) {
    std::vector<std::chrono::seconds> result;
    for (const auto& item : list_of(name, value))
        result.push_back(duration_of(name, item));
    return result;
}

/// NAME or NAME@DURATION.
Callback callback_of(std::string_view name, const Value& value) {
    const std::string text = text_of(name, value);
    const auto at = text.find('@');
    Callback result{text.substr(0, at), std::nullopt};
    if (at != std::string::npos) result.timeout = duration_of(name, Value(text.substr(at + 1)));
    return result;
}

Webhook webhook_of(const Value& value) {
    if (!value.is_dict()) refuse("webhooks", "objects are expected");
    Webhook hook;
    for (const auto& [key, item] : value.pairs()) {
        const std::string& name = key.as_text();
        if (name == "url")
            hook.url = text_of("webhooks", item);
        else if (name == "job_status")
            hook.job_status = text_of("webhooks", item);
        else if (name == "method")
            hook.method = text_of("webhooks", item);
        else if (name == "timeout")
            hook.timeout = duration_of("webhooks", item);
        else
            refuse("webhooks", fmt::format("unknown field \"{}\"", name.substr(0, 40)));
    }
    return hook;
}

Timestamp due_of(const Value& value) {
    const auto due = value.is_string() ? parse_time(value.as_text())
                     : value.kind() == Value::Kind::integer
                         ? parse_time(std::to_string(value.as_integer()))
                         : Parsed<Timestamp>(ParseError("a time is expected"));
    if (!due) refuse("at", due.error().message);
    return *due;
}

/// Reads one line; what belongs together is put together at its end.
class LineReader {
public:
    LineJob read(std::string_view line, const std::string& default_queue) {
        auto parsed = decode_json(line);
        if (!parsed)
            throw Error(Errc::usage, fmt::format("not JSON: {}", parsed.error().describe()));
        if (!parsed->is_dict()) throw Error(Errc::usage, "an object is expected");
        for (auto& [key, value] : parsed->pairs())
            field(key.as_text(), value);
        return finish(default_queue);
    }

private:
    void field(const std::string& name, Value& value) {
        if (value.is_none()) return;
        EnqueueOptions& options = job_.options;
        if (name == "func")
            job_.call.func_name = text_of(name, value);
        else if (name == "args")
            job_.call.args = Value::tuple(list_of(name, value));
        else if (name == "kwargs")
            job_.call.kwargs = dict_of(name, value);
        else if (name == "queue")
            job_.queue = text_of(name, value);
        else if (name == "priority")
            priority_ = text_of(name, value);
        else if (name == "timeout")
            options.timeout = duration_of(name, value);
        else if (name == "result_ttl")
            options.result_ttl = duration_of(name, value);
        else if (name == "failure_ttl")
            options.failure_ttl = duration_of(name, value);
        else if (name == "ttl")
            options.ttl = duration_of(name, value);
        else if (name == "retry")
            retry_ = integer_of(name, value);
        else if (name == "retry_intervals")
            retry_intervals_ = durations_of(name, value);
        else if (name == "retry_at_front")
            retry_at_front_ = flag_of(name, value);
        else if (name == "repeat")
            repeat_ = integer_of(name, value);
        else if (name == "repeat_intervals")
            repeat_intervals_ = durations_of(name, value);
        else if (name == "description")
            options.description = text_of(name, value);
        else if (name == "meta")
            options.meta = dict_of(name, value);
        else if (name == "at_front")
            options.at_front = flag_of(name, value);
        else if (name == "job_id")
            options.job_id = text_of(name, value);
        else if (name == "depends_on")
            depends_on(value);
        else if (name == "allow_failure")
            allow_failure_ = flag_of(name, value);
        else if (name == "on_success")
            options.on_success = callback_of(name, value);
        else if (name == "on_failure")
            options.on_failure = callback_of(name, value);
        else if (name == "on_stopped")
            options.on_stopped = callback_of(name, value);
        else if (name == "webhooks")
            for (const auto& hook : list_of(name, value))
                options.webhooks.push_back(webhook_of(hook));
        else if (name == "at")
            job_.due = due_of(value);
        else if (name == "in")
            in_ = duration_of(name, value);
        else
            refuse(name.substr(0, 40), "there is no such field");
    }

    static Value dict_of(std::string_view name, Value& value) {
        if (!value.is_dict()) refuse(name, "an object is expected");
        return std::move(value);
    }

    void depends_on(const Value& value) {
        job_.options.depends_on.emplace();
        for (const auto& id : list_of("depends_on", value))
            job_.options.depends_on->job_ids.push_back(text_of("depends_on", id));
    }

    LineJob finish(const std::string& default_queue) {
        EnqueueOptions& options = job_.options;
        if (job_.call.func_name.empty()) refuse("func", "is missing");
        if (retry_)
            options.retry = Retry{*retry_, retry_intervals_, retry_at_front_};
        else if (!retry_intervals_.empty() || retry_at_front_)
            refuse("retry", "how often is not said");
        if (repeat_)
            options.repeat = Repeat{*repeat_, repeat_intervals_};
        else if (!repeat_intervals_.empty())
            refuse("repeat", "how often is not said");
        if (options.depends_on)
            options.depends_on->allow_failure = allow_failure_;
        else if (allow_failure_)
            refuse("allow_failure", "goes with depends_on");
        if (job_.due && in_) refuse("at", "give either it or in");
        if (in_) {
            if (in_->count() < 0) refuse("in", "must not be negative");
            job_.due = utc_now() + *in_;
        }
        if (!priority_.empty()) apply_policy();
        if (job_.queue.empty()) job_.queue = default_queue;
        return std::move(job_);
    }

    void apply_policy() {
        EnqueueOptions& options = job_.options;
        if (!job_.queue.empty())
            refuse("queue", "the priority decides the queue; give only one of them");
        if (options.result_ttl || options.failure_ttl || !retry_intervals_.empty())
            refuse("priority", "the policy sets TTLs and retries");
        const auto priority = parse_priority(priority_);
        if (!priority) refuse("priority", priority.error().message);
        OptimizedOptions wish;
        wish.priority = *priority;
        wish.timeout = options.timeout;
        wish.retry = retry_;
        const auto policy = resolve_policy(wish);
        job_.queue = policy.queue;
        options.timeout = policy.timeout;
        options.result_ttl = policy.result_ttl;
        options.failure_ttl = policy.failure_ttl;
        options.retry = Retry{policy.retry, {}, false};
    }

    LineJob job_;
    std::string priority_;
    std::optional<std::int64_t> retry_, repeat_;
    std::vector<std::chrono::seconds> retry_intervals_, repeat_intervals_;
    bool retry_at_front_ = false, allow_failure_ = false;
    std::optional<std::chrono::seconds> in_;
};

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

LineJob parse_job_line(std::string_view line, const std::string& default_queue) {
    return LineReader().read(line, default_queue);
}

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

void JobLines::line(std::string_view text) {
    ++lines_;
    if (!too_long_ && text.find_first_not_of(" \t\r") == std::string_view::npos) return;
    try {
        if (too_long_) throw Error(Errc::usage, "longer than 1 MB");
        auto job = parse_job_line(text, settings_.queue);
        if (!is_allowed(settings_.functions, job.call.func_name))
            throw Error(Errc::usage, fmt::format("func: \"{}\" may not be enqueued here",
                                                 to_valid_utf8(job.call.func_name.substr(0, 80))));
        order_.check(job.options);
        std::string id;
        const auto encoded = ops::encode_for_batch(settings_.batch, job.queue, settings_.serializer,
                                                   job.call, std::move(job.options), job.due, id);
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
