// settle_call.cpp - ending a call, over all meters of the call.
#include "pg/pool/settle_call.h"

#include <cmath>

#include "core/quota/account.h"
#include "core/quota/model_pattern.h"
#include "pg/pool/call_meters.h"
#include "pg/pool/key_access.h"
#include "pg/server/clock.h"
#include "pg/server/report.h"
#include "pg/server/settings.h"
#include "pg/state/meter_log.h"
#include "pg/state/wakeups.h"

using keypool::Amounts;
using keypool::CallEnd;
using keypool::CallEnded;
using keypool::Ending;
using keypool::KeyId;
using keypool::Lease;
using keypool::LeaseAge;
using keypool::Status;
using keypool::TimeUs;

// What the lease of a call says.
struct ReadLease {
  bool usable;  // else as if none was given
  bool too_old;
  Lease lease;
  Status problem;  // of one that is not usable
};

static ReadLease read_lease(const Settlement &settlement) {
  ReadLease read = {};
  if (!settlement.has_lease) return read;
  LeaseAge age;
  read.problem = keypool::DecodeLease(settlement.key, settlement.lease, clock_now(), &read.lease, &age);
  read.too_old = age == LeaseAge::kTooOld;
  read.usable = read.problem.ok() || read.too_old;
  if (read.too_old) read.problem = {};
  return read;
}

//
// Amounts
//

// What was used, as far as the caller says. Of what it does not say the lease's estimate stands, as far as there is
// room for it in what it does say: who tells all tokens alone is not charged for more.
static Amounts amounts_used(const Settlement &settlement, const Amounts &estimates) {
  auto given_or = [](const GivenAmount &amount, int64 otherwise) { return amount.given ? amount.amount : otherwise; };
  Amounts used;
  used.tokens = given_or(settlement.tokens, estimates.tokens);
  used.output = given_or(settlement.output, Min(estimates.output, Max(used.tokens, 0)));
  used.cached = given_or(settlement.cached, Min(estimates.cached, Max(used.tokens - used.output, 0)));
  used.cost = given_or(settlement.cost, estimates.cost);
  return used;
}

// What of a settlement was not taken as it was given. It is told once the call has ended, which may take several tries.
struct Remarks {
  bool cut_amounts;
  bool covered_parts;
  bool other_quota;
  const char *cooldown;  // null: nothing
};

static void tell(const Remarks &remarks) {
  if (remarks.cut_amounts)
    ereport(NOTICE, errmsg("keypool: amounts below 0 count as 0, and those above their maximum as that"));
  if (remarks.covered_parts)
    ereport(NOTICE, errmsg("keypool: output_tokens and cached_tokens exceed tokens, and their sum stands"));
  if (remarks.other_quota)
    ereport(NOTICE, errmsg("keypool: the call did not draw on the quota that scope names; the usual one is blamed"));
  if (remarks.cooldown != nullptr) ereport(NOTICE, errmsg("keypool: %s", remarks.cooldown));
}

static Amounts read_amounts(const Settlement &settlement, const ReadLease &lease, Remarks *remarks) {
  bool estimated = lease.usable && settlement.ending == Ending::kRecorded;
  Amounts used = amounts_used(settlement, estimated ? lease.lease.reservation.estimates : Amounts{});
  remarks->cut_amounts = keypool::CutToRange(&used);
  remarks->covered_parts = keypool::CoverParts(&used);
  return used;
}

