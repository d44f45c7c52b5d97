#include <fmt/format.h>

#include <iterator>
#include <rqxx/redis/client.hpp>

namespace rqxx {

void Pipeline::begin(std::size_t arguments) {
    fmt::format_to(std::back_inserter(bytes_), "*{}\r\n", arguments);
    ++commands_;
}

void Pipeline::argument(std::string_view text) {
    char length[24];
    const auto end = fmt::format_to(length, "${}\r\n", text.size());
    bytes_.append(length, end);
    bytes_.append(text);
    bytes_.append("\r\n", 2);
}

void Pipeline::eval(const Script& script, std::span<const std::string> keys,
                    std::span<const std::string> args) {
    begin(3 + keys.size() + args.size());
    argument(std::string_view("EVALSHA"));
    argument(script.sha1);
    argument(keys.size());
    for (const auto& key : keys)
        argument(std::string_view(key));
    for (const auto& arg : args)
        argument(std::string_view(arg));
}

}  // namespace rqxx
