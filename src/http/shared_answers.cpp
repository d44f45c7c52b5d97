#include "http/shared_answers.hpp"

#include <fmt/format.h>

#include <charconv>

#include "base/task_group.hpp"

namespace rqxx::http {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;

struct SharedAnswers::Answer {
    explicit Answer(asio::any_io_executor executor) : ended(std::move(executor)) {}

    Clock::time_point begun = Clock::now();
    bool over = false, cancelled = false;
    Response response;
    std::exception_ptr failure;
    Event ended;

    /// A stream has one reader.
    [[nodiscard]] bool can_be_told_again() const {
        return !cancelled && response.source == nullptr;
    }
};

namespace {

std::string_view trimmed(std::string_view text) {
    const auto begin = text.find_first_not_of(" \t");
    if (begin == std::string_view::npos) return {};
    return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

void add(std::string& key, std::string_view part) {
    key += fmt::format("{}:{} ", part.size(), part);
}

/// Without what an answer must not depend on.
Request anonymous(const Request& request) {
    Request plain;
    plain.method = request.method;
    plain.target = request.target;
    plain.path = request.path;
    plain.query = request.query;
    plain.path_params = request.path_params;
    for (const auto* name : {"Accept", "If-None-Match"})
        if (const auto value = request.header(name)) plain.headers.emplace_back(name, *value);
    if (request.principal) {
        Principal anybody;
        anybody.name.clear();
        anybody.scope = Scope::read;
        anybody.queues = request.principal->queues;
        anybody.redaction = request.principal->redaction;
        plain.principal = std::make_shared<const Principal>(std::move(anybody));
    }
    return plain;
}

/// Of all that `anonymous` leaves.
std::string key_of(const Request& request) {
    std::string key;
    add(key, request.target);
    for (const auto& [name, value] : request.headers) {
        add(key, name);
        add(key, value);
    }
    if (!request.principal) return key;
    const Redaction& redaction = request.principal->redaction;
    key += redaction.all ? "all " : "";
    for (const auto* names : {&request.principal->queues, &redaction.names}) {
        key += fmt::format("{} ", names->size());
        for (const auto& name : *names)
            add(key, name);
    }
    return key;
}

}  // namespace

bool SharedAnswers::takes_shared(const Request& request) noexcept {
    if (request.method != Method::get || request.header_count("Cache-Control") != 1) return false;
    std::string_view rest = *request.header("Cache-Control");
    bool takes = false;
    while (!rest.empty()) {
        const auto comma = std::min(rest.find(','), rest.size());
        const std::string_view directive = trimmed(rest.substr(0, comma));
        rest.remove_prefix(std::min(comma + 1, rest.size()));
        constexpr std::string_view name = "max-age=";
        if (directive == "no-cache" || directive == "no-store") return false;
        if (!directive.starts_with(name)) continue;
        unsigned seconds = 0;
        const auto digits = directive.substr(name.size());
        const auto end = digits.data() + digits.size();
        takes = std::from_chars(digits.data(), end, seconds).ptr == end && seconds > 0;
    }
    return takes;
}

bool SharedAnswers::make_room() {
    const auto now = Clock::now();
    std::erase_if(answers_, [&](const auto& entry) {
        return entry.second->over && now - entry.second->begun >= oldest;
    });
    return answers_.size() < most_answers;
}

void SharedAnswers::keep(const std::string& key, const std::shared_ptr<Answer>& answer) {
    const auto found = answers_.find(key);
    if (found == answers_.end() || found->second != answer) return;  // It is forgotten.
    std::size_t bytes = 0;
    for (const auto& [name, other] : answers_)
        bytes += name.size() + other->response.body.size();
    if (answer->failure || !answer->can_be_told_again() || bytes > most_bytes)
        answers_.erase(found);
}

asio::awaitable<Response> SharedAnswers::ask(std::string key, Request request,
                                             const Handler& handler) {
    const auto answer = std::make_shared<Answer>(co_await asio::this_coro::executor);
    answers_[key] = answer;
    try {
        answer->response = co_await handler(std::move(request));
    } catch (const Cancelled&) {
        answer->failure = std::current_exception();
        answer->cancelled = true;  // Only who asked here has gone.
    } catch (...) {
        answer->failure = std::current_exception();
    }
    answer->over = true;
    keep(key, answer);
    answer->ended.notify();
    if (answer->failure) std::rethrow_exception(answer->failure);
    co_return answer->response;
}

asio::awaitable<Response> SharedAnswers::get(Request request, const Handler& handler) {
    Request plain = anonymous(request);
    std::string key = key_of(plain);
    std::shared_ptr<Answer> answer;
    if (const auto found = answers_.find(key); found != answers_.end()) answer = found->second;
    if (!answer || (answer->over && Clock::now() - answer->begun >= oldest)) {
        if (make_room()) co_return co_await ask(std::move(key), std::move(plain), handler);
        co_return co_await handler(std::move(plain));
    }
    while (!answer->over)
        co_await answer->ended.wait();
    if (answer->failure && !answer->cancelled) std::rethrow_exception(answer->failure);
    if (!answer->can_be_told_again()) co_return co_await handler(std::move(plain));
    Response response = answer->response;
    const auto age =
        std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - answer->begun).count();
    response.headers.emplace_back("Age", std::to_string(age));
    co_return response;
}

}  // namespace rqxx::http
