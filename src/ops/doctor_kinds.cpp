#include "ops/doctor.hpp"

namespace rqxx::ops {

namespace {

constexpr auto info = Severity::info;
constexpr auto warning = Severity::warning;
constexpr auto error = Severity::error;

// The same rows are in docs/operations.md; tests/cli/test_doctor.py compares the codes.
constexpr FindingKind kinds[] = {
    // The server
    {"old-redis", error, "Redis is older than 6.2",
     "rqxx and RQ's single-queue workers need commands that it does not have", ""},
    {"eviction-policy", error, "maxmemory-policy is not noeviction",
     "when memory runs out, Redis deletes jobs that nobody has run", ""},
    {"no-persistence", info, "Redis writes neither an append-only file nor snapshots",
     "a restart of Redis loses every job", ""},
    {"suspended", info, "workers are suspended", "no job is started until `rq resume`", ""},
    // Sets and records that every process reads
    {"wrong-type", error, "a key of RQ holds another type than RQ's",
     "whoever uses it fails, from one queue to all monitors", ""},
    {"foreign-member", error, "rq:queues or rq:workers has a member that is no key of its kind",
     "Queue.all(), Worker.all() and `rq info` raise for everybody", "removes the member"},
    {"gone-worker", info, "a worker is listed whose record has expired",
     "it died; RQ's maintenance takes it off the list too", "removes it from the list"},
    {"bad-worker", error, "a worker's record has a field that Python cannot read",
     "Worker.all() and `rq info` raise for everybody", "removes the field"},
    {"stale-lock", warning, "the lock of a queue's maintenance is held for minutes",
     "RQ's maintenance of the queue is off until it expires (15 min)", "deletes the lock"},
    {"dead-scheduler", warning, "a scheduler's lock has an owner that is gone",
     "scheduled jobs of the queue wait until it expires", "deletes the lock"},
    {"unregistered-queue", warning, "a queue with jobs is not in rq:queues",
     "monitors and maintenance do not see it", "adds it"},
    {"no-worker", info, "a queue has jobs and no worker listens to it", "they wait", ""},
    // The job's hash
    {"unknown-status", error, "a job has a status that RQ does not know",
     "Python workers exit when they load it", ""},
    {"bad-field", error, "a job has a field that Python cannot read",
     "Python workers exit when they load it, one after the other",
     "writes the number out where it has a unit, else empties the field"},
    {"no-data", warning, "a job's hash has no data",
     "RQ treats it as missing; it is a remnant of a deleted or expired job", ""},
    {"no-origin", warning, "a job does not say which queue it is of",
     "its registries cannot be told", ""},
    {"missing-group", error, "a job names a group that does not exist",
     "deleting it raises, and with result_ttl 0 its success becomes a failure",
     "makes the group again, with the job in it"},
    {"old-fields", info, "a job has its result or error in its hash, as RQ 1.x writes it",
     "RQ 2.x reads the results stream instead", ""},
    // Entries
    {"bad-id", error, "a list or registry has an entry that is no job id",
     "Python workers and schedulers exit when they meet it", "removes the entry"},
    {"ghost-id", warning, "a list or registry has the id of a job that does not exist",
     "it is counted and shown, and nothing can be done with it", "removes the entry"},
    {"expired-entry", info, "an expired job is still in a registry, for more than an hour",
     "no maintenance runs for the queue", "removes the entry"},
    {"ghost-in-group", info, "a group has the id of a job that does not exist",
     "RQ's maintenance of groups does not run", "removes the id"},
    {"malformed-wip", error, "a started registry has an entry with more than one colon",
     "every cleanup of the queue and `rq info` raise", "removes the entry"},
    {"mixed-versions", warning, "a started registry has a bare job id, as RQ 1.x writes it",
     "1.x and 2.x take each other's running jobs for abandoned", ""},
    {"stray-wip", error, "a job that does not run is in the started registry",
     "when the entry lapses the job is failed or run again", "removes the entry"},
    {"orphaned-execution", warning, "a job that does not run has an execution",
     "it is shown as running, and deleting it may raise", "removes the execution"},
    {"broken-execution", error, "a running job's execution has no record, or half of one",
     "deleting or canceling the job raises", "completes the record"},
    {"dead-started", error, "a job is started and no living worker runs it", "nobody ends it",
     "retries it, puts it back once, or fails it, as recovery does"},
    {"stray-entry", warning, "a job is listed where its status does not belong",
     "it is counted twice, shown in the wrong place, or run again", "removes the entry"},
    {"duplicate-id", warning, "a job is on a queue twice", "it is run twice",
     "removes the later entry"},
    {"compact-leftover", error, "a compaction of a queue ended half-way",
     "nobody reads the list that the jobs are on", "puts them back on their queues, in order"},
    {"stuck-intermediate", error, "a job was taken from a queue and not started",
     "RQ's maintenance fails it, or runs it again",
     "puts it back where it is queued, else removes the entry"},
    {"stale-mark", info, "a job left the intermediate queue and its mark stayed",
     "should it come there again within a day, RQ's maintenance judges it by the old mark",
     "deletes the mark"},
    // Dependencies
    {"missing-dependencies", error, "a deferred job is not listed with what it waits for",
     "it is released too early, or never", "lists it"},
    {"stray-dependent", error, "a job is listed as waiting that does not say so",
     "RQ records the success of the job it waits for as a failure",
     "removes it, or completes it where it is deferred"},
    {"stale-dependent", info, "a job that does not exist is listed as waiting", "it is garbage",
     "removes it"},
    {"orphaned-dependent", error, "a job is deferred though all it waits for is done",
     "nobody releases it", "puts it on its queue"},
    {"waits-for-gone", warning, "a job waits for one that does not exist",
     "nobody releases it; whether it may run is yours to say", ""},
    {"waits-for-failed", info, "a job waits for one that failed or was canceled",
     "it stays deferred unless that one is run again", ""},
    // Jobs that stand nowhere
    {"lost-queued", error, "a job is queued and on no queue", "nobody runs it",
     "puts it at the front of its queue"},
    {"lost-deferred", error, "a job is deferred and in no registry",
     "no monitor shows it, and nobody may release it", "puts it back, or on its queue"},
    {"lost-scheduled", error, "a job is scheduled and in no registry", "nobody runs it",
     "schedules it for now"},
    {"lost-limited", error, "a job is rate_limited and does not wait for its limit",
     "nobody runs it", "lets it wait for its limit again, from the end"},
    {"lost-ended", warning, "a job has ended and is in no registry",
     "no monitor shows it, and it may be kept for ever", "puts it back into its registry"},
    // What takes up room
    {"leaked-slot", warning, "a rate limit counts a job that is neither queued nor started",
     "jobs of that key wait for a place that is free", "frees the slot, and queues the next job"},
    {"bad-result", warning, "a result cannot be read by Python",
     "Job.latest_result() and return_value() raise", "deletes the entry"},
    {"leftover-results", warning, "results without a time limit of a job that does not exist",
     "they take up memory for ever", "deletes them"},
    {"leftover-set", info, "dependencies of a job that does not exist",
     "they take up memory for ever", "deletes them"},
    {"large-registry", warning, "a registry that nobody cleans has over 100 000 jobs",
     "they take up memory for ever: see `rqxx job delete --queue --status`", ""},
    {"kept-for-ever", info, "failed jobs are kept for ever (failure_ttl -1)",
     "they take up memory until somebody deletes them", ""},
};

}  // namespace

std::string_view to_string(Severity severity) noexcept {
    return severity == Severity::error     ? "error"
           : severity == Severity::warning ? "warning"
                                           : "info";
}

std::span<const FindingKind> finding_kinds() noexcept {
    return kinds;
}

}  // namespace rqxx::ops
