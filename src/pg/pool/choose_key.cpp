// choose_key.cpp - finding the key of a pool that serves a request, and reserving it.
#include "pg/pool/choose_key.h"

#include "core/quota/model_pattern.h"
#include "pg/pool/ask_key.h"
#include "pg/pool/call_meters.h"
#include "pg/pool/key_secret.h"
#include "pg/pool/model_orders.h"
#include "pg/pool/preferred_keys.h"
#include "pg/secrets/master_keys.h"
#include "pg/server/clock.h"
#include "pg/server/settings.h"
#include "pg/state/meter_log.h"
#include "pg/state/wakeups.h"

using keypool::Amounts;
using keypool::Aside;
using keypool::KeyId;
using keypool::kMaxMeters;
using keypool::Look;
using keypool::Meter;
using keypool::TimeUs;
using keypool::Verdict;
using keypool::Walk;

TimeUs walker_now(const Walker &walker) { return Max(clock_now(), walker.not_before); }

// What a look at a key came to.
enum class Looked : uint8 { kDone, kAgain, kGone, kOtherModel };

// Looks at what needs no lock. False if the key, or one of its quotas, is out of this walk.
static bool is_eligible(Walker *walker, uint32 index, const CallMeters &call, Walk *walk) {
  keypool::Limit ignored;
  if (request_excludes(walker->request, call.place[0]->id)) {
    walk->SetAside(Aside::kExcluded);
    return false;
  }
  if (!key_secret_opens(walker->pool, index, &walker->choice->refusal.problem)) {
    walk->SetAside(Aside::kUnopened);
    return false;
  }
  if (!keypool::CanEverServe(*call.limits[0], walker->amounts, &ignored)) {
    walk->SetAside(Aside::kTooLarge);
    return false;
  }
  const uint32_t *quotas = walker->order->order.QuotasOf(walk->key());
  for (int i = 1; i < call.count; ++i) {
    if (keypool::CanEverServe(*call.limits[i], walker->amounts, &ignored)) continue;
    walk->SetQuotaAside(quotas[i - 1]);
    return false;
  }
  return true;
}

CallMeters walker_meters(const Walker &walker, uint32 candidate) {
  PoolKey *key = &walker.pool->keys[walker.order->keys[candidate]];
  CallMeters call = call_meters_of_key(&key->place, key->limits, walker.pool->rules);
  const uint32_t *quotas = walker.order->order.QuotasOf(candidate);
  for (int i = 0; i < keypool::kQuotasOfKey && quotas[i] != keypool::kNoIndex; ++i)
    call_meters_add(&call, &walker.pool->rules->quotas[quotas[i]]);
  return call;
}

keypool::LookAsk walker_ask(const Walker &walker, uint32 index, TimeUs now) {
  const PoolKey &key = walker.pool->keys[index];
  return {{walker.amounts, walker.model_hash, now},
          key.place.id,
          key.weight,
          walker.pool->rules->takes_turns,
          walker.order->memory.newest};
}

// Where the key stands by its turn, which is read without a lock.
static int64 standing_of(const Walker &walker, uint32 index, int64 turn) {
  if (!walker.pool->rules->takes_turns) return turn;
  const PoolKey &key = walker.pool->keys[index];
  return keypool::StandingTurn(turn, walker.order->memory.newest, key.place.id, key.weight);
}

bool walker_must_tell_apart(const Walker &walker, const Meter &key, TimeUs now) {
  return walker.model_hash != 0 && walker.order->apart == 0 && keypool::IsModelBlocked(key, walker.model_hash, now);
}

static void post_eased(const Walker &walker, const CallMeters &call, uint8 eased) {
  for (int i = 0; i < call.count; ++i)
    if ((eased & (1 << i)) != 0) wakeups_post(walker.ring, call.place[i]->id);
}

void walker_reserve(const Walker &walker, const CallMeters &call, const Look &look, bool tells, TimeUs now,
                    const Meters &meters, MeterChange *change) {
  if (change != nullptr) meter_change_start(change, meters);
  Meter *const *changed = change != nullptr ? change->meter : meters.meter;
  TimeUs common = keypool::CommonNow(changed, call.count, now);
  bool without_model = walker.model_hash == 0 && walker.order->tells_apart;
  keypool::CallBegun begun =
      keypool::ReserveCall(changed, call.rules, call.count, {walker.amounts, look.next, tells, without_model}, now);
  walker.choice->lease.reservation = begun.reservation;
  walker.choice->lease.probe_flags = begun.probes;
  post_eased(walker, call, begun.eased);
  if (change == nullptr) return;
  for (int i = 0; i < call.count; ++i) keypool::NoteReservation(&change->edits[i], common);
  meter_change_commit(change, meters);
}

