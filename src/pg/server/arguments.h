// arguments.h - reading and checking the arguments of SQL functions.
//
// Where a value is needed, NULL is refused (22004) and a value out of range too (22023); the message names the
// argument.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/key_id.h"

inline std::string_view text_view(const text *value) {
  return {VARDATA_ANY(value), static_cast<size_t>(VARSIZE_ANY_EXHDR(value))};
}

// The provider's name, checked. The text lives as long as the argument.
std::string_view argument_provider(FunctionCallInfo fcinfo, int number);

// The id of a key.
keypool::KeyId argument_key(FunctionCallInfo fcinfo, int number);

// Tokens of a request; NULL counts as 0.
int64 argument_tokens(FunctionCallInfo fcinfo, int number);

// A limit; NULL and 0 mean none, and both come back as 0.
int64 argument_limit(FunctionCallInfo fcinfo, int number, const char *name);

// Refuses NULL.
void argument_require(FunctionCallInfo fcinfo, int number, const char *name);
