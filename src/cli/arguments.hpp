#pragma once

#include <rqxx/codec.hpp>
#include <string>
#include <vector>

namespace rqxx::cli {

/// The arguments of `rqxx enqueue FUNC ARG…` as a call, in the notation of `rq enqueue`:
/// `text`, `:JSON`, `%LITERAL`, `@FILE`, `key=text`, `key:=JSON`, `key%=LITERAL`; with `json_args`
/// each is JSON. @throws Error `Errc::usage` naming the argument. Source: rq/cli/helpers.py
/// parse_function_args.
[[nodiscard]] Call parse_call(std::string function, const std::vector<std::string>& arguments,
                              bool json_args);

}  // namespace rqxx::cli
