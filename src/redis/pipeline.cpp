#include <charconv>
#include <rqxx/redis/client.hpp>

namespace rqxx {

namespace {

/// `*3\r\n` or `$12\r\n`.
void append_header(std::string& to, char kind, std::size_t number) {
    char text[24];
    text[0] = kind;
    char* end = std::to_chars(text + 1, text + 21, number).ptr;
    *end++ = '\r';
    *end++ = '\n';
    to.append(text, end);
}

}  // namespace

void Pipeline::begin(std::size_t arguments) {
    append_header(bytes_, '*', arguments);
    ++commands_;
}

void Pipeline::argument(std::string_view text) {
    append_header(bytes_, '$', text.size());
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
