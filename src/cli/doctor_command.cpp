#include <fmt/format.h>
#include <unistd.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <chrono>
#include <rqxx/json.hpp>

#include "cli/commands.hpp"
#include "ops/doctor.hpp"

namespace rqxx::cli {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

/// The step at hand on a terminal, at most ten times a second.
class StepLine {
public:
    void operator()(const ops::DoctorProgress& progress) {
        if (!terminal_) return;
        const auto now = std::chrono::steady_clock::now();
        if (now < next_ && progress.step == step_) return;
        next_ = now + 100ms;
        step_ = progress.step;
        fmt::print(stderr, "\r\x1b[K{}", progress.step);
        if (progress.total > 0) fmt::print(stderr, ": {} of {}", progress.done, progress.total);
        std::fflush(stderr);
    }
    void end() const {
        if (terminal_) fmt::print(stderr, "\r\x1b[K");
    }

private:
    bool terminal_ = ::isatty(STDERR_FILENO) == 1;
    std::string_view step_;
    std::chrono::steady_clock::time_point next_{};
};

int color_of(ops::Severity severity) {
    return severity == ops::Severity::error ? 31 : severity == ops::Severity::warning ? 33 : 36;
}

std::string outcome(const ops::Finding& finding, bool repair) {
    if (!repair) return fmt::format("{}", finding.found);
    if (finding.left == 0)
        return finding.repaired == 0 ? fmt::format("{}, gone meanwhile", finding.found)
                                     : fmt::format("{} mended", finding.repaired);
    if (finding.repaired == 0) return fmt::format("{} left", finding.left);
    return fmt::format("{} mended, {} left", finding.repaired, finding.left);
}

void print(const ops::Finding& finding, bool repair) {
    const auto& kind = *finding.kind;
    fmt::print("{} {}: {}\n", colored(ops::to_string(kind.severity), color_of(kind.severity)),
               colored(kind.code, 1), outcome(finding, repair));
    fmt::print("  what: {}\n  why: {}\n", kind.what, kind.why);
    fmt::print("  --repair: {}\n",
               kind.repair.empty() ? std::string_view("changes nothing here") : kind.repair);
    for (const auto& example : finding.examples) {
        fmt::print("  - {}", printable(example.subject));
        if (!example.key.empty()) fmt::print(" in {}", printable(example.key));
        if (!example.note.empty()) fmt::print(": {}", printable(example.note));
        fmt::print("\n");
    }
}

void print(const ops::DoctorReport& report, bool repair) {
    for (const auto& finding : report.findings)
        print(finding, repair);
    fmt::print("{} {} in {} {}: ", report.jobs, report.jobs == 1 ? "job" : "jobs", report.queues,
               report.queues == 1 ? "queue" : "queues");
    if (report.healthy())
        fmt::print("healthy\n");
    else if (repair)
        fmt::print("not all could be mended\n");
    else
        fmt::print("not healthy; --repair mends what can be mended\n");
}

json::object to_json(const ops::Finding& finding) {
    json::array examples;
    for (const auto& example : finding.examples)
        examples.push_back({{"subject", printable(example.subject)},
                            {"key", printable(example.key)},
                            {"note", printable(example.note)}});
    const auto& kind = *finding.kind;
    return {{"code", kind.code},
            {"severity", ops::to_string(kind.severity)},
            {"found", finding.found},
            {"repaired", finding.repaired},
            {"left", finding.left},
            {"what", kind.what},
            {"why", kind.why},
            {"repair", kind.repair},
            {"examples", std::move(examples)}};
}

void print_json(const ops::DoctorReport& report, bool repair) {
    json::array findings;
    for (const auto& finding : report.findings)
        findings.push_back(to_json(finding));
    fmt::print("{}\n", to_text(json::object{{"healthy", report.healthy()},
                                            {"repair", repair},
                                            {"keys", report.keys},
                                            {"jobs", report.jobs},
                                            {"queues", report.queues},
                                            {"findings", std::move(findings)}}));
}

}  // namespace

int doctor(const CommonOptions& common, const DoctorCommandOptions& options) {
    StepLine line;
    ops::DoctorOptions examination;
    examination.repair = options.repair;
    examination.queue = options.queue;
    examination.examples = options.limit;
    examination.recheck = duration_option("--recheck", options.recheck);
    examination.progress = std::ref(line);
    return with_redis(common, [&](RedisClient& redis, Logger&) -> asio::awaitable<int> {
        const auto report = co_await ops::examine(redis, examination);
        line.end();
        if (options.json)
            print_json(report, options.repair);
        else
            print(report, options.repair);
        co_return report.healthy() ? 0 : 1;
    });
}

}  // namespace rqxx::cli
