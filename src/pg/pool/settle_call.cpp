// settle_call.cpp - ending a call, over all meters of the call.
#include "pg/pool/settle_call.h"

#include <cmath>

extern "C" {
#include "port/pg_bitutils.h"
}

#include "core/provider/error_rules.h"
#include "core/quota/model_pattern.h"
#include "pg/pool/blame.h"
#include "pg/pool/breaker_guard.h"
#include "pg/pool/remaining.h"
#include "pg/server/clock.h"
#include "pg/server/report.h"
#include "pg/server/settings.h"
#include "pg/state/event_log.h"
#include "pg/state/meter_log.h"
#include "pg/state/wakeups.h"

using keypool::AllowancePeriod;
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
  bool estimated = lease.usable && settlement.ending == Ending::kRecorded && !settlement.refused;
  Amounts used = amounts_used(settlement, estimated ? lease.lease.reservation.estimates : Amounts{});
  remarks->cut_amounts = keypool::CutToRange(&used);
  remarks->covered_parts = keypool::CoverParts(&used);
  return used;
}

// How long a 429 cools.
struct Cooldown {
  TimeUs time;
  AllowancePeriod used_up;  // kDay, kMonth: until that is over instead
};

// Any time will do: a provider's answer must not keep its 429 from cooling the key.
static Cooldown read_cooldown(const Settlement &settlement, const ProviderRules &rules, Remarks *remarks) {
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
  auto time = static_cast<TimeUs>(std::rint(Min(Max(seconds, 1), longest) * keypool::kMicrosPerSecond));
  return {time, settlement.has_cooldown ? AllowancePeriod::kUnknown : settlement.used_up};
}

//
// The meters of a call
//

// Those that the lease names; quotas that were deleted since are left out. Without a lease, those that apply to the
// key, whatever the model or for the one that is named.
// `*probes` gets those of which the call is the probe, by what the lease says.
static CallMeters find_meters(const Settlement &settlement, const ReadLease &lease, const KeyReference &key,
                              uint8 *probes) {
  ProviderRules *rules = key.pool->rules;
  CallMeters call = call_meters_of_key(key.place, key.limits, rules);
  if (lease.usable) {
    *probes = lease.lease.probe_flags & 1;
    for (int i = 0; i < keypool::kMaxQuotas; ++i) {
      uint16 tag = lease.lease.quota_tag[i];
      PoolQuota *quota = tag != 0 ? quota_of_tag(*rules, tag) : nullptr;
      if (quota == nullptr) continue;
      *probes |= static_cast<uint8>((lease.lease.probe_flags >> (i + 1) & 1) << call.count);
      call_meters_add(&call, quota);
    }
    return call;
  }
  uint32 quotas[keypool::kQuotasOfKey];
  int count = quotas_for(*rules, key.account, settlement.model, quotas, keypool::kQuotasOfKey);
  for (int i = 0; i < Min(count, keypool::kQuotasOfKey); ++i) call_meters_add(&call, &rules->quotas[quotas[i]]);
  return call;
}

static uint32 model_of(const Settlement &settlement, const ReadLease &lease) {
  if (lease.usable && lease.lease.model_hash != 0) return lease.lease.model_hash;
  return settlement.model.empty() ? 0 : keypool::ModelHash(settlement.model);
}

static void set_blames(const Settlement &settlement, const ReadLease &lease, const CallMeters &call, CallEnd *end,
                       Remarks *remarks) {
  Blame blame = blame_limited(call, settlement.scope);
  end->blames = blame.meters;
  if (blame.of_model) end->blamed_model = model_of(settlement, lease);
  remarks->other_quota = blame.other_quota;
}

// A call that was longer, and does not say when the provider wrote what it says, tells nothing of now.
static constexpr keypool::Second kShortCall = 2;

static bool hears_of_remaining(const Settlement &settlement, const ReadLease &lease) {
  if (settlement.answer == nullptr || settlement.answer->allowance_count == 0 || !lease.usable) return false;
  keypool::Second written = keypool::SecondOf(settlement.written);
  if (settlement.age_known) return keypool::SecondOf(clock_now()) - written <= keypool::kObservedSeconds;
  return written <= lease.lease.reservation.second + kShortCall;
}

