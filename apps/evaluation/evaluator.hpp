#pragma once

#include <boost/json/object.hpp>
#include <filesystem>
#include <rqxx/worker.hpp>
#include <string>

#include "evaluation/packages.hpp"
#include "evaluation/store.hpp"

namespace evaluation {

/// Evaluates a session: compares its comments with the package's golden truth, stores the report
/// and writes it to `artifacts/SESSION_report.json` and `.txt`.
///
/// Thread safety: any thread.
class Evaluator {
public:
    Evaluator(Store& store, const Packages& packages, std::filesystem::path artifacts)
        : store_(store), packages_(packages), artifacts_(std::move(artifacts)) {}

    /// {"session_id", "score", "grade", "tp", "fp", "fn"}.
    /// @throws rqxx::Error for an unknown session, or a package that cannot be read (names the
    /// file).
    boost::json::value evaluate(rqxx::JobContext& context, const std::string& session_id);

private:
    Store& store_;
    const Packages& packages_;
    std::filesystem::path artifacts_;
};

}  // namespace evaluation
