// Puts a job on a queue and waits for its result. No Asio needed.
//   example_producer redis://localhost
#include <chrono>
#include <iostream>
#include <rqxx/blocking.hpp>
#include <rqxx/convert.hpp>
#include <rqxx/error.hpp>
#include <thread>

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: example_producer REDIS_URL\n";
        return 2;
    }
    try {
        rqxx::blocking::Client redis(argv[1]);
        const auto job = redis.enqueue("default", rqxx::make_call("geometry.area", 2.0, 3.5));
        std::cout << "enqueued " << job.job_id << '\n';
        for (;;) {
            const auto info = redis.job(job.job_id);
            if (info && info->job.status == rqxx::status::finished) {
                const auto result = rqxx::decode(info->executions.front().return_value);
                std::cout << "result " << rqxx::repr(result.value()) << '\n';
                return 0;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
    } catch (const rqxx::Error& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
