#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "index/database.hpp"
#include "index/error_group.hpp"
#include "index/filter.hpp"

namespace rqxx::index {

/// What the index keeps of a job. Texts are valid UTF-8 and short; times are us since 1970, 0 for
/// none.
struct IndexedJob {
    std::string status, queue, function, worker;
    std::int64_t created = 0, ended = 0;
    std::int64_t duration = -1;  ///< us; -1: it has not run to its end.
    std::int64_t expires = 0;    ///< When Redis forgets it.
    std::int64_t since = 0;      ///< When it began or ended as its status says. Not kept.
    std::vector<std::string> tags;
    std::string error;  ///< Its last line.
    std::optional<ErrorGroup> group;
};

/// A job as it is now, or that it is gone.
struct JobChange {
    std::string id;
    std::optional<IndexedJob> job;
};

/// A job that has come into another status.
struct JobTransition {
    std::string id, queue, function;
    std::string status;       ///< `deleted` for one that is gone before its time.
    std::int64_t since = 0;   ///< When, as far as the job says; 0 where it does not.
    bool is_new = false;      ///< The index did not know it.
    std::int64_t newest = 0;  ///< The last time that a new one names.
};

/// A job as the index has it.
struct FoundJob {
    std::string id, status, queue, function, worker, error, group;
    std::vector<std::string> tags;
    JobPosition position;
};

struct FoundJobs {
    std::vector<FoundJob> jobs;
    /// Where the next page begins; nothing behind the last. A page may be short, even empty,
    /// before that: no more than a bounded number of jobs is looked at.
    std::optional<JobPosition> next;
    std::int64_t approx_total = 0;
    bool total_is_exact = false;
};

struct NameCount {
    std::string name;
    std::int64_t count = 0;
};

struct Failure {
    std::int64_t row = 0;
    ErrorGroup group;
    std::string title;  ///< The last line of the first error seen.
    std::int64_t count = 0, first_seen = 0, last_seen = 0;
    std::vector<NameCount> queues, functions, workers;  ///< The most frequent.
    std::vector<std::string> samples;                   ///< Ids of its newest jobs.
    std::vector<std::int64_t> hours;                    ///< Failed per hour, the oldest first.
};

struct FailureFilter {
    std::string queue, function;
    std::vector<std::string> within;  ///< Only queues of these patterns are told of; empty: all.
    bool by_count = false;            ///< Else the one seen last comes first.
};

/// Kinds of texts that jobs share.
enum class NameKind { status = 1, queue = 2, function = 3, worker = 4, tag = 5 };

/// The file that holds the index: written by one thread, with a `StoreReader` beside it.
class Store {
public:
    /// Opens or makes it; one that is damaged, or of another version, is made anew. Nobody has it
    /// open meanwhile.
    /// @throws Error  as all calls: `Errc::decode` where it is damaged, `Errc::io` where it cannot
    /// be read or written just now.
    explicit Store(std::filesystem::path file);

    /// One transaction. Jobs that are as they were cost a look-up. Returns those whose status, or
    /// the end they had, is another than before.
    std::vector<JobTransition> apply(const std::vector<JobChange>& changes);
    void set_meta(const std::string& key, const std::string& value);
    [[nodiscard]] std::string meta(const std::string& key);
    /// Forgets all jobs.
    void clear();

    [[nodiscard]] std::int64_t jobs();
    /// Ids in the order of their rows, behind `row`, which moves along; back to 0 at the end.
    [[nodiscard]] std::vector<std::string> some_ids(std::int64_t& row, std::size_t most);
    /// Ids of jobs that Redis should have forgotten by `now`.
    [[nodiscard]] std::vector<std::string> expired_ids(std::int64_t now, std::size_t most);

private:
    struct Row;
    struct Deltas;

    void open();
    void make_anew();
    void make_schema();
    std::optional<Row> find(const std::string& id);
    void remove(const Row& row);
    std::int64_t name_id(NameKind kind, const std::string& text);
    std::int64_t error_id(const std::string& text);
    std::int64_t group_row(const IndexedJob& job);
    void write(const std::string& id, const IndexedJob& job,
               std::vector<JobTransition>& transitions);
    std::string name(std::int64_t id);
    void count(const Row& row, std::int64_t change);
    void flush();

    std::filesystem::path file_;
    std::unique_ptr<Database> database_;
    std::shared_ptr<Deltas> deltas_;
    std::unordered_map<std::string, std::int64_t> names_;  ///< Of the transaction.
};

/// Questions to the index. Used by one thread at a time, another than the one that writes.
class StoreReader {
public:
    /// @throws Error `Errc::io` where there is no index yet.
    explicit StoreReader(const std::filesystem::path& file);

    [[nodiscard]] FoundJobs find(const JobFilter& filter, const std::optional<JobPosition>& after,
                                 std::size_t limit);
    [[nodiscard]] std::vector<NameCount> suggest(NameKind kind, const std::string& prefix,
                                                 std::size_t most);
    [[nodiscard]] std::vector<NameCount> suggest_groups(const std::string& prefix,
                                                        std::size_t most);
    /// Failures in their order behind `after`, without `samples` and the lists of names.
    [[nodiscard]] std::vector<Failure> failures(const FailureFilter& filter,
                                                const std::optional<JobPosition>& after,
                                                std::size_t limit);
    [[nodiscard]] std::optional<Failure> failure(const std::string& id);
    /// As if there were only the queues of `filter.within`: complete, every figure and text is of
    /// their jobs. Those are looked at from the newest on, a bounded number of them; counts and
    /// queues are exact. @param now  as for `complete`.
    [[nodiscard]] std::vector<Failure> failures_within(const FailureFilter& filter,
                                                       const std::optional<JobPosition>& after,
                                                       std::size_t limit, std::int64_t now);
    [[nodiscard]] std::optional<Failure> failure_within(const std::string& id,
                                                        const std::vector<std::string>& within,
                                                        std::int64_t now);
    /// Fills in what a list leaves out. @param now  us since 1970; the last hour ends with it.
    void complete(Failure& failure, std::int64_t now);
    [[nodiscard]] std::int64_t jobs();

private:
    struct Query;

    std::vector<std::int64_t> name_ids(NameKind kind, const std::vector<std::string>& patterns,
                                       std::int64_t& jobs);
    std::vector<std::int64_t> all_statuses();
    std::string name(std::int64_t id);
    std::vector<NameCount> names_of(std::int64_t group, NameKind kind);
    struct Part;
    void look_at(Part& part, const Statement& job, std::int64_t now);
    Failure part_of(std::int64_t group, const Part& part, const std::vector<std::int64_t>& queues);

    Database database_;
    std::unordered_map<std::int64_t, std::string> names_;  ///< Of one question.
};

}  // namespace rqxx::index
