#include <fmt/format.h>
#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <cstring>

#include "runtime/process.hpp"
#include "runtime/slot_executor_impl.hpp"

namespace rqxx::runtime {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

void SlotExecutor::Impl::spawn_zygote() {
    auto [ours, theirs] = socket_pair(SOCK_SEQPACKET);
    zygote = kind.spawn(theirs.get());
    control.emplace(executor, ours.release());
    trouble.clear();
    ::send(control->native_handle(), kind.greeting.data(), kind.greeting.size(), MSG_NOSIGNAL);
    asio::co_spawn(executor, listen(shared_from_this()), asio::detached);
}

asio::awaitable<void> SlotExecutor::Impl::listen(std::shared_ptr<Impl> self) {
    std::string message(1 << 16, '\0');
    try {
        while (self->control) {
            co_await self->control->async_wait(asio::posix::stream_descriptor::wait_read,
                                               asio::use_awaitable);
            const auto size = ::recv(self->control->native_handle(), message.data(), message.size(),
                                     MSG_DONTWAIT);
            if (size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR)) break;
            if (size > 0) self->heed({message.data(), static_cast<std::size_t>(size)});
        }
    } catch (const std::exception& error) {
        self->log.debug("A zygote is silent", "kind", self->kind.name, "error", error.what());
    }
    self->lose_zygote();
}

void SlotExecutor::Impl::heed(std::string_view message) {
    boost::system::error_code error;
    const json::value value = json::parse(message, error);
    const json::object* said = error ? nullptr : value.if_object();
    if (said == nullptr) return;
    const auto number = [&](std::string_view name) -> std::int64_t {
        const auto* found = said->if_contains(name);
        return found != nullptr && found->is_int64() ? found->as_int64() : 0;
    };
    const auto text = [&](std::string_view name) {
        const auto* found = said->if_contains(name);
        return found != nullptr && found->is_string() ? std::string(found->as_string())
                                                      : std::string();
    };
    if (said->contains("ready")) {
        ready = true;
        log.info(kind.name + " is ready", "version", text("version"));
        changed.notify();
        serve_waiting();
    } else if (said->contains("error")) {
        trouble = text("error");
        log.debug(kind.name + " did not start", "traceback", text("traceback"));
    } else if (said->contains("forked")) {
        for (const auto& slot : slots) {
            if (slot->number != static_cast<std::uint64_t>(number("forked"))) continue;
            meet(slot, static_cast<pid_t>(number("pid")));
        }
        serve_waiting();
    } else if (said->contains("failed")) {
        log.error(kind.name + " could not fork", "error", text("why"));
        for (const auto& slot : slots) {
            if (slot->number != static_cast<std::uint64_t>(number("failed"))) continue;
            slot->not_forked = true;
            ::shutdown(slot->socket.native_handle(), SHUT_RD);
        }
    } else if (said->contains("exited")) {
        for (const auto& slot : slots) {
            if (slot->pid != number("exited")) continue;
            slot->status = static_cast<int>(number("status"));
            const auto* cpu = said->if_contains("cpu_seconds");
            slot->used = ops::Usage{number("max_rss_kb"),
                                    cpu != nullptr && cpu->is_double() ? cpu->as_double() : 0};
            tools.watch->forget(slot->pid);
            tools.guardian->forget(slot->pid);
            // What it said before stands in the socket; behind that comes the end, also where
            // a child of its own keeps the other side open.
            ::shutdown(slot->socket.native_handle(), SHUT_RD);
        }
    }
}

void SlotExecutor::Impl::lose_zygote() {
    if (closed) return;
    // One that has been ready may have been killed; one that never was would not be now.
    const bool hopeless = !std::exchange(ready, false);
    control.reset();
    if (zygote != 0) bury(std::exchange(zygote, 0));
    if (trouble.empty()) trouble = "it ended";
    changed.notify();
    // Its slots end with it; those that do not know yet are told.
    for (const auto& slot : slots) {
        slot->kill();
        ::shutdown(slot->socket.native_handle(), SHUT_RD);
    }
    if (!has_been_ready) return;  // `prepare` tells.
    log.error(kind.name + " has ended and is started again", "error", trouble);
    if (hopeless) give_back_waiting();
    asio::co_spawn(executor, restart(shared_from_this(), hopeless ? 2000ms : 100ms),
                   asio::detached);
}

asio::awaitable<void> SlotExecutor::Impl::restart(std::shared_ptr<Impl> self,
                                                  std::chrono::milliseconds wait) {
    const auto until = std::chrono::steady_clock::now() + wait;
    while (!self->closed && std::chrono::steady_clock::now() < until)
        co_await self->changed.wait(until - std::chrono::steady_clock::now());
    if (self->closed) co_return;
    try {
        self->spawn_zygote();
    } catch (const Error& error) {
        self->trouble = error.message();
        self->lose_zygote();
        co_return;
    }
    const pid_t started = self->zygote;
    const auto give_up = std::chrono::steady_clock::now() + longest_start;
    while (!self->closed && !self->ready && self->zygote == started) {
        const auto now = std::chrono::steady_clock::now();
        if (now >= give_up) {
            self->trouble = "it took over a minute to start";
            ::kill(started, SIGKILL);  // `listen` meets its end.
            co_return;
        }
        co_await self->changed.wait(give_up - now);
    }
}

void SlotExecutor::Impl::give_back_waiting() {
    for (const auto& [execution, only_callback] : std::exchange(waiting, {})) {
        for (const auto& job : only_callback ? std::vector{execution} : jobs_of_call(execution))
            report(job, only_callback
                            ? stopped_outcome()
                            : RunOutcome{.kind = RunOutcome::Kind::postponed,
                                         .payload = "0",
                                         .error = kind.name + " cannot be started: " + trouble});
    }
}

bool SlotExecutor::Impl::send_with(std::string text, const std::vector<int>& fds) {
    iovec part{text.data(), text.size()};
    alignas(cmsghdr) char rights[CMSG_SPACE(3 * sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = rights;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
    return ::sendmsg(control->native_handle(), &message, MSG_NOSIGNAL) >= 0;
}

}  // namespace rqxx::runtime
