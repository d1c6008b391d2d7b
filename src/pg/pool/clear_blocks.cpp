// clear_blocks.cpp - ending the cooldowns of keys and quotas, and closing their breakers.
#include "pg/pool/clear_blocks.h"

#include "pg/pool/change_meters.h"
#include "pg/pool/key_access.h"
#include "pg/server/report.h"

using keypool::Clears;
using keypool::KeyId;
using keypool::TimeUs;

// Clears one meter. False if the place no longer holds it.
static bool clear_meter(const MeterTables &tables, uint32 hash, Clears what, CallMeters *meter) {
  return change_meters(tables, hash, true, meter, [=](keypool::MeterEdit *edits, const CallMeters &call, TimeUs now) {
    return static_cast<uint8>(keypool::ClearMeter(&edits[0], what, *call.rules[0], longest_block(*call.provider), now));
  });
}

// Clears a key that was found; closes the tables. False if its place no longer holds its meter.
static bool clear_key(const MeterTables &tables, const KeyReference &key, Clears what, int attempt) {
  uint32 hash = key.pool->hash;
  CallMeters meter = call_meters_of_key(key.place, key.limits, key.pool->rules);
  bool there = clear_meter(tables, hash, what, &meter);
  meter_tables_close(tables);
  if (!there) pool_cache_retry(hash, attempt);
  return there;
}

void clear_blocks_of_key(const KeyId &id) {
  for (int attempt = 0;; ++attempt) {
    MeterTables tables;
    KeyReference key = key_access_open(id, Right::kOperator, RowExclusiveLock, &tables);
    if (clear_key(tables, key, Clears::kAllBlocks, attempt)) return;
  }
}

void close_breaker_of_key(const KeyId &id) {
  for (int attempt = 0;; ++attempt) {
    MeterTables tables;
    KeyReference key;
    if (!pool_cache_open_key(id, RowExclusiveLock, &key, &tables)) return;
    if (clear_key(tables, key, Clears::kBreaker, attempt)) return;
  }
}

[[noreturn]] static void report_unknown_quota(std::string_view name) {
  ereport(ERROR, errcode(ERRCODE_KEYPOOL_NOT_FOUND),
          errmsg("quota \"%s\" does not exist", pnstrdup(name.data(), name.size())));
  pg_unreachable();
}

// One of the provider's quotas, or all of them. False if a place no longer holds its meter.
static bool clear_quotas(const MeterTables &tables, Pool *pool, std::string_view name, bool all) {
  ProviderRules *rules = pool->rules;
  if (!all && quota_of_name(*rules, name) == nullptr) report_unknown_quota(name);
  bool there = true;
  for (int i = 0; i < rules->quota_count && there; ++i) {
    if (!all && rules->quotas[i].name != name) continue;
    CallMeters meter = call_meters_of_quota(&rules->quotas[i], rules);
    there = clear_meter(tables, pool->hash, Clears::kAllBlocks, &meter);
  }
  return there;
}

void clear_blocks_of_quotas(std::string_view provider, std::string_view quota, bool all) {
  for (int attempt = 0;; ++attempt) {
    MeterTables tables;
    Pool *pool = pool_cache_open_rules(provider, RowExclusiveLock, &tables);
    uint32 hash = pool->hash;
    bool there = clear_quotas(tables, pool, quota, all);
    meter_tables_close(tables);
    if (there) return;
    pool_cache_retry(hash, attempt);
  }
}