// How long a 429 cools. Any time will do: a provider's answer must not keep its 429 from cooling the key.
static TimeUs read_cooldown(const Settlement &settlement, const ProviderRules &rules, Remarks *remarks) {
  double longest = static_cast<double>(longest_block(rules)) / keypool::kMicrosPerSecond;
  double usual = rules.default_cooldown != 0 ? rules.default_cooldown : keypool_default_cooldown;
  double seconds = settlement.has_cooldown ? settlement.cooldown : usual;
  if (std::isnan(seconds)) {
    remarks->cooldown = "retry_after_seconds is not a number, and counts as not given";
    seconds = usual;
  } else if (seconds < 0) {
    remarks->cooldown = "retry_after_seconds is negative, and counts as one second";
  }
  if (seconds > longest)
    remarks->cooldown = rules.max_cooldown != 0 ? "the cooldown is cut to the provider's max_cooldown"
                                                : "the cooldown is cut to keypool.max_cooldown";
  return static_cast<TimeUs>(std::rint(Min(Max(seconds, 1), longest) * keypool::kMicrosPerSecond));
}

//
// The meters of a call
//

// Those that the lease names; quotas that were deleted since are left out. Without a lease, those that apply to the
// key, whatever the model or for the one that is named.
static CallMeters find_meters(const Settlement &settlement, const ReadLease &lease, const KeyReference &key) {
  ProviderRules *rules = key.pool->rules;
  CallMeters call = call_meters_of_key(key.place, nullptr, rules);
  if (lease.usable) {
    for (uint16 tag : lease.lease.quota_tag) {
      PoolQuota *quota = tag != 0 ? quota_of_tag(*rules, tag) : nullptr;
      if (quota != nullptr) call_meters_add(&call, quota);
    }
    return call;
  }
  uint32 quotas[keypool::kQuotasOfKey];
  int count = quotas_for(*rules, key.account, settlement.model, quotas, keypool::kQuotasOfKey);
  for (int i = 0; i < Min(count, keypool::kQuotasOfKey); ++i) call_meters_add(&call, &rules->quotas[quotas[i]]);
  return call;
}

//
// Whom a 429 blames
//

// Whether a quota has limits, and all of them are of cost: no provider answers 429 for those.
static bool limits_cost_only(const keypool::Limits &limits) {
  using keypool::Limit;
  bool cost = limits.of(Limit::kCostDay) != 0 || limits.of(Limit::kCostMonth) != 0;
  for (int i = 0; i < keypool::kLimits; ++i) {
    auto limit = static_cast<Limit>(i);
    if (limits.max[i] != 0 && limit != Limit::kCostDay && limit != Limit::kCostMonth) return false;
  }
  return cost;
}

// How narrow a quota is, the narrowest first: of models and an account, of an account, of models; then by the length of
// the account. 0 if a 429 is never its.
static int narrowness(const PoolQuota &quota) {
  static constexpr int kClass = 1 + keypool::kMaxAccountBytes;
  bool of_models = quota.models.models != nullptr || quota.models.except_models != nullptr;
  int length = static_cast<int>(quota.account.size());
  if (limits_cost_only(quota.limits) || (length == 0 && !of_models)) return 0;
  return kClass * (length == 0 ? 3 : of_models ? 1 : 2) - length;
}

// The meters of a call to blame, as CallEnd::blames.
static uint8 blame_narrowest(const CallMeters &call) {
  int narrowest = 0;
  uint8 blames = 0;
  for (int i = 1; i < call.count; ++i) {
    int its = narrowness(*call.quota[i]);
    if (its == 0 || (narrowest != 0 && its > narrowest)) continue;
    blames = static_cast<uint8>((its == narrowest ? blames : 0) | 1 << i);
    narrowest = its;
  }
  return blames;
}

static uint8 blame_account(const CallMeters &call) {
  uint8 blames = 0;
  for (int i = 1; i < call.count; ++i)
    if (!call.quota[i]->account.empty()) blames |= static_cast<uint8>(1 << i);
  return blames;
}

static uint8 blame_named(const CallMeters &call, std::string_view name, Remarks *remarks) {
  for (int i = 1; i < call.count; ++i)
    if (call.quota[i]->name == name) return static_cast<uint8>(1 << i);
  remarks->other_quota = true;
  return 0;
}

static uint32 model_of(const Settlement &settlement, const ReadLease &lease) {
  if (lease.usable && lease.lease.model_hash != 0) return lease.lease.model_hash;
  return settlement.model.empty() ? 0 : keypool::ModelHash(settlement.model);
}

