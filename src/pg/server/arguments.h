// arguments.h - reading and checking the arguments of SQL functions.
//
// Where a value is needed, NULL is refused (22004) and a value out of range too (22023); the message names the
// argument. An optional argument that the SQL form of an older version does not have counts as NULL.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/key_id.h"
#include "core/quota/time.h"

inline std::string_view text_view(const text *value) {
  return {VARDATA_ANY(value), static_cast<size_t>(VARSIZE_ANY_EXHDR(value))};
}

// Whether an optional argument is there and not NULL.
inline bool argument_given(FunctionCallInfo fcinfo, int number) { return number < PG_NARGS() && !PG_ARGISNULL(number); }

// Refuses NULL.
void argument_require(FunctionCallInfo fcinfo, int number, const char *name);

// The provider's name, checked. The text lives as long as the argument.
std::string_view argument_provider(FunctionCallInfo fcinfo, int number);

// The id of a key.
keypool::KeyId argument_key(FunctionCallInfo fcinfo, int number);

// Optional text; empty if it is not given.
std::string_view argument_text(FunctionCallInfo fcinfo, int number);

// An optional model, checked; empty if none is named. Empty text is refused.
std::string_view argument_model(FunctionCallInfo fcinfo, int number);

// Names of providers, checked: an array of 1 to kMaxProviders, without NULLs. And a model for each of so many, checked,
// or null for none; no texts if it is not given.
inline constexpr int kMaxProviders = 100;
struct Texts {
  int count;
  text **texts;
};
Texts argument_providers(FunctionCallInfo fcinfo, int number);
Texts argument_models(FunctionCallInfo fcinfo, int number, int count);

// What a limit is to block, checked: quota, key, model, account or quota:NAME; empty if it is not given.
void check_scope(std::string_view scope);
std::string_view argument_scope(FunctionCallInfo fcinfo, int number);

// An optional amount from 0 to `max`; 0 if it is not given.
int64 argument_amount(FunctionCallInfo fcinfo, int number, const char *name, int64 max);

// An optional interval from 0 to `max`; 0 if it is not given.
keypool::TimeUs argument_wait(FunctionCallInfo fcinfo, int number, const char *name, keypool::TimeUs max);

// A number that is needed, from 1 to `max`.
int64 argument_count(FunctionCallInfo fcinfo, int number, const char *name, int64 max);

// A limit; NULL and 0 mean none, and both come back as 0.
int64 argument_limit(FunctionCallInfo fcinfo, int number, const char *name);

// Ids of keys, an array without NULLs. They lie in the argument.
struct KeyIds {
  const keypool::KeyId *ids;
  int count;
};
KeyIds argument_keys(FunctionCallInfo fcinfo, int number, const char *name);
