// A worker with one native function, which Python can call by the name "geometry.area".
//   example_worker redis://localhost
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <iostream>
#include <rqxx/error.hpp>
#include <rqxx/worker.hpp>

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: example_worker REDIS_URL\n";
        return 2;
    }
    const auto url = rqxx::parse_redis_url(argv[1]);
    if (!url) {
        std::cerr << url.error().describe() << '\n';
        return 2;
    }
    rqxx::HandlerRegistry handlers;
    handlers.add("geometry.area", [](double width, double height) {
        if (width < 0 || height < 0) throw std::invalid_argument("sides must not be negative");
        return width * height;
    });

    rqxx::Logger log;
    boost::asio::io_context context(1);
    rqxx::RedisClient redis(context.get_executor(), {.url = *url}, log);
    rqxx::Worker worker(redis, handlers, {.queues = {"default"}}, log);

    boost::asio::signal_set signals(context, SIGINT, SIGTERM);
    signals.async_wait([&](boost::system::error_code error, int) {
        if (!error) worker.request_stop();
    });
    int code = 0;
    boost::asio::co_spawn(context, worker.run(),
                          [&](std::exception_ptr error, rqxx::WorkerSummary summary) {
                              code = error ? 1 : 0;
                              std::cout << summary.finished << " jobs finished\n";
                              redis.close();
                              signals.cancel();
                          });
    context.run();
    return code;
}
