// drop_calls.cpp - giving back the places of calls whose callers died.
#include "pg/pool/drop_calls.h"

#include "pg/pool/change_meters.h"
#include "pg/pool/key_access.h"
#include "pg/server/report.h"

using keypool::TimeUs;

// Drops the calls of one meter. False if its place no longer holds it.
static bool drop_in_meter(const MeterTables &tables, uint32 hash, CallMeters call) {
  return change_meters(tables, hash, true, &call, [](keypool::MeterEdit *edits, const CallMeters &meters, TimeUs now) {
    return static_cast<uint8>(keypool::ClearMeter(&edits[0], keypool::Clears::kOpenCalls, *meters.rules[0],
                                                  longest_block(*meters.provider), now));
  });
}

// Those of a key, in its quotas, too. Likewise.
static bool drop_of_key(const MeterTables &tables, uint32 hash, CallMeters call) {
  return change_meters(tables, hash, true, &call, [](keypool::MeterEdit *edits, const CallMeters &meters, TimeUs now) {
    return keypool::DropCallsOfKey(edits, meters.rules, meters.count, longest_block(*meters.provider), now);
  });
}

// False if a place no longer holds its meter.
static bool drop_all(const MeterTables &tables, Pool *pool) {
  bool there = true;
  for (int i = 0; there && i < pool->count; ++i)
    there = drop_in_meter(tables, pool->hash, call_meters_of_key(&pool->keys[i].place, nullptr, pool->rules));
  for (int i = 0; there && i < pool->rules->quota_count; ++i)
    there = drop_in_meter(tables, pool->hash, call_meters_of_quota(&pool->rules->quotas[i], pool->rules));
  return there;
}

void drop_calls_of_provider(std::string_view provider) {
  for (int attempt = 0;; ++attempt) {
    MeterTables tables;
    Pool *pool = pool_cache_open_provider(provider, RowExclusiveLock, &tables);
    bool there = pool == nullptr || drop_all(tables, pool);
    meter_tables_close(tables);
    if (there) return;
    pool_cache_retry(pool->hash, attempt);
  }
}

void drop_calls_of_key(std::string_view provider, const keypool::KeyId &id) {
  for (int attempt = 0;; ++attempt) {
    MeterTables tables;
    KeyReference key = key_access_open(id, Right::kOperator, RowExclusiveLock, &tables);
    if (key.pool->provider != provider) report_unknown_key();
    CallMeters call = call_meters_of_key(key.place, key.limits, key.pool->rules);
    uint32 quotas[keypool::kQuotasOfKey];
    int count = quotas_for(*key.pool->rules, key.account, {}, quotas, lengthof(quotas));
    for (int i = 0; i < Min(count, keypool::kQuotasOfKey); ++i)
      call_meters_add(&call, &key.pool->rules->quotas[quotas[i]]);
    bool there = drop_of_key(tables, key.pool->hash, call);
    uint32 hash = key.pool->hash;
    meter_tables_close(tables);
    if (there) return;
    pool_cache_retry(hash, attempt);
  }
}