// Decides under the locks, and in the same step notes what is remembered, and reserves. True if hints were changed.
static bool decide(const Walker &walker, uint32 index, const CallMeters &call, TimeUs now, const Meters &meters,
                   MeterChange *change, Walk *walk) {
  Look look;
  keypool::LookAt(meters.meter, call.limits, call.count, walker_ask(walker, index, now), &look);
  uint64 posted = walk->NeedsPosted(look) ? wakeups_posted(*walker.ring) : 0;
  Verdict verdict = walk->Judge(look, posted, now);
  for (int i = 0; i < call.count; ++i)
    if ((verdict.awaits & (1 << i)) != 0) meters.meter[i]->reserved.awaited |= keypool::AwaitedFor(*call.limits[i]);
  bool reserves = verdict.serves && walker.reserves;
  if (reserves) walker_reserve(walker, call, look, verdict.tells, now, meters, change);
  if (!reserves && change != nullptr) meter_change_abandon(change);
  return reserves || verdict.awaits != 0;
}

// Decides by copies of the meters that are up to their configuration: what a peek does with meters that are not.
static void decide_by_copies(const Walker &walker, uint32 index, const CallMeters &call, TimeUs now,
                             const Meters &meters, Walk *walk) {
  Meter copies[kMaxMeters];
  Meters copied = meters;
  for (int i = 0; i < call.count; ++i) {
    copies[i] = *meters.meter[i];
    keypool::MeterEdit edit(&copies[i]);
    keypool::Upkeep(&edit, *call.rules[i], longest_block(*call.provider), now);
    copied.meter[i] = &copies[i];
  }
  decide(walker, index, call, now, copied, nullptr, walk);
}

// Locks the meters of a key that are pinned, and decides.
static Looked look_under_lock(Walker *walker, uint32 index, CallMeters *call, int64 turn, Meters *meters, Walk *walk) {
  MeterChange change;
  bool logs = walker->reserves && keypool_log_reservations;
  if (logs) meter_change_begin(&change, walker->tables, false);
  MetersLock locked = walker->reserves ? meters_lock_unless_selected(meters, BUFFER_LOCK_EXCLUSIVE, turn)
                      : meters_lock(meters, BUFFER_LOCK_SHARE) ? MetersLock::kLocked
                                                               : MetersLock::kGone;
  if (locked != MetersLock::kLocked) {
    if (logs) meter_change_abandon(&change);
    if (locked == MetersLock::kSelected) meters_unpin(meters);
    return locked == MetersLock::kSelected ? Looked::kDone : Looked::kGone;
  }
  TimeUs now = walker_now(*walker);
  call_meters_at(call, now);
  bool keeps_up = needs_upkeep(*meters, *call, now);
  bool apart = walker_must_tell_apart(*walker, *meters->meter[0], now);
  bool changed = false;
  if (keeps_up && !walker->reserves)
    decide_by_copies(*walker, index, *call, now, *meters, walk);
  else if (!keeps_up && !apart)
    changed = decide(*walker, index, *call, now, *meters, logs ? &change : nullptr, walk);
  else if (logs)
    meter_change_abandon(&change);
  meters_unlock(meters, changed);
  if (apart) return Looked::kOtherModel;
  return keeps_up && walker->reserves ? Looked::kAgain : Looked::kDone;
}

// Looks at the key that the walk names.
static Looked look_at_key(Walker *walker, Walk *walk) {
  uint32 index = walker->order->keys[walk->key()];
  CallMeters call = walker_meters(*walker, walk->key());
  if (!is_eligible(walker, index, call, walk)) return Looked::kDone;
  for (;;) {
    CHECK_FOR_INTERRUPTS();
    Meters meters = {};
    if (!meters_pin_key(walker->tables, call.place[0], &meters)) return Looked::kGone;
    int64 turn = meters_turn(meters);
    if (walk->StandsLater(standing_of(*walker, index, turn))) {
      meters_unpin(&meters);
      return Looked::kDone;
    }
    if (!meters_pin_quotas(walker->tables, call.place + 1, call.count - 1, &meters)) return Looked::kGone;
    Looked looked = look_under_lock(walker, index, &call, turn, &meters, walk);
    if (looked != Looked::kAgain) return looked;
    if (!do_upkeep(walker->tables, walker->pool->hash, &call)) return Looked::kGone;
  }
}

static void open_ring(Walker *walker, Walk *walk) {
  if (!walker->asked_ring)
    *walker->ring = wakeups_open(walker->pool->hash, walker->reserves ? RowExclusiveLock : AccessShareLock);
  walker->asked_ring = true;
  if (wakeups_is_open(*walker->ring))
    walk->RingOpened(wakeups_posted(*walker->ring));
  else
    walk->RingMissing();
}

