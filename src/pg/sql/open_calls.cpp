// open_calls.cpp - keypool_open_calls: calls that were selected and are not settled yet.
#include "pg/server/postgres_api.h"

#include "core/quota/open_calls.h"
#include "pg/pool/call_meters.h"
#include "pg/server/clock.h"
#include "pg/sql/provider_pools.h"

using keypool::OpenSince;
using keypool::TimeUs;

static void put_calls(ReturnSetInfo *result, text *provider, const PoolKey &key, const OpenSince &since, TimeUs now) {
  pg_uuid_t id;
  memcpy(id.data, key.place.id.bytes, UUID_LEN);
  auto age = static_cast<int64>(keypool::SecondOf(now)) - since.last;
  Datum values[] = {PointerGetDatum(provider),
                    UUIDPGetDatum(&id),
                    PointerGetDatum(key.label),
                    TimestampTzGetDatum(clock_to_timestamptz(keypool::StartOf(since.first))),
                    TimestampTzGetDatum(clock_to_timestamptz(keypool::StartOf(since.last) + keypool::kMicrosPerSecond)),
                    Int64GetDatum(Max(age, 0)),
                    Int64GetDatum(since.calls),
                    Int64GetDatum(since.tokens)};
  bool nulls[lengthof(values)] = {};
  nulls[2] = key.label == nullptr;
  tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

// False if the pool shows what has changed.
static bool put_calls_of_keys(ReturnSetInfo *result, text *provider, const ShownPool &shown) {
  TimeUs now = clock_now();
  for (int i = 0; i < shown.pool->count; ++i) {
    CHECK_FOR_INTERRUPTS();
    PoolKey *key = &shown.pool->keys[i];
    CallMeters call = call_meters_of_key(&key->place, key->limits, shown.pool->rules);
    keypool::Meter meter;
    if (!call_meters_copy(shown.tables, &call, now, &meter)) return false;
    OpenSince open[keypool::kMaxOpenSince];
    int count = keypool::ListOpenCalls(meter, now, open);
    for (int j = 0; j < count; ++j) put_calls(result, provider, *key, open[j], now);
  }
  return true;
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_open_calls);
Datum keypool_open_calls(PG_FUNCTION_ARGS) { return show_providers(fcinfo, put_calls_of_keys); }

}  // extern "C"
