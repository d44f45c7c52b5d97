#include <evaluation/application.hpp>
#include <rqxx/application.hpp>

int main(int argc, char** argv) {
    return rqxx::run_command_line(argc, argv, [](const rqxx::ApplicationSettings& settings) {
        return evaluation::make_application(settings);
    });
}