// What is left is heard of; and, where a call succeeds, that other limits than the meters' are used up: of whatever a
// 429 would have blocked.
static void set_remaining(const Settlement &settlement, const ReadLease &lease, const CallMeters &call,
                          Remaining *remaining, CallEnd *end) {
  if (!hears_of_remaining(settlement, lease)) return;
  *remaining = remaining_of(*settlement.answer, call, settlement.written);
  end->observed = remaining->observed;
  end->observed_count = remaining->count;
  if (remaining->used_up_until <= settlement.written || settlement.health != keypool::Health::kServed) return;
  Blame blame = blame_limited(call, {});
  end->used_up = blame.meters;
  if (blame.of_model) end->used_up_model = model_of(settlement, lease);
  end->used_up_until = Min(remaining->used_up_until, clock_now() + longest_block(*call.provider));
}

//
// The step
//

// Until when what is blamed is blocked. The end of a period is that of the first of it.
static TimeUs block_until(const CallMeters &call, const CallEnd &end, const Cooldown &cooldown, TimeUs now) {
  if (cooldown.used_up == AllowancePeriod::kUnknown || end.blames == 0) return now + cooldown.time;
  const keypool::PeriodEnds &ends = call.rules[pg_rightmost_one_pos32(end.blames)]->ends;
  TimeUs over = keypool::StartOf(cooldown.used_up == AllowancePeriod::kMonth ? ends.month : ends.day);
  return Min(Max(over, now + cooldown.time), now + longest_block(*call.provider));
}

// Ends the call in meters that are locked, and are as they are configured.
static CallEnded end_under_lock(const Meters &meters, Wakeups *ring, const CallMeters &call, const Cooldown &cooldown,
                                TimeUs now, CallEnd *end, MeterChange *change) {
  end->until = block_until(call, *end, cooldown, keypool::CommonNow(meters.meter, call.count, now));
  meter_change_start(change, meters);
  CallEnded ended = keypool::EndCall(change->edits, call.rules, call.count, *end, longest_block(*call.provider), now);
  for (int i = 0; i < call.count; ++i)
    if ((ended.eased & (1 << i)) != 0) wakeups_post(ring, call.place[i]->id);
  meter_change_commit(change, meters);
  return ended;
}

// What must be done first, with nothing locked: then the step begins anew.
enum class Before : uint8 { kNothing, kOpenRing, kUpkeep, kMoved, kAskGuard };

// One try to end the call in its meters. Without the guard it opens no breaker that the guard watches over.
static Before try_to_end_call(const MeterTables &tables, Wakeups *ring, bool has_ring, CallMeters *call,
                              const Cooldown &cooldown, bool unguarded, CallEnd *end, CallEnded *ended) {
  MeterChange change;
  Meters meters = {};
  meter_change_begin(&change, tables, end->ending != Ending::kReleased);
  if (!call_meters_pin(tables, *call, &meters) || !meters_lock(&meters, BUFFER_LOCK_EXCLUSIVE)) {
    meter_change_abandon(&change);
    return Before::kMoved;
  }
  TimeUs now = clock_now();
  call_meters_at(call, now);
  bool asks = unguarded && keypool::WouldOpenBreaker(meters.meter, call->count, *end);
  Before before = needs_upkeep(meters, *call, now)                              ? Before::kUpkeep
                  : asks                                                        ? Before::kAskGuard
                  : !has_ring && keypool::AnyAwaited(meters.meter, call->count) ? Before::kOpenRing
                                                                                : Before::kNothing;
  if (before == Before::kNothing)
    *ended = end_under_lock(meters, ring, *call, cooldown, now, end, &change);
  else
    meter_change_abandon(&change);
  meters_unlock(&meters, false);
  return before;
}

