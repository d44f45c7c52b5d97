#include "runtime/output_pipes.hpp"

#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>

namespace rqxx::runtime {

namespace asio = boost::asio;

namespace {

/// A process that writes without end must not keep the worker from its other jobs.
constexpr int most_reads = 64;

}  // namespace

OutputPipes::OutputPipes(const asio::any_io_executor& executor, bool forward)
    : forward_(forward), pipes_([&] {
          auto out = output_pipe();
          auto err = output_pipe();
          return std::array{Pipe{asio::posix::stream_descriptor(executor, out.first.release()),
                                 std::move(out.second), Stream::out, STDOUT_FILENO},
                            Pipe{asio::posix::stream_descriptor(executor, err.first.release()),
                                 std::move(err.second), Stream::err, STDERR_FILENO}};
      }()) {}

std::array<int, 2> OutputPipes::their_ends() const {
    return {pipes_[0].theirs.get(), pipes_[1].theirs.get()};
}

void OutputPipes::start() {
    for (Pipe& pipe : pipes_) {
        pipe.theirs = Fd();
        asio::co_spawn(pipe.ours.get_executor(), read(shared_from_this(), pipe), asio::detached);
    }
}

asio::awaitable<void> OutputPipes::read(std::shared_ptr<OutputPipes> self, Pipe& pipe) {
    boost::system::error_code error;
    while (!error && pipe.ours.is_open() && self->take(pipe))
        co_await pipe.ours.async_wait(asio::posix::stream_descriptor::wait_read,
                                      asio::redirect_error(asio::use_awaitable, error));
}

bool OutputPipes::take(Pipe& pipe) {
    std::array<char, 1 << 16> bytes;
    for (int i = 0; i < most_reads; ++i) {
        const auto size = ::read(pipe.ours.native_handle(), bytes.data(), bytes.size());
        if (size < 0) return errno == EAGAIN || errno == EINTR;
        if (size == 0) return false;
        const std::string_view text(bytes.data(), static_cast<std::size_t>(size));
        for (const auto& execution : executions_)
            execution->output.add(pipe.stream, text);
        if (tap_) tap_(pipe.stream, text);
        if (forward_ && ::write(pipe.forward_to, text.data(), text.size()) < 0) forward_ = false;
        if (text.size() < bytes.size()) return true;
    }
    return true;
}

void OutputPipes::drain() {
    for (Pipe& pipe : pipes_) {
        if (pipe.ours.is_open()) take(pipe);
    }
}

void OutputPipes::close() {
    executions_.clear();
    tap_ = {};
    boost::system::error_code ignored;
    for (Pipe& pipe : pipes_)
        pipe.ours.close(ignored);
}

}  // namespace rqxx::runtime
