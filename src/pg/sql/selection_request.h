// selection_request.h - the arguments of keypool_select and its like.
#pragma once

#include "pg/server/postgres_api.h"

#include "pg/pool/choose_key.h"

// The first of the arguments tokens, model, output_tokens, cost, affinity, except_keys, max_wait (if it selects one)
// and cached_tokens; `provider` is number 0.
inline constexpr int kTokensOfSelect = 1;
inline constexpr int kTokensOfSelectMany = 2;

// Of keypool_select and keypool_try_select, which lies in `*request` and `*provider`, and of keypool_select_first: a
// request for each of `providers`, with the model that `models` has for it. Raises 42501 if the user does not have the
// right to one of them.
struct Requests {
  int count;
  Request *requests;
  text **providers;  // as they were given
  keypool::TimeUs max_wait;
};
Requests read_request_to_select(FunctionCallInfo fcinfo, Request *request, text **provider);
Requests read_requests(FunctionCallInfo fcinfo);

// Of the others. Reads and checks them, `tokens` being the argument of this number. Raises 42501 if the user does not
// have the right to the provider, before anything else is read. All of it points into the arguments.
Request read_request(FunctionCallInfo fcinfo, Effect effect, int tokens);

// The provider as it was given.
inline text *given_provider(FunctionCallInfo fcinfo) { return PG_GETARG_TEXT_PP(0); }
