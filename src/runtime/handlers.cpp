#include <fmt/format.h>

#include <algorithm>
#include <rqxx/worker.hpp>
#include <stdexcept>

#include "runtime/aggregation.hpp"

namespace rqxx {

void AggregatedCall::set_error(const std::string& message) {
    set_error(std::make_exception_ptr(std::runtime_error(message)));
}

void AggregatedCall::set(Value result, std::exception_ptr error) {
    answer_ = Answer{std::move(result), std::move(error), std::chrono::steady_clock::now()};
}

void HandlerRegistry::check_new(const std::string& func_name) const {
    if (func_name.empty()) throw Error(Errc::usage, "a handler needs the name of a function");
    if (handlers_.contains(func_name) || aggregated_.contains(func_name))
        throw Error(Errc::usage, fmt::format("there is a handler for {} already", func_name));
}

void HandlerRegistry::add_raw(std::string func_name, Handler handler) {
    check_new(func_name);
    handlers_.emplace(std::move(func_name), std::move(handler));
}

void HandlerRegistry::add_aggregated(std::string func_name, Aggregation most,
                                     AggregatedHandler handler) {
    check_new(func_name);
    runtime::check_aggregation(most, func_name);
    aggregated_.emplace(std::move(func_name), Aggregated{most, std::move(handler)});
}

const HandlerRegistry::Aggregated* HandlerRegistry::find_aggregated(
    std::string_view func_name) const noexcept {
    const auto it = aggregated_.find(func_name);
    return it == aggregated_.end() ? nullptr : &it->second;
}

const HandlerRegistry::Handler* HandlerRegistry::find(std::string_view func_name) const noexcept {
    const auto it = handlers_.find(func_name);
    return it == handlers_.end() ? nullptr : &it->second;
}

void HandlerRegistry::add_callback(std::string name, CallbackFunction function) {
    if (name.empty()) throw Error(Errc::usage, "a callback needs a name");
    const auto [it, added] = callbacks_.emplace(std::move(name), std::move(function));
    if (!added) throw Error(Errc::usage, fmt::format("there is a callback {} already", it->first));
}

const HandlerRegistry::CallbackFunction* HandlerRegistry::find_callback(
    std::string_view name) const noexcept {
    const auto it = callbacks_.find(name);
    return it == callbacks_.end() ? nullptr : &it->second;
}

std::vector<std::string> HandlerRegistry::names() const {
    std::vector<std::string> names;
    names.reserve(handlers_.size() + aggregated_.size());
    for (const auto& [name, handler] : handlers_)
        names.push_back(name);
    for (const auto& [name, handler] : aggregated_)
        names.push_back(name);
    std::ranges::sort(names);
    return names;
}

Parsed<Strategy> parse_strategy(std::string_view text) noexcept {
    if (text == "strict" || text == "default") return Strategy::strict;
    if (text == "round-robin" || text == "round_robin") return Strategy::round_robin;
    if (text == "random") return Strategy::random;
    if (text == "weighted") return Strategy::weighted;
    return ParseError(
        fmt::format("\"{}\" is not one of strict, round-robin, random", text.substr(0, 40)),
        "strategy");
}

namespace detail {

void bad_argument(std::size_t index, const std::string& reason) {
    throw Error(Errc::usage, fmt::format("argument {}: {}", index + 1, reason));
}

void wrong_argument_count(std::size_t expected, std::size_t got) {
    throw Error(Errc::usage, fmt::format("{} argument{} expected, {} given", expected,
                                         expected == 1 ? "" : "s", got));
}

void refuse_kwargs(const Call& call) {
    if (!call.kwargs.is_dict() || !call.kwargs.pairs().empty())
        throw Error(Errc::usage, "keyword arguments are not accepted by this handler");
}

}  // namespace detail
}  // namespace rqxx
