// status.cpp - keypool_status: how each provider stands, at a look.
#include "pg/server/postgres_api.h"

#include "core/quota/limit_use.h"
#include "pg/pool/ask_key.h"
#include "pg/pool/call_meters.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/sql/provider_pools.h"
#include "pg/sql/selection_row.h"
#include "pg/state/refusal_rows.h"

using keypool::LimitUse;
using keypool::TimeUs;

static constexpr int kStates = static_cast<int>(KeyState::kOff) + 1;

// Columns of keypool_status, in order.
enum StatusColumn {
  kProvider,
  kFirstState,
  kTightestPercent = kFirstState + kStates,
  kTightestLimit,
  kTightestOf,
  kRetryAfterMs,
  kShortSince,
  kShortSeconds,
  kStatusColumns
};

struct ProviderStatus {
  int64 keys[kStates];
  LimitUse tightest;
  std::string_view tightest_quota;  // empty: it is a key's
  const PoolKey *tightest_key;
  TimeUs next_free_at;  // of those that wait; 0: none does
  TimeUs short_since;   // 0: it is not
};

static bool take_tighter(const MeterTables &tables, CallMeters call, TimeUs now, ProviderStatus *status,
                         const PoolKey *key) {
  keypool::Meter meter;
  if (!call_meters_copy(tables, &call, now, &meter)) return false;
  LimitUse found = keypool::TightestLimit(meter, *call.limits[0], now);
  if (!found.IsTighterThan(status->tightest)) return true;
  status->tightest = found;
  status->tightest_key = key;
  status->tightest_quota = key == nullptr ? call.quota[0]->name : std::string_view();
  return true;
}

// False if the pool shows what has changed.
static bool ask_quotas(const ShownPool &shown, TimeUs now, ProviderStatus *status) {
  ProviderRules *rules = shown.pool->rules;
  for (int i = 0; i < rules->quota_count; ++i) {
    CallMeters call = call_meters_of_quota(&rules->quotas[i], rules);
    if (!take_tighter(shown.tables, call, now, status, nullptr)) return false;
  }
  return true;
}

// Likewise.
static bool ask_keys(const ShownPool &shown, TimeUs now, ProviderStatus *status) {
  Pool *pool = shown.pool;
  for (int i = 0; i < pool->count; ++i) {
    CHECK_FOR_INTERRUPTS();
    KeyAnswer said = ask_key_of_any_model(shown.tables, pool, static_cast<uint32>(i));
    if (said.kind == KeyAnswer::kMoved) return false;
    KeyState state = key_state(said);
    ++status->keys[static_cast<int>(state)];
    if (state == KeyState::kOff) continue;
    if (said.kind == KeyAnswer::kWaits && (status->next_free_at == 0 || said.moment < status->next_free_at))
      status->next_free_at = said.moment;
    PoolKey *key = &pool->keys[i];
    CallMeters call = call_meters_of_key(&key->place, key->limits, pool->rules);
    if (!take_tighter(shown.tables, call, now, status, key)) return false;
  }
  return true;
}

// What the tightest limit is of: a quota's name, or a key's label or id.
static text *name_of_tightest(const ProviderStatus &status) {
  const PoolKey *key = status.tightest_key;
  std::string_view quota = status.tightest_quota;
  if (key == nullptr) return cstring_to_text_with_len(quota.data(), static_cast<int>(quota.size()));
  if (key->label != nullptr) return key->label;
  pg_uuid_t id;
  memcpy(id.data, key->place.id.bytes, UUID_LEN);
  return cstring_to_text(DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&id))));
}

static void put_status(ReturnSetInfo *result, text *provider, const ProviderStatus &status, TimeUs now) {
  Datum values[kStatusColumns] = {PointerGetDatum(provider)};
  bool nulls[kStatusColumns] = {};
  for (int i = 0; i < kStates; ++i) values[kFirstState + i] = Int64GetDatum(status.keys[i]);
  if (status.tightest.max != 0) {
    values[kTightestPercent] = Int64GetDatum(status.tightest.percent());
    values[kTightestLimit] = CStringGetTextDatum(keypool::LimitName(status.tightest.limit));
    values[kTightestOf] = PointerGetDatum(name_of_tightest(status));
  } else {
    nulls[kTightestPercent] = nulls[kTightestLimit] = nulls[kTightestOf] = true;
  }
  nulls[kRetryAfterMs] = status.keys[static_cast<int>(KeyState::kFree)] != 0 || status.next_free_at == 0;
  if (!nulls[kRetryAfterMs]) values[kRetryAfterMs] = Int64GetDatum(milliseconds_until(status.next_free_at, now));
  nulls[kShortSince] = nulls[kShortSeconds] = status.short_since == 0;
  values[kShortSince] = TimestampTzGetDatum(clock_to_timestamptz(status.short_since));
  values[kShortSeconds] = Int64GetDatum((now - status.short_since) / keypool::kMicrosPerSecond);
  tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static TimeUs short_since(text *provider, TimeUs now) {
  keypool::RefusalCounts counts;
  refusal_rows_read(text_view(provider), &counts);
  return keypool::ShortSince(counts, now);
}

static bool put_provider(ReturnSetInfo *result, text *provider, const ShownPool &shown) {
  ProviderStatus status = {};
  TimeUs now = clock_now();
  if (!ask_quotas(shown, now, &status) || !ask_keys(shown, now, &status)) return false;
  status.short_since = short_since(provider, now);
  put_status(result, provider, status, now);
  return true;
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_status);
Datum keypool_status(PG_FUNCTION_ARGS) { return show_providers(fcinfo, put_provider); }

}  // extern "C"
