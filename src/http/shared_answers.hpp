#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstddef>
#include <exception>
#include <map>
#include <memory>
#include <rqxx/http/router.hpp>
#include <string>

namespace rqxx::http {

/// Answers to those who ask again and again: many open pages cost what one costs.
///
/// Who says `Cache-Control: max-age=1` with a GET takes an answer that another has got within the
/// last second, or is just getting; nobody else does. A handler that is asked for all sees of the
/// request only what the answers are told apart by: the target, `Accept`, `If-None-Match`, and what
/// of queues and data who asks may see. So nobody gets what he could not get himself.
/// Source: RFC 9111, 5.2.1.1 (max-age of requests). All on one executor.
class SharedAnswers {
public:
    static constexpr std::chrono::milliseconds oldest{1000};
    /// Beyond these, answers are not kept for others.
    static constexpr std::size_t most_answers = 256;
    static constexpr std::size_t most_bytes = std::size_t{8} << 20;

    /// Whether who asks takes an answer that is a little older.
    [[nodiscard]] static bool takes_shared(const Request& request) noexcept;
    /// @throws whatever the handler throws, to all who wait for it.
    boost::asio::awaitable<Response> get(Request request, const Handler& handler);
    /// What was read or is being read is told to nobody who asks from now on.
    void forget() { answers_.clear(); }

private:
    struct Answer;

    [[nodiscard]] bool make_room();
    boost::asio::awaitable<Response> ask(std::string key, Request request, const Handler& handler);
    void keep(const std::string& key, const std::shared_ptr<Answer>& answer);

    std::map<std::string, std::shared_ptr<Answer>> answers_;
};

}  // namespace rqxx::http
