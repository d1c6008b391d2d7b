// arguments.cpp - reading and checking the arguments of SQL functions.
#include "pg/server/arguments.h"

#include "core/provider_name.h"
#include "core/window.h"
#include "pg/server/core_call.h"
#include "pg/server/key_ids.h"
#include "pg/server/report.h"

void argument_require(FunctionCallInfo fcinfo, int number, const char *name) {
  if (PG_ARGISNULL(number))
    ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name));
}

std::string_view argument_provider(FunctionCallInfo fcinfo, int number) {
  argument_require(fcinfo, number, "provider");
  std::string_view provider = text_view(PG_GETARG_TEXT_PP(number));
  report_status(call_core([&] { return keypool::CheckProviderName(provider); }));
  return provider;
}

keypool::KeyId argument_key(FunctionCallInfo fcinfo, int number) {
  argument_require(fcinfo, number, "key");
  return key_id_from_datum(PG_GETARG_DATUM(number));
}

int64 argument_tokens(FunctionCallInfo fcinfo, int number) {
  int64 tokens = PG_ARGISNULL(number) ? 0 : PG_GETARG_INT64(number);
  if (tokens < 0 || tokens > keypool::kMaxTokens)
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("tokens must be between 0 and %lld", static_cast<long long>(keypool::kMaxTokens)));
  return tokens;
}

int64 argument_limit(FunctionCallInfo fcinfo, int number, const char *name) {
  int64 limit = PG_ARGISNULL(number) ? 0 : PG_GETARG_INT64(number);
  if (limit < 0) ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s must not be negative", name));
  return limit;
}