// Ends the call in its meters; else kMoved or kAskGuard.
static Before end_call(const MeterTables &tables, uint32 hash, CallMeters *call, const Cooldown &cooldown,
                       bool unguarded, CallEnd *end, CallEnded *ended) {
  Wakeups ring = {};
  bool has_ring = false;  // or it is missing
  for (;;) {
    Before before = try_to_end_call(tables, &ring, has_ring, call, cooldown, unguarded, end, ended);
    if (before == Before::kOpenRing) {
      ring = wakeups_open(hash, RowExclusiveLock);
      has_ring = true;
      continue;
    }
    if (before == Before::kUpkeep && do_upkeep(tables, hash, call)) continue;
    wakeups_close(&ring);
    return before == Before::kUpkeep ? Before::kMoved : before;
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
  end.health = settlement.health;
  end.failure = settlement.failure;
  end.fails = settlement.fails_account ? blame_account(call) : kBlameKey;
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
  return {kind, ended.blocked_until, ended.failures, lease.problem};
}

// Whether a failure of this call may open the key's breaker; the guard then keeps others from asking.
static GuardSays ask_guard(const Settlement &settlement, const ReadLease &lease, Right right, BreakerGuard *guard) {
  bool asks = settlement.health == keypool::Health::kFailed && settlement.spares_pool && lease.usable && !lease.too_old;
  if (!asks) return GuardSays::kMayOpen;
  return breaker_guard_begin(settlement.key, settlement.failure, lease.lease.reservation.second, right, guard);
}

static void note_opened(const CallMeters &call, uint8 opened, uint8 reason, std::string_view provider) {
  const char *answer_class = keypool::AnswerClassName(static_cast<keypool::AnswerClass>(reason));
  for (int i = 0; i < call.count; ++i)
    if ((opened & (1 << i)) != 0) event_log_note({"breaker_opened", provider, &call.place[i]->id, answer_class});
}

// False if the guard must be asked anew, since the failure would open a breaker by now.
static bool settle(const Settlement &settlement, const ReadLease &lease, GuardSays guard, Right right,
                   Settled *settled) {
  for (int attempt = 0;; ++attempt) {
    KeyReference key;
    MeterTables tables;
    *settled = {Settled::kNoSuchKey, 0, 0, {}};
    if (!pool_cache_open_key(settlement.key, RowExclusiveLock, &key, &tables)) return true;
    privileges_require(right, key.pool->provider);
    if (!lease.problem.ok() && settlement.ending != Ending::kLimited) {
      meter_tables_close(tables);
      *settled = {Settled::kBadLease, 0, 0, lease.problem};
      return true;
    }
    uint8 probes = 0;
    CallMeters call = find_meters(settlement, lease, key, &probes);
    Remarks remarks = {};
    CallEnd end = describe_end(settlement, lease, call, &remarks);
    Remaining remaining;
    set_remaining(settlement, lease, call, &remaining, &end);
    end.probes = probes;
    end.only_suspects = guard == GuardSays::kOnlySuspects;
    Cooldown cooldown = {};
    if (end.ending == Ending::kLimited) cooldown = read_cooldown(settlement, *key.pool->rules, &remarks);
    CallEnded ended;
    uint32 hash = key.pool->hash;
    Before before = end_call(tables, hash, &call, cooldown, guard == GuardSays::kWouldNotOpen, &end, &ended);
    if (before == Before::kNothing) note_opened(call, ended.opened, settlement.failure.reason, key.pool->provider);
    meter_tables_close(tables);
    if (before == Before::kAskGuard) return false;
    if (before == Before::kNothing) {
      *settled = settled_of(lease, end.ending, ended, remarks);
      return true;
    }
    pool_cache_retry(hash, attempt);
  }
}

Settled settle_call(const Settlement &settlement, Right right) {
  ReadLease lease = read_lease(settlement);
  BreakerGuard guard = {};
  Settled settled;
  while (!settle(settlement, lease, ask_guard(settlement, lease, right, &guard), right, &settled))
    CHECK_FOR_INTERRUPTS();
  breaker_guard_end(&guard);
  return settled;
}
