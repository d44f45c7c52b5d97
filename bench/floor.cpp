// The floor: the Redis commands of RQ 2.10's full per-job life cycle, pipelined by the smallest
// possible client, 128 jobs per pipeline and four pipelines in flight. Ids are known beforehand,
// which no worker can have: nobody gets below this with these commands. Then enqueue again, one job
// per pipeline and one pipeline in flight: what a producer gets that waits for each job.
//   rqxx_floor SOCKET JOBS
#include <fmt/format.h>
#include <hiredis/hiredis.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace {

struct Pace {
    int batch;              ///< Jobs per pipeline.
    std::size_t in_flight;  ///< Pipelines.
};
constexpr Pace bulk{128, 4};
constexpr Pace one_by_one{1, 1};
using Clock = std::chrono::steady_clock;

class Client {
public:
    explicit Client(const char* socket) : context_(redisConnectUnix(socket)) {
        if (context_ == nullptr || context_->err != 0) {
            fmt::print(stderr, "cannot connect to {}\n", socket);
            std::exit(1);
        }
    }
    ~Client() { redisFree(context_); }
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    void send(const std::vector<std::string>& words) {
        std::vector<const char*> data;
        std::vector<size_t> sizes;
        for (const auto& word : words) {
            data.push_back(word.data());
            sizes.push_back(word.size());
        }
        redisAppendCommandArgv(context_, static_cast<int>(words.size()), data.data(), sizes.data());
        ++pending_;
    }
    [[nodiscard]] int take_pending() { return std::exchange(pending_, 0); }
    void flush() {
        int done = 0;
        while (done == 0)
            redisBufferWrite(context_, &done);
    }
    void receive(int count) {
        for (int i = 0; i < count; ++i) {
            void* reply = nullptr;
            if (redisGetReply(context_, &reply) != REDIS_OK) std::exit(1);
            freeReplyObject(reply);
        }
    }

private:
    redisContext* context_;
    int pending_ = 0;
};

std::string id(int n) {
    return fmt::format("00000000-0000-4000-8000-{:012}", n);
}
std::string execution(int n) {
    return fmt::format("{:032}", n);
}
const std::string time_text = "2026-11-23T17:47:37.728246Z";
const std::string payload(60, 'x');

void enqueue(Client& redis, int begin, int end) {
    std::vector<std::string> push{"RPUSH", "rq:queue:floor"};
    for (int n = begin; n < end; ++n) {
        redis.send({"HSET",
                    "rq:job:" + id(n),
                    "created_at",
                    time_text,
                    "data",
                    payload,
                    "success_callback_name",
                    "",
                    "failure_callback_name",
                    "",
                    "stopped_callback_name",
                    "",
                    "started_at",
                    "",
                    "ended_at",
                    "",
                    "last_heartbeat",
                    "",
                    "worker_name",
                    "",
                    "group_id",
                    "",
                    "status",
                    "queued",
                    "origin",
                    "floor",
                    "description",
                    "bench.noop(1)",
                    "enqueued_at",
                    time_text,
                    "timeout",
                    "180"});
        push.push_back(id(n));
    }
    redis.send(push);
}

void start(Client& redis, int begin, int end) {
    std::vector<std::string> wip{"ZADD", "rq:wip:floor"};
    for (int n = begin; n < end; ++n) {
        const std::string member = id(n) + ":" + execution(n);
        redis.send({"LMOVE", "rq:queue:floor", "rq:queue:floor:intermediate", "LEFT", "RIGHT"});
        redis.send({"HGETALL", "rq:job:" + id(n)});
        redis.send({"HSET", "rq:execution:" + member, "id", execution(n), "created_at",
                    "1795456544.9", "last_heartbeat", "1795456544.9"});
        redis.send({"EXPIRE", "rq:execution:" + member, "90"});
        redis.send({"ZADD", "rq:executions:" + id(n), "1795456694", execution(n)});
        redis.send({"EXPIRE", "rq:executions:" + id(n), "150"});
        redis.send({"HSET", "rq:job:" + id(n), "status", "started", "started_at", time_text,
                    "last_heartbeat", time_text, "worker_name", "w"});
        redis.send({"PERSIST", "rq:job:" + id(n)});
        redis.send({"LREM", "rq:queue:floor:intermediate", "1", id(n)});
        wip.insert(wip.end(), {"1795456634", member});
    }
    redis.send(wip);
}

void finish(Client& redis, int begin, int end) {
    std::vector<std::string> finished{"ZADD", "rq:finished:floor"}, left{"ZREM", "rq:wip:floor"};
    for (int n = begin; n < end; ++n) {
        const std::string member = id(n) + ":" + execution(n);
        redis.send({"SMEMBERS", "rq:job:" + id(n) + ":dependents"});
        redis.send({"HSET", "rq:job:" + id(n), "status", "finished", "ended_at", time_text,
                    "last_heartbeat", time_text});
        redis.send({"XADD", "rq:results:" + id(n), "MAXLEN", "~", "10", "*", "type", "1",
                    "worker_name", "w", "return_value", "gAVLAS4=", "execution_id", execution(n),
                    "execution_started_at", "1795456544.965519", "execution_ended_at",
                    "1795456544.975681"});
        redis.send({"EXPIRE", "rq:results:" + id(n), "500"});
        redis.send({"EXPIRE", "rq:job:" + id(n), "500"});
        redis.send({"DEL", "rq:execution:" + member});
        redis.send({"ZREM", "rq:executions:" + id(n), execution(n)});
        finished.insert(finished.end(), {"1795457044", id(n)});
        left.push_back(member);
    }
    redis.send(finished);
    redis.send(left);
}

/// Jobs per second for `send` of the jobs [begin, end).
double phase(Client& redis, int begin, int end, Pace pace,
             const std::function<void(Client&, int, int)>& send) {
    const auto start_time = Clock::now();
    std::deque<int> outstanding;
    for (int n = begin; n < end; n += pace.batch) {
        send(redis, n, std::min(n + pace.batch, end));
        outstanding.push_back(redis.take_pending());
        redis.flush();
        if (outstanding.size() == pace.in_flight) {
            redis.receive(outstanding.front());
            outstanding.pop_front();
        }
    }
    for (const int count : outstanding)
        redis.receive(count);
    return (end - begin) / std::chrono::duration<double>(Clock::now() - start_time).count();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    Client redis(argv[1]);
    const int jobs = std::atoi(argv[2]);
    const double enqueued = phase(redis, 0, jobs, bulk, enqueue);
    const double started = phase(redis, 0, jobs, bulk, start);
    const double finished = phase(redis, 0, jobs, bulk, finish);
    const double single =
        phase(redis, jobs, jobs + std::min(jobs / 4 + 1, 15000), one_by_one, enqueue);
    fmt::print(
        "{{\"enqueue\": {:.0f}, \"start\": {:.0f}, \"finish\": {:.0f}, \"run\": {:.0f}, "
        "\"life_cycle\": {:.0f}, \"enqueue_one\": {:.0f}}}\n",
        enqueued, started, finished, 1 / (1 / started + 1 / finished),
        1 / (1 / enqueued + 1 / started + 1 / finished), single);
}
