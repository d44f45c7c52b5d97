#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <iterator>
#include <rqxx/json.hpp>

namespace rqxx {
namespace {

namespace json = boost::json;

void append(std::string& out, const json::value& value) {
    switch (value.kind()) {
        case json::kind::double_:
            if (std::isfinite(value.get_double()))
                fmt::format_to(std::back_inserter(out), "{}", value.get_double());
            else
                out += "null";
            break;
        case json::kind::array: {
            out += '[';
            bool first = true;
            for (const auto& item : value.get_array()) {
                if (!first) out += ',';
                first = false;
                append(out, item);
            }
            out += ']';
            break;
        }
        case json::kind::object: {
            out += '{';
            bool first = true;
            for (const auto& [key, item] : value.get_object()) {
                if (!first) out += ',';
                first = false;
                out += json::serialize(key);
                out += ':';
                append(out, item);
            }
            out += '}';
            break;
        }
        default:
            out += json::serialize(value);
    }
}

}  // namespace

std::string to_text(const json::value& value) {
    std::string out;
    append(out, value);
    return out;
}

}  // namespace rqxx