static constexpr uint8 kBlameKey = 1;

static void set_blames(const Settlement &settlement, const ReadLease &lease, const CallMeters &call, CallEnd *end,
                       Remarks *remarks) {
  static constexpr std::string_view kOfQuota = "quota:";
  std::string_view scope = settlement.scope;
  bool usual = scope.empty() || scope == "quota";
  if (scope.substr(0, kOfQuota.size()) == kOfQuota) {
    end->blames = blame_named(call, scope.substr(kOfQuota.size()), remarks);
    usual = end->blames == 0;
  }
  if (usual) end->blames = blame_narrowest(call);
  Scope otherwise = call.provider->rate_limit_scope;
  usual = usual && end->blames == 0;
  if (scope == "account" || (usual && otherwise == Scope::kAccount)) end->blames = blame_account(call);
  if (scope == "model" || (usual && otherwise == Scope::kModel)) end->blamed_model = model_of(settlement, lease);
  if (end->blames == 0) end->blames = kBlameKey;
}

//
// The step
//

// Ends the call in meters that are locked, and are as they are configured.
static CallEnded end_under_lock(const Meters &meters, const Wakeups &ring, const CallMeters &call, TimeUs cooldown,
                                TimeUs now, CallEnd *end, MeterChange *change) {
  end->until = keypool::CommonNow(meters.meter, call.count, now) + cooldown;
  meter_change_start(change, meters);
  CallEnded ended = keypool::EndCall(change->edits, call.rules, call.count, *end, longest_block(*call.provider), now);
  for (int i = 0; i < call.count; ++i)
    if ((ended.eased & (1 << i)) != 0) wakeups_post(ring, call.place[i]->id);
  meter_change_commit(change, meters);
  return ended;
}

// What must be done first, with nothing locked: then the step begins anew.
enum class Before : uint8 { kNothing, kOpenRing, kUpkeep, kMoved };

// One try to end the call in its meters.
static Before try_to_end_call(const MeterTables &tables, const Wakeups &ring, bool has_ring, CallMeters *call,
                              TimeUs cooldown, CallEnd *end, CallEnded *ended) {
  MeterChange change;
  Meters meters = {};
  meter_change_begin(&change, tables, end->ending != Ending::kReleased);
  if (!call_meters_pin(tables, *call, &meters) || !meters_lock(&meters, BUFFER_LOCK_EXCLUSIVE)) {
    meter_change_abandon(&change);
    return Before::kMoved;
  }
  TimeUs now = clock_now();
  call_meters_at(call, now);
  Before before = needs_upkeep(meters, *call, now)                              ? Before::kUpkeep
                  : !has_ring && keypool::AnyAwaited(meters.meter, call->count) ? Before::kOpenRing
                                                                                : Before::kNothing;
  if (before == Before::kNothing)
    *ended = end_under_lock(meters, ring, *call, cooldown, now, end, &change);
  else
    meter_change_abandon(&change);
  meters_unlock(&meters, false);
  return before;
}

// Ends the call in its meters. False if a place no longer holds its meter.
static bool end_call(const MeterTables &tables, uint32 hash, CallMeters *call, TimeUs cooldown, CallEnd *end,
                     CallEnded *ended) {
  Wakeups ring = {};
  bool has_ring = false;  // or it is missing
  for (;;) {
    Before before = try_to_end_call(tables, ring, has_ring, call, cooldown, end, ended);
    if (before == Before::kOpenRing) {
      ring = wakeups_open(hash, RowExclusiveLock);
      has_ring = true;
      continue;
    }
    if (before == Before::kUpkeep && do_upkeep(tables, hash, call)) continue;
    wakeups_close(&ring);
    return before == Before::kNothing;
  }
}

