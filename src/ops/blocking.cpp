#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_future.hpp>
#include <future>
#include <rqxx/blocking.hpp>
#include <thread>

#include "ops/lua_scripts.hpp"

namespace rqxx::blocking {

namespace asio = boost::asio;
using namespace std::chrono_literals;

struct Client::Impl {
    explicit Impl(RedisOptions options)
        : redis(context.get_executor(), std::move(options)),
          monitor(redis),
          thread([this] { context.run(); }) {}
    ~Impl() {
        asio::post(context, [this] { redis.close(); });
        guard.reset();
        thread.join();
    }

    /// Runs an operation on the connection's thread and waits for it.
    template <class T>
    T wait(asio::awaitable<T> operation) {
        return asio::co_spawn(context, std::move(operation), asio::use_future).get();
    }

    asio::io_context context{1};
    asio::executor_work_guard<asio::io_context::executor_type> guard{context.get_executor()};
    RedisClient redis;
    Monitor monitor;
    std::thread thread;
};

namespace {

RedisOptions options_for(std::string_view url) {
    auto parsed = parse_redis_url(url);
    if (!parsed) throw Error(Errc::usage, parsed.error().describe());
    RedisOptions options;
    options.url = std::move(*parsed);
    return options;
}

asio::awaitable<Enqueued> enqueue_on(Queue queue, Call call, EnqueueOptions options) {
    co_return co_await queue.enqueue(std::move(call), std::move(options));
}

asio::awaitable<std::vector<Enqueued>> enqueue_many_on(Queue queue, std::vector<NewJob> jobs) {
    co_return co_await queue.enqueue_many(std::move(jobs));
}

}  // namespace

Client::Client(std::string_view url) {
    register_scripts(lua::all());
    impl_ = std::make_unique<Impl>(options_for(url));
    impl_->wait(impl_->redis.connect(5s));
}

Client::~Client() = default;

Reply Client::command(const std::vector<std::string>& arguments) {
    Pipeline one;
    one.begin(arguments.size());
    for (const auto& argument : arguments)
        one.argument(std::string_view(argument));
    return impl_->wait(impl_->redis.run_one(std::move(one), {}));
}

Enqueued Client::enqueue(std::string queue, Call call, EnqueueOptions options,
                         Serializer serializer) {
    return impl_->wait(enqueue_on(Queue(impl_->redis, std::move(queue), serializer),
                                  std::move(call), std::move(options)));
}

std::vector<Enqueued> Client::enqueue_many(std::string queue, std::vector<NewJob> jobs,
                                           Serializer serializer) {
    return impl_->wait(
        enqueue_many_on(Queue(impl_->redis, std::move(queue), serializer), std::move(jobs)));
}

std::optional<JobInfo> Client::job(std::string id) {
    return impl_->wait(impl_->monitor.job_info(std::move(id)));
}

QueueStats Client::queue_stats(std::string queue) {
    return impl_->wait(impl_->monitor.queue_stats(std::move(queue)));
}

}  // namespace rqxx::blocking
