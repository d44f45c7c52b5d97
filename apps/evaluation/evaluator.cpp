#include "evaluation/evaluator.hpp"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <fstream>
#include <rqxx/error.hpp>
#include <rqxx/json.hpp>
#include <rqxx/time.hpp>

#include "evaluation/scoring.hpp"

namespace evaluation {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using rqxx::Errc;
using rqxx::Error;

std::string place(const Remark& remark) {
    return remark.from == remark.to ? fmt::format("{}:{}", remark.file, remark.from)
                                    : fmt::format("{}:{}-{}", remark.file, remark.from, remark.to);
}

json::object report_json(const Session& session, const Score& score,
                         const std::vector<Remark>& comments, const std::vector<Remark>& defects) {
    json::array matched, false_positives, missed;
    for (const auto& match : score.matches)
        matched.push_back({{"comment", to_json(comments[match.comment])},
                           {"defect", to_json(defects[match.defect])},
                           {"overlap", match.overlap}});
    for (const auto index : score.unmatched)
        false_positives.push_back(to_json(comments[index]));
    for (const auto index : score.missed)
        missed.push_back(to_json(defects[index]));
    return {{"session_id", session.id},
            {"candidate_id", session.candidate_id},
            {"mr_package", session.mr_package},
            {"score", score.value()},
            {"grade", score.grade()},
            {"tp", score.tp()},
            {"fp", score.fp()},
            {"fn", score.fn()},
            {"matched", std::move(matched)},
            {"false_positives", std::move(false_positives)},
            {"missed", std::move(missed)},
            {"generated_at", rqxx::format_utc(rqxx::utc_now())}};
}

std::string report_text(const Session& session, const Score& score,
                        const std::vector<Remark>& comments, const std::vector<Remark>& defects) {
    std::string text = fmt::format(
        "Session {} of {}, package {}\n\nScore {:.2f}: {}\n{} found, {} false, {} missed\n",
        session.id, session.candidate_id, session.mr_package, score.value(), score.grade(),
        score.tp(), score.fp(), score.fn());
    if (!score.matches.empty()) text += "\nFound\n";
    for (const auto& match : score.matches) {
        text += fmt::format("  [{}] {}  {}\n      comment at {}: {}\n", defects[match.defect].type,
                            place(defects[match.defect]), defects[match.defect].text,
                            place(comments[match.comment]), comments[match.comment].text);
    }
    if (!score.missed.empty()) text += "\nMissed\n";
    for (const auto index : score.missed)
        text += fmt::format("  [{}] {}  {}\n", defects[index].type, place(defects[index]),
                            defects[index].text);
    if (!score.unmatched.empty()) text += "\nComments that match no defect\n";
    for (const auto index : score.unmatched)
        text += fmt::format("  [{}] {}  {}\n", comments[index].type, place(comments[index]),
                            comments[index].text);
    return text;
}

/// Readers see the old file or the new one, never a half.
void write_file(const fs::path& file, const std::string& content) {
    const fs::path temporary = file.native() + ".new";
    std::ofstream out(temporary, std::ios::binary);
    out << content;
    out.close();
    if (!out) throw Error(Errc::io, fmt::format("cannot write {}", file.native()));
    fs::rename(temporary, file);
}

}  // namespace

json::value Evaluator::evaluate(rqxx::JobContext& context, const std::string& session_id) {
    const auto session = store_.session(session_id);
    if (!session)
        throw Error(Errc::not_found,
                    fmt::format("session {} does not exist", session_id.substr(0, 80)));
    context.progress(0.1, "reading");
    const auto stored = store_.comments(session_id);
    const std::vector<Remark> comments(stored.begin(), stored.end());
    const std::vector<Remark> defects = packages_.golden_truth(session->mr_package);
    if (context.stop_token().stop_requested())
        throw Error(Errc::timeout, "stopped before the evaluation");

    context.progress(0.4, "matching");
    const Score result = score(comments, defects);
    context.progress(0.8, "writing the report");
    const std::string report = rqxx::to_text(report_json(*session, result, comments, defects));
    fs::create_directories(artifacts_);
    write_file(artifacts_ / (session->id + "_report.json"), report + "\n");
    write_file(artifacts_ / (session->id + "_report.txt"),
               report_text(*session, result, comments, defects));
    store_.add_report(session->id, result.value(), std::string(result.grade()), report);
    return json::object{{"session_id", session->id}, {"score", result.value()},
                        {"grade", result.grade()},   {"tp", result.tp()},
                        {"fp", result.fp()},         {"fn", result.fn()}};
}

}  // namespace evaluation
