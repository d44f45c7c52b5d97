#pragma once

#include <rqxx/worker.hpp>
#include <string>
#include <vector>

/// A job as a command line. No I/O.
namespace rqxx::runtime {

/// The words of `command` with a job's arguments in the place of `{0}` (positional), `{name}`
/// (keyword) and `{job_id}`; `{{` and `}}` stand for braces. A value never becomes more than one
/// word, and in a shell's line it is quoted. Text as it is, everything else as JSON.
/// @throws Error `Errc::usage` that names the argument that is missing or cannot be in a word.
[[nodiscard]] std::vector<std::string> command_words(const CommandFunction& command,
                                                     const std::string& job_id, const Call& call);

/// Whether all placeholders are well-formed. @throws Error `Errc::usage`
void check_placeholders(const CommandFunction& command);

}  // namespace rqxx::runtime
