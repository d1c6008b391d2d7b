// selection_request.cpp - the arguments of keypool_select and its like.
#include "pg/sql/selection_request.h"

#include "pg/catalog/privileges.h"
#include "pg/pool/waiting.h"
#include "pg/server/arguments.h"

using keypool::kMaxCost;
using keypool::kMaxTokens;

static constexpr int kMaxExceptKeys = 1000;
static constexpr int kMaxWaitOfSelect = kTokensOfSelect + 6;

static void read_amounts(FunctionCallInfo fcinfo, int tokens, int cached, Request *request) {
  keypool::Amounts *amounts = &request->amounts;
  request->tokens_given = argument_given(fcinfo, tokens);
  amounts->tokens = argument_amount(fcinfo, tokens, "tokens", kMaxTokens);
  amounts->output = argument_amount(fcinfo, tokens + 2, "output_tokens", kMaxTokens);
  amounts->cost = argument_amount(fcinfo, tokens + 3, "cost", kMaxCost);
  amounts->cached = argument_amount(fcinfo, cached, "cached_tokens", kMaxTokens);
  if (keypool::CoverParts(amounts) && request->tokens_given)
    ereport(NOTICE,
            errmsg("keypool: tokens is less than output_tokens and cached_tokens together, which count instead"));
}

static void read_except_keys(FunctionCallInfo fcinfo, int number, Request *request) {
  if (!argument_given(fcinfo, number)) return;
  KeyIds keys = argument_keys(fcinfo, number, "except_keys");
  if (keys.count > kMaxExceptKeys)
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("except_keys must not have more than %d elements", kMaxExceptKeys));
  request->except_keys = keys.ids;
  request->except_count = keys.count;
}

// All but the provider, the model and max_wait.
static void read_rest(FunctionCallInfo fcinfo, int tokens, int cached, Request *request) {
  request->affinity = argument_text(fcinfo, tokens + 4);
  read_except_keys(fcinfo, tokens + 5, request);
  read_amounts(fcinfo, tokens, cached, request);
}

static Request read_one(FunctionCallInfo fcinfo, Effect effect, int tokens, int cached) {
  Request request = {};
  request.provider = argument_provider(fcinfo, 0);
  request.effect = effect;
  privileges_require(effect == Effect::kSelect ? Right::kApp : Right::kPeek, request.provider);
  request.model = argument_model(fcinfo, tokens + 1);
  read_rest(fcinfo, tokens, cached, &request);
  return request;
}

Request read_request(FunctionCallInfo fcinfo, Effect effect, int tokens) {
  return read_one(fcinfo, effect, tokens, tokens + 6);
}

static keypool::TimeUs read_max_wait(FunctionCallInfo fcinfo) {
  return argument_wait(fcinfo, kMaxWaitOfSelect, "max_wait", kMaxWait);
}

Requests read_request_to_select(FunctionCallInfo fcinfo, Request *request, text **provider) {
  *request = read_one(fcinfo, Effect::kSelect, kTokensOfSelect, kMaxWaitOfSelect + 1);
  *provider = given_provider(fcinfo);
  return {1, request, provider, read_max_wait(fcinfo)};
}

Requests read_requests(FunctionCallInfo fcinfo) {
  Texts providers = argument_providers(fcinfo, 0);
  Texts models = argument_models(fcinfo, kTokensOfSelect + 1, providers.count);
  for (int i = 0; i < providers.count; ++i) privileges_require(Right::kApp, text_view(providers.texts[i]));
  Request common = {};
  common.effect = Effect::kSelect;
  read_rest(fcinfo, kTokensOfSelect, kMaxWaitOfSelect + 1, &common);
  Requests read = {providers.count, static_cast<Request *>(palloc(providers.count * sizeof(Request))), providers.texts,
                   read_max_wait(fcinfo)};
  for (int i = 0; i < providers.count; ++i) {
    read.requests[i] = common;
    read.requests[i].provider = text_view(providers.texts[i]);
    if (models.count > 0 && models.texts[i] != nullptr) read.requests[i].model = text_view(models.texts[i]);
  }
  return read;
}
