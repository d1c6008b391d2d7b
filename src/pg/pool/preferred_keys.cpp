// preferred_keys.cpp - asking the keys that a conversation prefers.
#include "pg/pool/preferred_keys.h"

#include "pg/pool/affinity_keys.h"
#include "pg/pool/ask_key.h"
#include "pg/pool/key_secret.h"
#include "pg/secrets/master_keys.h"
#include "pg/server/settings.h"

using keypool::Look;
using keypool::Status;
using keypool::TimeUs;

// So many of them are asked.
static constexpr int kMostPreferred = 8;

static bool may_serve_ever(Walker *walker, uint32 index, const CallMeters &call) {
  Status ignored;
  keypool::Limit limit;
  if (request_excludes(walker->request, call.place[0]->id) || !key_secret_opens(walker->pool, index, &ignored))
    return false;
  for (int i = 0; i < call.count; ++i)
    if (!keypool::CanEverServe(*call.limits[i], walker->amounts, &limit)) return false;
  return true;
}

// What must be done before the key is reserved, with nothing locked.
enum class Prepare : uint8 { kNothing, kUpkeep, kOpenRing };

// Reserves the key, under its locks, if it serves the request.
static Asked reserve_preferred(Walker *walker, uint32 index, const CallMeters &call, const Meters &meters, TimeUs now,
                               MeterChange *change, Prepare *prepare) {
  *prepare = needs_upkeep(meters, call, now) ? Prepare::kUpkeep : Prepare::kNothing;
  if (*prepare != Prepare::kNothing) return Asked::kRefuses;
  if (walker_must_tell_apart(*walker, *meters.meter[0], now)) return Asked::kOtherModel;
  Look look;
  keypool::LookAt(meters.meter, call.limits, call.count, walker_ask(*walker, index, now), &look);
  int64 *newest = &walker->order->memory.newest;
  *newest = Max(*newest, look.standing);
  if (look.refused()) return Asked::kRefuses;
  if (look.tells && !walker->asked_ring) {
    *prepare = Prepare::kOpenRing;
    return Asked::kRefuses;
  }
  walker_reserve(*walker, call, look, look.tells && wakeups_is_open(*walker->ring), now, meters, change);
  *newest = Max(*newest, look.next);
  return Asked::kServes;
}

static void open_ring_of(Walker *walker) {
  *walker->ring = wakeups_open(walker->pool->hash, RowExclusiveLock);
  walker->asked_ring = true;
}

static Asked select_preferred(Walker *walker, uint32 index, CallMeters *call) {
  for (;;) {
    CHECK_FOR_INTERRUPTS();
    MeterChange change;
    Meters meters = {};
    if (keypool_log_reservations) meter_change_begin(&change, walker->tables, false);
    if (!call_meters_pin(walker->tables, *call, &meters) || !meters_lock(&meters, BUFFER_LOCK_EXCLUSIVE)) {
      if (keypool_log_reservations) meter_change_abandon(&change);
      return Asked::kGone;
    }
    TimeUs now = walker_now(*walker);
    call_meters_at(call, now);
    Prepare prepare;
    Asked asked =
        reserve_preferred(walker, index, *call, meters, now, keypool_log_reservations ? &change : nullptr, &prepare);
    if (keypool_log_reservations && asked != Asked::kServes) meter_change_abandon(&change);
    meters_unlock(&meters, asked == Asked::kServes);
    if (prepare == Prepare::kNothing) return asked;
    if (prepare == Prepare::kOpenRing)
      open_ring_of(walker);
    else if (!do_upkeep(walker->tables, walker->pool->hash, call))
      return Asked::kGone;
  }
}

static Asked ask_preferred(Walker *walker, uint32 candidate) {
  uint32 index = walker->order->keys[candidate];
  CallMeters call = walker_meters(*walker, candidate);
  if (!may_serve_ever(walker, index, call)) return Asked::kLeftOut;
  if (walker->reserves) return select_preferred(walker, index, &call);
  KeyAnswer answer = ask_key(walker->tables, walker->pool, index, walker->request);
  return answer.kind == KeyAnswer::kServes  ? Asked::kServes
         : answer.kind == KeyAnswer::kMoved ? Asked::kGone
                                            : Asked::kRefuses;
}

Asked ask_preferred_keys(Walker *walker, uint32 *candidate) {
  keypool::AffinityWalk walk(affinity_keys(*walker->pool, walker->order), walker->order->count,
                             keypool::AffinityHash(walker->request.affinity));
  for (int asked = 0; asked < kMostPreferred && walk.Next(candidate);) {
    Asked answer = ask_preferred(walker, *candidate);
    if (walker->pool->keyring_generation != master_keys_generation()) return Asked::kRefuses;
    if (answer == Asked::kServes || answer == Asked::kOtherModel) return answer;
    asked += answer == Asked::kRefuses;
  }
  return Asked::kRefuses;
}