// Lets what was posted since the last time serve again.
static void read_ring(Walker *walker) {
  if (!wakeups_is_open(*walker->ring)) return;
  KeyId meters[keypool::kRingPosts];
  bool lost;
  uint32 count = wakeups_read(*walker->ring, &walker->order->memory.posts_seen, meters, &lost);
  if (lost) walker->order->order.WakeAll();
  for (uint32 i = 0; i < count; ++i) {
    PoolMember member = pool_cache_find(*walker->pool, meters[i]);
    if (member.kind == PoolMember::kQuota) walker->order->order.WakeQuota(member.index);
    if (member.kind != PoolMember::kKey) continue;
    uint32 candidate = walker->order->candidate_of[member.index];
    if (candidate != keypool::kNoIndex) walker->order->order.Wake(candidate);
  }
}

static void set_found(const Walker &walker, uint32 candidate) {
  Choice *choice = walker.choice;
  choice->kind = Choice::kFound;
  choice->index = walker.order->keys[candidate];
  choice->lease.model_hash = walker.model_hash;
  const uint32_t *quotas = walker.order->order.QuotasOf(candidate);
  for (int i = 0; i < keypool::kQuotasOfKey && quotas[i] != keypool::kNoIndex; ++i)
    choice->lease.quota_tag[i] = walker.pool->rules->quotas[quotas[i]].tag;
}

static void set_refusal(const Walker &walker, const Walk &walk, bool has_gone_key) {
  Refusal *refusal = &walker.choice->refusal;
  refusal->walk = walk.refusal();
  bool nothing_else = !refusal->walk.waits && !refusal->walk.too_large && !refusal->walk.unopened;
  // There is nothing but keys that are gone for the refusal to be about: look again.
  walker.choice->kind = has_gone_key && nothing_else ? Choice::kMoved : Choice::kNone;
  refusal->serves_model = walker.order->count > 0;
  for (int i = 0; i < walker.pool->count && !refusal->serves_model; ++i)
    refusal->serves_model = model_rule_serves(walker.pool->keys[i].models, walker.request.model);
  if (walker.order->has_returning) refusal->returns_at = first_return(walker.tables, walker.pool, walker.request);
}

// Walks until the answer is there. False if the model must be told apart first.
static bool walk_order(Walker *walker) {
  uint32 candidate;
  Asked preferred = walker->request.affinity.empty() ? Asked::kRefuses : ask_preferred_keys(walker, &candidate);
  if (preferred == Asked::kServes) set_found(*walker, candidate);
  if (preferred == Asked::kServes || preferred == Asked::kOtherModel) return preferred == Asked::kServes;
  Walk walk(&walker->order->order, &walker->order->memory, walker->amounts, walker->reserves, !RecoveryInProgress(),
            walker_now(*walker));
  bool has_gone_key = false;
  for (;;) {
    CHECK_FOR_INTERRUPTS();
    switch (walk.Next()) {
      case Walk::Step::kOpenRing:
        open_ring(walker, &walk);
        break;
      case Walk::Step::kReadRing:
        read_ring(walker);
        walker->choice->refusal = {};
        has_gone_key = false;
        walk.BeginAgain(walker_now(*walker));
        break;
      case Walk::Step::kLook: {
        Looked looked = look_at_key(walker, &walk);
        if (walker->pool->keyring_generation != master_keys_generation()) {
          walker->choice->kind = Choice::kOtherKeyring;
          return true;
        }
        if (looked == Looked::kOtherModel) return false;
        if (looked != Looked::kGone) break;
        // If that may have been before the call, so may have been changes that the pool does not show.
        if (!walker->pool->fresh) {
          walker->choice->kind = Choice::kMoved;
          return true;
        }
        has_gone_key = true;
        walk.SetAside(Aside::kExcluded);
        break;
      }
      case Walk::Step::kFound:
        set_found(*walker, walk.key());
        return true;
      case Walk::Step::kNone:
        set_refusal(*walker, walk, has_gone_key);
        return true;
    }
  }
}

void choose_key(const MeterTables &tables, Pool *pool, const Request &request, Choice *choice) {
  match_keyring(pool);
  uint32 model_hash = request.model.empty() ? 0 : keypool::ModelHash(request.model);
  bool done = false;
  while (!done) {
    *choice = {};
    ModelOrder *order = model_order_open(pool, request.model, clock_now());
    Wakeups ring = {};
    Walker walker = {tables,
                     pool,
                     order,
                     request,
                     request_amounts(request, *pool->rules),
                     model_hash,
                     request.effect == Effect::kSelect,
                     request.effect == Effect::kSelect ? clock_first_second() : 0,
                     &ring,
                     false,
                     choice};
    done = walk_order(&walker);
    wakeups_close(&ring);
    if (!done) model_orders_tell_apart(pool, model_hash);
  }
}
