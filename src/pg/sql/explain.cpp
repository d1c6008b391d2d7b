// explain.cpp - keypool_explain_select: what each key says of a request.
#include "pg/server/postgres_api.h"

#include "pg/catalog/privileges.h"
#include "pg/pool/ask_key.h"
#include "pg/pool/pool_cache.h"
#include "pg/secrets/master_keys.h"
#include "pg/server/clock.h"
#include "pg/sql/selection_request.h"
#include "pg/sql/selection_row.h"

// What keeps a key out whatever its meters hold: the column, or the argument, that says so.
static const char *column_of(KeyAnswer::Kind kind) {
  switch (kind) {
    case KeyAnswer::kExcluded:
      return "except_keys";
    case KeyAnswer::kUnopened:
      return "key_value";
    case KeyAnswer::kNoSecret:
      return "no_secret";
    case KeyAnswer::kOff:
      return "is_active";
    case KeyAnswer::kExpired:
      return "expires_at";
    case KeyAnswer::kOtherModels:
      return "models";
    default:
      return nullptr;
  }
}

static void set_too_large(Selection *answer, const KeyAnswer &said) {
  answer->status = SelectionStatus::kTooLarge;
  answer->blocked_by = said.quota != nullptr ? said.quota->name : std::string_view("key");
  answer->blocked_limit = keypool::LimitName(said.limit);
}

static void set_left_out(Selection *answer, const KeyAnswer &said) {
  keypool::TimeUs returns_at = said.kind == KeyAnswer::kOff ? answer->key->inactive_until : 0;
  answer->status = SelectionStatus::kNoKey;
  answer->blocked_by = "key";
  answer->blocked_limit = column_of(said.kind);
  if (returns_at != 0 && returns_at != kNever) answer->retry_after_ms = milliseconds_until(returns_at, clock_now());
}

static void set_answer(Selection *answer, const KeyAnswer &said) {
  switch (said.kind) {
    case KeyAnswer::kServes:
      answer->status = SelectionStatus::kOk;
      break;
    case KeyAnswer::kWaits:
      selection_wait(answer, said.obstacle, said.limit, said.moment, said.quota);
      break;
    case KeyAnswer::kTooLarge:
      set_too_large(answer, said);
      break;
    default:
      set_left_out(answer, said);
  }
}

// Asks every key. False if the pool shows what has changed.
static bool explain_keys(ReturnSetInfo *result, const MeterTables &tables, Pool *pool, const Request &request,
                         Selection answer) {
  for (int i = 0; i < pool->count; ++i) {
    CHECK_FOR_INTERRUPTS();
    KeyAnswer said = ask_key(tables, pool, static_cast<uint32>(i), request);
    if (said.kind == KeyAnswer::kMoved) return false;
    answer.key = &pool->keys[i];
    answer.retry_after_ms = kNoWait;
    answer.blocked_by = {};
    answer.blocked_limit = nullptr;
    set_answer(&answer, said);
    selection_put(result, answer);
  }
  return true;
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_explain_select);
Datum keypool_explain_select(PG_FUNCTION_ARGS) {
  Request request = read_request(fcinfo, Effect::kPeek, kTokensOfSelect);
  Selection common = {};
  common.provider = given_provider(fcinfo);
  common.shows_attributes = privileges_allow(Right::kApp, request.provider);
  ReturnSetInfo *result = selection_set_begin(fcinfo);
  for (int attempt = 0;; ++attempt) {
    master_keys_check();  // before anything is locked: the command may take its time
    MeterTables tables;
    Pool *pool = pool_cache_open_provider(request.provider, AccessShareLock, &tables);
    bool explained = pool == nullptr || explain_keys(result, tables, pool, request, common);
    meter_tables_close(tables);
    if (explained) return Datum{0};
    tuplestore_clear(result->setResult);
    pool_cache_retry(pool->hash, attempt);
  }
}

}  // extern "C"
