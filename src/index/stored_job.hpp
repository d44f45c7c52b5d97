#pragma once

#include <rqxx/redis/reply.hpp>
#include <string>
#include <string_view>

#include "index/store.hpp"

namespace rqxx::index {

/// What lua/index_jobs.lua answers for a job, read. Whatever is in it: what cannot be read is left
/// out. @param now  Redis' time, us since 1970.
[[nodiscard]] JobChange read_stored_job(std::string id, const Reply& fields, std::int64_t now);

/// The error of such an answer as text; empty without one.
[[nodiscard]] std::string error_text(const Reply& fields);

/// `text` as valid UTF-8 of at most `most` bytes.
[[nodiscard]] std::string short_text(std::string_view text, std::size_t most = 200);

}  // namespace rqxx::index
