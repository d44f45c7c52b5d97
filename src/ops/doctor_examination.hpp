#pragma once

#include <array>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <rqxx/redis/client.hpp>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "ops/doctor.hpp"
#include "ops/doctor_evidence.hpp"
#include "ops/doctor_job_state.hpp"

namespace rqxx::ops::doctor {

/// The text behind a prefix of a key.
inline std::string behind(std::string_view key, std::string_view prefix) {
    return std::string(key.substr(prefix.size()));
}

/// One pass over the data.
///
/// `evidence` gets what it finds, and outlives it.
class Examination {
public:
    Examination(RedisClient& redis, const DoctorOptions& options, Evidence& evidence)
        : redis_(&redis), options_(&options), evidence_(&evidence) {}

    /// Reads everything once, for what may be wrong.
    asio::awaitable<void> suspect();
    /// Looks closer, and again after a while: only what is the same at both looks stays.
    asio::awaitable<void> confirm();

    [[nodiscard]] std::uint64_t keys() const noexcept { return keys_; }
    [[nodiscard]] std::uint64_t jobs() const noexcept { return job_count_; }
    [[nodiscard]] std::uint64_t queues() const noexcept { return lists_.size(); }

private:
    // Which keys there are: doctor_keys.cpp.
    asio::awaitable<void> scan();
    void sort_key(const std::string& key);
    void sort_job_key(std::string rest);
    void sort_queue_key(const std::string& key);

    // The server, workers and schedulers: doctor_processes.cpp.
    asio::awaitable<void> read_clock();
    asio::awaitable<void> read_server();
    asio::awaitable<void> read_workers();
    asio::awaitable<void> read_locks();

    // The jobs' hashes, and what is kept beside them: doctor_jobs.cpp.
    /// Null if there is no job of this id.
    JobState* job(const std::string& id);
    std::uint32_t queue_index(const std::string& name);
    [[nodiscard]] const std::string& queue_of(const JobState& state) const {
        return queue_names_[state.queue];
    }
    struct JobBatch;
    JobBatch next_batch(Jobs::iterator& at);
    asio::awaitable<void> read_jobs();
    void read_job(Jobs::value_type& entry, const Reply* replies);
    asio::awaitable<void> read_dependents();
    asio::awaitable<void> read_executions();
    /// What stands nowhere, or may take up room for nothing.
    void judge_jobs();
    /// What only the script can tell, of all jobs that it may be true of.
    asio::awaitable<void> look_at_details();

    // Where jobs are listed: doctor_entries.cpp.
    using Places = std::vector<std::pair<std::string, std::string>>;  ///< Key, id.
    asio::awaitable<void> read_lists();
    void read_list_entry(const std::string& key, const std::string& queue, const std::string& id,
                         Places& elsewhere);
    asio::awaitable<void> read_registries();
    void read_entry(const RegistryKind& kind, const std::string& key, const std::string& queue,
                    const std::string& id, double score);
    void read_wip_entry(const std::string& key, const std::string& queue, const std::string& member,
                        double score);
    asio::awaitable<void> read_groups();
    /// A script cannot search a long list: so it is read once more for those that are not on a
    /// list, or twice.
    asio::awaitable<void> look_at_lists();

    RedisClient* redis_;
    const DoctorOptions* options_;
    Evidence* evidence_;
    double now_ = 0;
    std::uint64_t keys_ = 0, job_count_ = 0;
    Jobs jobs_;
    std::vector<std::string> queue_names_{""};
    std::unordered_map<std::string, std::uint32_t> queue_indices_;
    std::set<std::string> lists_, intermediates_, scratch_lists_, marks_, registered_;
    std::array<std::set<std::string>, registry_kinds.size()> registries_;
    std::set<std::string> groups_, worker_sets_, worker_records_, maintenance_locks_,
        scheduler_locks_, limits_, held_back_, lapsed_leases_;
    std::unordered_set<std::string> dependents_, dependencies_, executions_, execution_records_;
};

}  // namespace rqxx::ops::doctor
