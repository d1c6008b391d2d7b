// call_meters.cpp - the meters of one call as configuration sees them, and their upkeep.
#include "pg/pool/call_meters.h"

#include <algorithm>

#include "pg/pool/change_meters.h"
#include "pg/server/settings.h"

using keypool::TimeUs;

CallMeters call_meters_of_key(MeterPlace *key, const keypool::Limits *limits, ProviderRules *provider) {
  CallMeters call = {};
  call.count = 1;
  call.place[0] = key;
  call.limits[0] = limits;
  call.provider = provider;
  return call;
}

// A lease is no signature: one that somebody made may name a quota twice.
void call_meters_add(CallMeters *call, PoolQuota *quota) {
  Assert(std::find(call->quota, call->quota + call->count, quota) == call->quota + call->count);
  Assert(call->count < keypool::kMaxMeters);
  call->place[call->count] = &quota->place;
  call->limits[call->count] = &quota->limits;
  call->quota[call->count++] = quota;
}

CallMeters call_meters_of_quota(PoolQuota *quota, ProviderRules *provider) {
  CallMeters call = {};
  call.provider = provider;
  call_meters_add(&call, quota);
  return call;
}

void call_meters_at(CallMeters *call, TimeUs now) {
  for (int i = 0; i < call->count; ++i)
    call->rules[i] =
        call->quota[i] != nullptr ? quota_rules_at(call->quota[i], now) : key_rules_at(call->provider, now);
}

bool call_meters_pin(const MeterTables &tables, const CallMeters &call, Meters *meters) {
  int keys = call.quota[0] == nullptr;
  if (keys == 1 && !meters_pin_key(tables, call.place[0], meters)) return false;
  return meters_pin_quotas(tables, call.place + keys, call.count - keys, meters);
}

bool call_meters_copy(const MeterTables &tables, CallMeters *call, TimeUs now, keypool::Meter *copies) {
  Meters meters = {};
  if (!call_meters_pin(tables, *call, &meters) || !meters_lock(&meters, BUFFER_LOCK_SHARE)) return false;
  for (int i = 0; i < call->count; ++i) copies[i] = *meters.meter[i];
  meters_unlock(&meters, false);
  call_meters_at(call, now);
  for (int i = 0; i < call->count; ++i) {
    keypool::MeterEdit edit(&copies[i]);
    keypool::Upkeep(&edit, *call->rules[i], longest_block(*call->provider), now);
  }
  return true;
}

bool needs_upkeep(const Meters &meters, const CallMeters &call, TimeUs now) {
  bool needs = false;
  for (int i = 0; i < call.count; ++i) needs = needs || keypool::NeedsUpkeep(*meters.meter[i], *call.rules[i], now);
  return needs;
}

TimeUs longest_block(const ProviderRules &rules) {
  return (rules.max_cooldown != 0 ? rules.max_cooldown : keypool_max_cooldown) * keypool::kMicrosPerSecond;
}

static void log_wrong_clock(const keypool::KeyId &id) {
  pg_uuid_t uuid;
  memcpy(uuid.data, id.bytes, UUID_LEN);
  ereport(LOG,
          errmsg("keypool: the counters of %s were ahead of the clock, and were moved to now",
                 DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&uuid)))),
          errhint("The server's clock was wrong once. Limits hold; blocks and periods were cut."));
}

bool do_upkeep(const MeterTables &tables, uint32 hash, CallMeters *call) {
  bool was_wrong[keypool::kMaxMeters] = {};
  bool there = change_meters(tables, hash, false, call,
                             [&](keypool::MeterEdit *edits, const CallMeters &meters, TimeUs now) {
                               uint8 eased = 0;
                               for (int i = 0; i < meters.count; ++i) {
                                 was_wrong[i] = keypool::ClockWasWrong(edits[i].meter(), now);
                                 TimeUs max_block = longest_block(*meters.provider);
                                 eased |= keypool::Upkeep(&edits[i], *meters.rules[i], max_block, now) << i;
                               }
                               return eased;
                             });
  for (int i = 0; i < call->count; ++i)
    if (was_wrong[i]) log_wrong_clock(call->place[i]->id);
  return there;
}
