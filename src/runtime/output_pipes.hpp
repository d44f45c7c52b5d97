#pragma once

#include <array>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "runtime/execution.hpp"
#include "runtime/process.hpp"

namespace rqxx::runtime {

/// The pipes behind stdout and stderr of a process, and who reads them.
///
/// Thread safety: use from the executor only. Reading goes on until both ends are closed.
class OutputPipes : public std::enable_shared_from_this<OutputPipes> {
public:
    using Stream = ops::OutputChunk::Stream;
    using Tap = std::function<void(Stream, std::string_view)>;

    /// With `forward`, what comes also goes to this process' own stdout and stderr.
    /// @throws Error `Errc::io`
    OutputPipes(const boost::asio::any_io_executor& executor, bool forward);
    /// For the process: to become its stdout and stderr.
    [[nodiscard]] std::array<int, 2> their_ends() const;
    /// Once the process has them.
    void start();
    /// What comes from now on belongs to each of these executions.
    void read_for(std::vector<std::shared_ptr<Execution>> executions) {
        executions_ = std::move(executions);
    }
    /// Also told of all that comes.
    void set_tap(Tap tap) { tap_ = std::move(tap); }
    /// Takes what stands in the pipes now.
    void drain();
    void close();

private:
    struct Pipe {
        boost::asio::posix::stream_descriptor ours;
        Fd theirs;
        Stream stream;
        int forward_to;
    };
    static boost::asio::awaitable<void> read(std::shared_ptr<OutputPipes> self, Pipe& pipe);
    /// Whether there may be more later.
    bool take(Pipe& pipe);

    bool forward_;
    std::array<Pipe, 2> pipes_;
    std::vector<std::shared_ptr<Execution>> executions_;
    Tap tap_;
};

}  // namespace rqxx::runtime
