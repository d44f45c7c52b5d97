#include "ops/doctor.hpp"

#include <algorithm>
#include <map>

#include "base/task_group.hpp"
#include "ops/doctor_evidence.hpp"
#include "ops/doctor_examination.hpp"

namespace rqxx::ops {

using namespace std::chrono_literals;

namespace doctor {

asio::awaitable<void> Examination::suspect() {
    co_await read_clock();
    co_await scan();
    co_await read_server();
    co_await read_jobs();
    co_await read_lists();
    co_await read_registries();
    co_await read_groups();
    co_await read_dependents();
    co_await read_executions();
    co_await read_workers();
    co_await read_locks();
    judge_jobs();
    co_await look_at_details();
    evidence_->remove_repeated();
}

asio::awaitable<void> Examination::confirm() {
    co_await look_at_lists();
    co_await evidence_->look(false);
    if (!evidence_->any_suspect()) co_return;
    options_->report("looking again", 0, 0);
    if (options_->recheck > 0ms) {
        Event pause(redis_->executor());
        co_await pause.wait(options_->recheck);
    }
    co_await look_at_lists();
    co_await evidence_->look(true);
}

}  // namespace doctor

bool DoctorOptions::concerns(std::string_view name) const noexcept {
    return queue.empty() || name == queue;
}

void DoctorOptions::report(std::string_view step, std::uint64_t done, std::uint64_t total) const {
    if (progress) progress({step, done, total});
}

bool DoctorReport::healthy() const noexcept {
    return std::ranges::none_of(findings, [](const Finding& finding) {
        return finding.left > 0 && finding.kind->severity != Severity::info;
    });
}

asio::awaitable<DoctorReport> examine(RedisClient& redis, DoctorOptions options) {
    DoctorReport report;
    std::map<std::string_view, Finding> findings;
    // What is mended may show something else: a job taken out of one place stands nowhere then.
    for (int round = 0; round < 5; ++round) {
        doctor::Evidence evidence(redis, options);
        doctor::Examination examination(redis, options, evidence);
        co_await examination.suspect();
        co_await examination.confirm();
        report.keys = examination.keys();
        report.jobs = examination.jobs();
        report.queues = examination.queues();
        for (const auto& kind : finding_kinds()) {
            auto now = evidence.found(kind.code);
            if (now.count == 0 && !findings.contains(kind.code)) continue;
            auto& finding = findings[kind.code];
            finding.kind = &kind;
            finding.left = now.count;
            finding.found = std::max(finding.found, finding.repaired + now.count);
            if (finding.examples.empty()) finding.examples = std::move(now.examples);
        }
        if (!options.repair) break;
        const auto mended = co_await evidence.mend();
        for (const auto& [code, count] : mended) {
            findings[code].repaired += count;
            findings[code].left -= std::min(count, findings[code].left);
        }
        if (mended.empty()) break;
    }
    for (const auto& kind : finding_kinds())
        if (const auto found = findings.find(kind.code); found != findings.end())
            report.findings.push_back(std::move(found->second));
    co_return report;
}

}  // namespace rqxx::ops
