// settlement.cpp - keypool_record, keypool_release, keypool_mark_429 and keypool_clear_cooldown: what became of a
// grant.
#include "pg/postgres_api.h"

#include "core/lease.h"
#include "pg/arguments.h"
#include "pg/clock.h"
#include "pg/key_access.h"
#include "pg/report.h"
#include "pg/settings.h"
#include "pg/state_store.h"

using keypool::KeyId;
using keypool::KeyState;
using keypool::Reservation;
using keypool::TimeUs;

// Reads an optional lease; null if none was given. Raises KP404 for a key that is not there, 22023 if it is not this
// key's.
static const Reservation *argument_lease(FunctionCallInfo fcinfo, int number, const KeyId &key,
                                         Reservation *reservation) {
  if (PG_ARGISNULL(number)) return nullptr;
  keypool::Status status = keypool::DecodeLease(key, PG_GETARG_INT64(number), clock_now(), reservation);
  if (!status.ok()) {
    key_access_check(key, Right::kUse);
    report_status(status);
  }
  return reservation;
}

// Changes a key's state for good.
template <typename Change>
static void change_state(const KeyId &id, Right right, Change change) {
  for (;;) {
    Relation state;
    const PoolKey *key = key_access_open(id, right, RowExclusiveLock, &state);
    bool changed = state_store_change(state, key->address, id, change);
    state_store_close(state, RowExclusiveLock);
    if (changed) return;
    pool_cache_drop();
  }
}

static int64 argument_retry_after(FunctionCallInfo fcinfo, int number) {
  int64 seconds = PG_ARGISNULL(number) ? keypool_default_cooldown : PG_GETARG_INT32(number);
  if (seconds < 0)
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("retry_after_seconds must not be negative"));
  return Min(Max(seconds, 1), static_cast<int64>(keypool_max_cooldown));
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_record);
Datum keypool_record(PG_FUNCTION_ARGS) {
  KeyId id = argument_key(fcinfo, 0);
  int64 tokens = argument_tokens(fcinfo, 1);
  Reservation reservation;
  const Reservation *lease = argument_lease(fcinfo, 2, id, &reservation);
  report_if_read_only("keypool_record");
  change_state(id, Right::kUse, [&](KeyState *state) { keypool::Record(state, lease, tokens, clock_now()); });
  PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(keypool_release);
Datum keypool_release(PG_FUNCTION_ARGS) {
  KeyId id = argument_key(fcinfo, 0);
  argument_require(fcinfo, 1, "lease");
  Reservation reservation;
  argument_lease(fcinfo, 1, id, &reservation);
  report_if_read_only("keypool_release");
  for (;;) {
    Relation state;
    const PoolKey *key = key_access_open(id, Right::kUse, RowExclusiveLock, &state);
    LockedState locked = state_store_lock(state, key->address, id, BUFFER_LOCK_EXCLUSIVE);
    bool there = locked.state != nullptr;
    if (there) state_store_unlock(locked, keypool::Release(locked.state, reservation, clock_now()));
    state_store_close(state, RowExclusiveLock);
    if (there) PG_RETURN_VOID();
    pool_cache_drop();
  }
}

PG_FUNCTION_INFO_V1(keypool_mark_429);
Datum keypool_mark_429(PG_FUNCTION_ARGS) {
  KeyId id = argument_key(fcinfo, 0);
  int64 seconds = argument_retry_after(fcinfo, 1);
  Reservation reservation;
  const Reservation *lease = argument_lease(fcinfo, 2, id, &reservation);
  report_if_read_only("keypool_mark_429");
  TimeUs until = 0;
  change_state(id, Right::kUse, [&](KeyState *state) { until = keypool::Mark429(state, lease, seconds, clock_now()); });
  PG_RETURN_TIMESTAMPTZ(clock_to_timestamptz(until));
}

PG_FUNCTION_INFO_V1(keypool_clear_cooldown);
Datum keypool_clear_cooldown(PG_FUNCTION_ARGS) {
  KeyId id = argument_key(fcinfo, 0);
  report_if_read_only("keypool_clear_cooldown");
  change_state(id, Right::kOperate, [](KeyState *state) { keypool::ClearCooldown(state); });
  PG_RETURN_VOID();
}

}  // extern "C"
