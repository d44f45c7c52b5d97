#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <rqxx/dependencies.hpp>
#include <rqxx/monitor.hpp>

#include "ops/lua_scripts.hpp"

namespace rqxx {

namespace asio = boost::asio;
namespace json = boost::json;

namespace {
constexpr std::string_view most_jobs = "100";
constexpr std::string_view longest_description = "200";
}  // namespace

asio::awaitable<std::optional<DependencyGraph>> Monitor::dependencies(std::string id) {
    const Reply reply = co_await redis_->eval(
        lua::dependencies, {}, {id, std::string(most_jobs), std::string(longest_description)});
    const auto& parts = reply.as_array();
    if (parts.size() != 3) co_return std::nullopt;
    DependencyGraph graph;
    for (const auto& row : parts[0].as_array()) {
        const auto& node = row.as_array();
        graph.nodes.push_back(
            {node[0].text, node[1].text, node[2].text, node[3].text, node[4].as_integer() == 1});
    }
    for (const auto& row : parts[1].as_array()) {
        const auto& edge = row.as_array();
        graph.edges.emplace_back(edge[0].text, edge[1].text);
    }
    graph.complete = parts[2].as_integer() == 0;
    co_return graph;
}

json::object to_json(const DependencyGraph& graph) {
    json::array nodes, edges;
    const auto text_or_null = [](const std::string& text) {
        return text.empty() ? json::value() : to_json(Value(text));
    };
    for (const auto& node : graph.nodes)
        nodes.push_back({{"id", node.job_id},
                         {"status", text_or_null(node.status)},
                         {"queue", text_or_null(node.queue)},
                         {"description", text_or_null(node.description)},
                         {"missing", node.missing}});
    for (const auto& [from, to] : graph.edges)
        edges.push_back({{"from", from}, {"to", to}});
    return {{"nodes", std::move(nodes)}, {"edges", std::move(edges)}, {"complete", graph.complete}};
}

}  // namespace rqxx
