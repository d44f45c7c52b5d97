#pragma once

#include <boost/json/fwd.hpp>
#include <string>
#include <utility>
#include <vector>

namespace rqxx {

/// The jobs around one: those that it depends on, those that wait for it, and so on.
struct DependencyGraph {
    struct Node {
        std::string job_id, status, queue, description;  ///< As stored; the last cut short.
        bool missing = false;                            ///< It is gone.
    };
    std::vector<Node> nodes;  ///< The job itself first, then by distance.
    /// Ids: who goes first, who waits for it.
    std::vector<std::pair<std::string, std::string>> edges;
    bool complete = true;  ///< Nothing was left out.
};

/// What the HTTP API says.
[[nodiscard]] boost::json::object to_json(const DependencyGraph& graph);

}  // namespace rqxx
