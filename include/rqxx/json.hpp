#pragma once

#include <boost/json/fwd.hpp>
#include <string>

namespace rqxx {

/// JSON text with numbers as people write them (`0.25`, not `2.5E-1`). NaN and infinities become
/// null.
[[nodiscard]] std::string to_text(const boost::json::value& json);

}  // namespace rqxx
