#include <fmt/format.h>

#include <rqxx/worker.hpp>

namespace rqxx {

void HandlerRegistry::add_raw(std::string func_name, Handler handler) {
    if (func_name.empty()) throw Error(Errc::usage, "a handler needs the name of a function");
    const auto [it, added] = handlers_.emplace(std::move(func_name), std::move(handler));
    if (!added)
        throw Error(Errc::usage, fmt::format("there is a handler for {} already", it->first));
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
    names.reserve(handlers_.size());
    for (const auto& [name, handler] : handlers_)
        names.push_back(name);
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
