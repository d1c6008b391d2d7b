// call_meters.h - the meters of one call as configuration sees them, and their upkeep.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/quota/call.h"
#include "pg/pool/provider_rules.h"
#include "pg/state/meter_store.h"

// The meters of one call as configuration sees them: the key's, then those of its quotas.
struct CallMeters {
  int count;
  MeterPlace *place[keypool::kMaxMeters];
  const keypool::Limits *limits[keypool::kMaxMeters];     // of the key: null where only settling asks
  const keypool::MeterRules *rules[keypool::kMaxMeters];  // by the time that call_meters_at was given last
  PoolQuota *quota[keypool::kMaxMeters];                  // null: it is the key's
  ProviderRules *provider;
};

CallMeters call_meters_of_key(MeterPlace *key, const keypool::Limits *limits, ProviderRules *provider);
void call_meters_add(CallMeters *call, PoolQuota *quota);  // which is not in it yet

// One quota alone, for what concerns no call.
CallMeters call_meters_of_quota(PoolQuota *quota, ProviderRules *provider);

// Sets the rules to a time; nothing is raised.
void call_meters_at(CallMeters *call, keypool::TimeUs now);

// Pins the pages of all of them. False, with nothing pinned, if a place no longer holds its meter.
bool call_meters_pin(const MeterTables &tables, const CallMeters &call, Meters *meters);

// Copies all of them as their next use will leave them. False if a place no longer holds its meter.
bool call_meters_copy(const MeterTables &tables, CallMeters *call, keypool::TimeUs now, keypool::Meter *copies);

// Whether one of the meters needs upkeep; they are locked.
bool needs_upkeep(const Meters &meters, const CallMeters &call, keypool::TimeUs now);

// Does it, logged, as a step of its own; none of the pages may be locked. False if a place no longer holds its meter.
// `hash` of the provider, whose ring is told.
bool do_upkeep(const MeterTables &tables, uint32 hash, CallMeters *call);

// The longest that anything may be blocked from now on.
keypool::TimeUs longest_block(const ProviderRules &rules);
