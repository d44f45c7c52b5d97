#pragma once

#include <memory>
#include <rqxx/application.hpp>

namespace evaluation {

/// Evaluates code reviews in the background: the first application on rqxx, and the example of how
/// to build one. Uses the public headers alone.
[[nodiscard]] std::unique_ptr<rqxx::Application> make_application(
    const rqxx::ApplicationSettings& settings);

}  // namespace evaluation