static CallEnd describe_end(const Settlement &settlement, const ReadLease &lease, const CallMeters &call,
                            Remarks *remarks) {
  CallEnd end = {};
  end.ending = settlement.ending;
  end.has_lease = lease.usable;
  end.too_old = lease.too_old;
  end.only_blocks = !lease.problem.ok();
  end.without_model = !settlement.has_lease && settlement.model.empty() && call.provider->tells_models_apart;
  end.reservation = lease.lease.reservation;
  end.used = read_amounts(settlement, lease, remarks);
  if (end.ending == Ending::kLimited) set_blames(settlement, lease, call, &end, remarks);
  return end;
}

static Settled settled_of(const ReadLease &lease, Ending ending, const CallEnded &ended, const Remarks &remarks) {
  tell(remarks);
  if (lease.too_old)
    ereport(NOTICE, ending == Ending::kReleased
                        ? errmsg("keypool: the lease is too old to be given back")
                        : errmsg("keypool: the lease is too old to be settled, and the call counts in totals only"));
  Settled::Kind kind = !lease.problem.ok() ? Settled::kBadLease : ended.counted ? Settled::kCounted : Settled::kBefore;
  return {kind, ended.blocked_until, lease.problem};
}

Settled settle_call(const Settlement &settlement, Right right) {
  ReadLease lease = read_lease(settlement);
  bool refused = !lease.problem.ok() && settlement.ending != Ending::kLimited;
  for (int attempt = 0;; ++attempt) {
    KeyReference key;
    MeterTables tables;
    if (!pool_cache_open_key(settlement.key, RowExclusiveLock, &key, &tables)) return {Settled::kNoSuchKey, 0, {}};
    privileges_require(right, key.pool->provider);
    if (refused) {
      meter_tables_close(tables);
      return {Settled::kBadLease, 0, lease.problem};
    }
    CallMeters call = find_meters(settlement, lease, key);
    Remarks remarks = {};
    CallEnd end = describe_end(settlement, lease, call, &remarks);
    TimeUs cooldown = end.ending == Ending::kLimited ? read_cooldown(settlement, *key.pool->rules, &remarks) : 0;
    CallEnded ended;
    uint32 hash = key.pool->hash;
    bool there = end_call(tables, hash, &call, cooldown, &end, &ended);
    meter_tables_close(tables);
    if (there) return settled_of(lease, end.ending, ended, remarks);
    pool_cache_retry(hash, attempt);
  }
}

//
// Ending cooldowns
//

// Ends the cooldowns of one meter. False if the place no longer holds it.
static bool clear_meter(const MeterTables &tables, uint32 hash, CallMeters *meter) {
  Wakeups ring = wakeups_open(hash, RowExclusiveLock);
  MeterChange change;
  Meters meters = {};
  meter_change_begin(&change, tables, true);
  bool there = call_meters_pin(tables, *meter, &meters) && meters_lock(&meters, BUFFER_LOCK_EXCLUSIVE);
  if (there) {
    TimeUs now = clock_now();
    call_meters_at(meter, now);
    meter_change_start(&change, meters);
    bool eased = keypool::EndCooldown(&change.edits[0], *meter->rules[0], longest_block(*meter->provider), now);
    if (eased) wakeups_post(ring, meter->place[0]->id);
    meter_change_commit(&change, meters);
    meters_unlock(&meters, false);
  } else {
    meter_change_abandon(&change);
  }
  wakeups_close(&ring);
  return there;
}

void clear_blocks_of_key(const KeyId &id) {
  for (int attempt = 0;; ++attempt) {
    MeterTables tables;
    KeyReference key = key_access_open(id, Right::kOperator, RowExclusiveLock, &tables);
    uint32 hash = key.pool->hash;
    CallMeters meter = call_meters_of_key(key.place, nullptr, key.pool->rules);
    bool there = clear_meter(tables, hash, &meter);
    meter_tables_close(tables);
    if (there) return;
    pool_cache_retry(hash, attempt);
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
    there = clear_meter(tables, pool->hash, &meter);
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
