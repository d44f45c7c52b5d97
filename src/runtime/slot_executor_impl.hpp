#pragma once

#include <signal.h>

#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/task_group.hpp"
#include "runtime/frames.hpp"
#include "runtime/output_pipes.hpp"
#include "runtime/slot_executor.hpp"

namespace rqxx::runtime {

/// Until when an interpreter has imported what it was told to.
inline constexpr auto longest_start = std::chrono::seconds(60);

[[nodiscard]] RunOutcome stopped_outcome();

/// The zygote, its slots and what waits for one; all on one executor. Three files have its parts.
struct SlotExecutor::Impl : std::enable_shared_from_this<Impl> {
    struct Slot {
        Slot(const boost::asio::any_io_executor& executor, std::uint64_t number_, int fd)
            : number(number_), socket(executor, boost::asio::local::stream_protocol(), fd) {}
        std::uint64_t number;
        boost::asio::local::stream_protocol::socket socket;
        pid_t pid = 0;              ///< 0 until the zygote has told.
        std::optional<int> status;  ///< As waitpid has it, once it has ended.
        /// What it runs: those of its call that have not ended.
        std::vector<std::shared_ptr<Execution>> jobs;
        bool in_stopped_callback = false;
        bool last_job = false;    ///< Takes no other after the one it has.
        bool doomed = false;      ///< Is being killed; takes no job any more.
        bool not_forked = false;  ///< The zygote could not.
        StopReason killed_for = StopReason::none;
        std::deque<std::string> outbox;       ///< Frames; the first is being written.
        std::shared_ptr<OutputPipes> output;  ///< Null where it is not captured.
        std::uint64_t jobs_begun = 0;
        bool first_call = true;  ///< It has not begun its second.
        std::chrono::steady_clock::time_point born = std::chrono::steady_clock::now();
        std::uint64_t first_rss = 0;       ///< Bytes, at its first job.
        double cpu_before = 0;             ///< Used by earlier jobs.
        std::optional<ops::Usage> used;    ///< In all, once it has ended.
        std::optional<RunOutcome> excess;  ///< It was killed for what it used.

        /// With what it has started. At once, or as soon as its `pid` is known.
        void kill() {
            doomed = true;
            if (pid == 0 || status) return;
            ::kill(-pid, SIGKILL);  // Not its group yet in its very first moment.
            ::kill(pid, SIGKILL);
        }
    };

    Impl(boost::asio::any_io_executor executor_, ZygoteKind kind_, ProcessTools tools_,
         Logger& log_, Events events_)
        : executor(std::move(executor_)),
          kind(std::move(kind_)),
          tools(std::move(tools_)),
          log(log_),
          events(std::move(events_)),
          changed(executor) {}

    boost::asio::any_io_executor executor;
    const ZygoteKind kind;
    const ProcessTools tools;
    Logger& log;
    Events events;  ///< Empty once the worker is gone.

    pid_t zygote = 0;
    std::optional<boost::asio::posix::stream_descriptor> control;
    bool ready = false;  ///< The zygote forks.
    bool has_been_ready = false;
    bool closed = false;
    std::string trouble;  ///< Why the last zygote did not get ready.
    Event changed;        ///< Of those above.
    std::uint64_t last_number = 0;
    bool asking_again = false;  ///< Somebody comes back to those who wait.
    std::list<std::shared_ptr<Slot>> slots;
    /// For a slot, once the zygote is back; with whether only the stopped callback is to run.
    std::deque<std::pair<std::shared_ptr<Execution>, bool>> waiting;

    // ---- the zygote: slot_zygote.cpp ----

    void spawn_zygote();
    /// What the zygote says, until it is gone.
    static boost::asio::awaitable<void> listen(std::shared_ptr<Impl> self);
    void heed(std::string_view message);
    void lose_zygote();
    static boost::asio::awaitable<void> restart(std::shared_ptr<Impl> self,
                                                std::chrono::milliseconds wait);
    /// Jobs go back to their queue until there is a zygote again.
    void give_back_waiting();
    /// A datagram to the zygote, with descriptors. Whether it took it.
    [[nodiscard]] bool send_with(std::string text, const std::vector<int>& fds);

    // ---- slots, and what waits for one: slot_executor.cpp ----

    /// A slot's process is there.
    void meet(const std::shared_ptr<Slot>& slot, pid_t pid);
    /// What its growth counts from: at its first job, or once its process is known.
    void note_first_rss(Slot& slot) const;
    /// Its job's limits are kept from now on.
    void watch(const std::shared_ptr<Slot>& slot);
    void serve_waiting();
    static boost::asio::awaitable<void> ask_again(std::shared_ptr<Impl> self);
    /// Whether there was a slot for it, or none is needed any more.
    bool give(const std::shared_ptr<Execution>& execution, bool only_callback);
    /// Takes those out of a call whose end has been asked for while it waited.
    void end_early(std::vector<std::shared_ptr<Execution>>& jobs);
    /// Without having run. Later, because the caller may be on its way through all that runs.
    void end_later(const std::shared_ptr<Execution>& execution, StopReason reason);
    /// For the next jobs, while this one runs: a fork takes longer than a short job.
    void fork_ahead();
    static bool is_idle(const Slot& slot);
    std::string request(const Slot& slot) const;
    [[nodiscard]] std::string serializer_of(const Execution& execution) const;
    static void add_fields(Frame& frame, const FieldList& fields);
    /// Null where it has to wait: the zygote is not there or behind, or there is no descriptor
    /// left.
    std::shared_ptr<Slot> fork_slot();
    void send(const std::shared_ptr<Slot>& slot, std::string frame);
    static boost::asio::awaitable<void> write(std::shared_ptr<Impl>, std::shared_ptr<Slot> slot);
    /// The soft stage, for a slot that listens.
    void tell(const std::shared_ptr<Slot>& slot, const Execution& execution, StopReason reason);
    /// Ends what runs, or waits to; its outcome follows. False where it is not here.
    bool kill(const std::shared_ptr<Execution>& execution, StopReason reason);
    [[nodiscard]] std::shared_ptr<Slot> slot_of(const Execution& execution) const;
    /// Whether its call waits for a slot.
    [[nodiscard]] bool is_waiting(const Execution& execution) const;
    /// Whether it was waiting for its slot.
    bool forget_waiting(const Execution& execution);

    // ---- what slots say, and how they end: slot_outcomes.cpp ----

    /// What a slot says, until it is gone.
    static boost::asio::awaitable<void> serve(std::shared_ptr<Impl> self,
                                              std::shared_ptr<Slot> slot);
    /// Whether it was something that a slot says of a job that it has.
    bool heed(Slot& slot, const std::vector<std::string_view>& fields);
    /// What its process has used for one of its jobs: those of a call have equal parts.
    static double share_of_cpu(Slot& slot, double used_so_far);
    /// Whether a slot has run for long enough, or grown too large.
    [[nodiscard]] bool is_spent(const Slot& slot) const;
    /// It takes no job any more and ends; the next is ready by the time it is needed.
    void retire(Slot& slot);
    std::optional<RunOutcome> outcome_said(const Slot& slot, const Execution& execution,
                                           std::span<const std::string_view> fields);
    /// A slot has ended, perhaps with jobs in it.
    void conclude(Slot& slot);
    RunOutcome how_it_ended(const Slot& slot, const Execution& execution);
    /// The process in which a stopped callback might have run is gone: it gets another.
    void end_stopped(std::shared_ptr<Execution> execution);
    void report(std::shared_ptr<Execution> execution, RunOutcome outcome);
};

}  // namespace rqxx::runtime
