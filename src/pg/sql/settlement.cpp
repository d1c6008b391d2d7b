// settlement.cpp - keypool_record, keypool_release, keypool_mark_429 and keypool_clear_cooldown: what became of a
// grant.
#include "pg/server/postgres_api.h"

#include <cmath>

#include "core/lease.h"
#include "pg/pool/key_access.h"
#include "pg/pool/key_change.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/server/report.h"
#include "pg/server/settings.h"
#include "pg/state/state_store.h"

using keypool::KeyId;
using keypool::KeyState;
using keypool::Reservation;
using keypool::StateEdit;
using keypool::Status;
using keypool::TimeUs;

// The lease that a call names, if it names one.
struct GivenLease {
  bool given;
  int64 number;
};

static GivenLease argument_lease(FunctionCallInfo fcinfo, int number) {
  if (PG_ARGISNULL(number)) return {};
  return {true, PG_GETARG_INT64(number)};
}

// What a lease stands for; null if none was given. By the key's own clock, which may be ahead of the server's.
static const Reservation *read_lease(const GivenLease &lease, const KeyId &id, const KeyState &state, TimeUs now,
                                     Reservation *reservation, Status *status) {
  if (!lease.given) return nullptr;
  *status = keypool::DecodeLease(id, lease.number, keypool::KeyNow(state, now), reservation);
  return reservation;
}

// Settles in a key's state, for good: `settle` gets an edit of it, the reservation or null, and the time, in a critical
// section. Raises KP404 for a key that is not there, 22023 for a lease that is not its.
template <typename Settle>
static void settle_state(const KeyId &id, Right right, const GivenLease &lease, Settle settle) {
  for (int attempt = 0;; ++attempt) {
    Relation relation;
    KeyReference key = key_access_open(id, right, RowExclusiveLock, &relation);
    Status status;
    StateChange result = key_change_recorded(relation, key, [&](StateEdit *edit) {
      TimeUs now = clock_now();
      Reservation granted;
      const Reservation *reservation = read_lease(lease, id, edit->state(), now, &granted, &status);
      if (status.ok()) settle(edit, reservation, now);
      return status.ok();
    });
    state_store_close(relation, RowExclusiveLock);
    report_status(status);
    if (result == StateChange::kDone) return;
    pool_cache_retry(key.hash, attempt);
  }
}

// Gives a reservation back; false if the address no longer holds this key. Raises as settle_state.
static bool try_release(Relation relation, const KeyReference &key, const GivenLease &lease) {
  Status status;
  StateChange result = key_change_reserved(relation, key, [&](StateEdit *edit) {
    TimeUs now = clock_now();
    Reservation granted;
    read_lease(lease, key.id, edit->state(), now, &granted, &status);
    return status.ok() && keypool::Release(edit, granted, now);
  });
  report_status(status);
  return result != StateChange::kGone;
}

// How long a 429 cools, and what to tell a caller whose time could not be taken as it is; null: nothing.
struct Cooldown {
  TimeUs length;
  const char *notice;
};

static Cooldown cooldown_of_seconds(double seconds) {
  const char *notice = nullptr;
  if (std::isnan(seconds)) {
    notice = "retry_after_seconds is not a number, and counts as not given";
    seconds = keypool_default_cooldown;
  } else if (seconds < 0) {
    notice = "retry_after_seconds is negative, and counts as one second";
  }
  if (seconds > keypool_max_cooldown) notice = "the cooldown is cut to keypool.max_cooldown";
  double bounded = Min(Max(seconds, 1), keypool_max_cooldown);
  return {static_cast<TimeUs>(std::rint(bounded * keypool::kMicrosPerSecond)), notice};
}

// Any time will do: a provider's answer must not keep its 429 from cooling the key.
static Datum mark_429(FunctionCallInfo fcinfo, double seconds) {
  KeyId id = argument_key(fcinfo, 0);
  Cooldown cooldown = cooldown_of_seconds(seconds);
  report_if_read_only("keypool_mark_429");
  TimeUs until = 0;
  settle_state(id, Right::kApp, argument_lease(fcinfo, 2),
               [&](StateEdit *edit, const Reservation *reservation, TimeUs now) {
                 until = keypool::Mark429(edit, reservation, cooldown.length, now);
               });
  if (cooldown.notice != nullptr) ereport(NOTICE, errmsg("keypool: %s", cooldown.notice));
  PG_RETURN_TIMESTAMPTZ(clock_to_timestamptz(until));
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_record);
Datum keypool_record(PG_FUNCTION_ARGS) {
  KeyId id = argument_key(fcinfo, 0);
  int64 tokens = argument_tokens(fcinfo, 1);
  report_if_read_only("keypool_record");
  settle_state(id, Right::kApp, argument_lease(fcinfo, 2),
               [&](StateEdit *edit, const Reservation *reservation, TimeUs now) {
                 keypool::Record(edit, reservation, tokens, now);
               });
  PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(keypool_release);
Datum keypool_release(PG_FUNCTION_ARGS) {
  KeyId id = argument_key(fcinfo, 0);
  argument_require(fcinfo, 1, "lease");
  report_if_read_only("keypool_release");
  for (int attempt = 0;; ++attempt) {
    Relation relation;
    KeyReference key = key_access_open(id, Right::kApp, RowExclusiveLock, &relation);
    bool done = try_release(relation, key, argument_lease(fcinfo, 1));
    state_store_close(relation, RowExclusiveLock);
    if (done) PG_RETURN_VOID();
    pool_cache_retry(key.hash, attempt);
  }
}

PG_FUNCTION_INFO_V1(keypool_mark_429_seconds);
Datum keypool_mark_429_seconds(PG_FUNCTION_ARGS) {
  return mark_429(fcinfo, PG_ARGISNULL(1) ? keypool_default_cooldown : PG_GETARG_FLOAT8(1));
}

// The one of 0.1.0, whose seconds are an integer: databases have it until they are updated.
PG_FUNCTION_INFO_V1(keypool_mark_429);
Datum keypool_mark_429(PG_FUNCTION_ARGS) {
  return mark_429(fcinfo, PG_ARGISNULL(1) ? keypool_default_cooldown : PG_GETARG_INT32(1));
}

PG_FUNCTION_INFO_V1(keypool_clear_cooldown);
Datum keypool_clear_cooldown(PG_FUNCTION_ARGS) {
  KeyId id = argument_key(fcinfo, 0);
  report_if_read_only("keypool_clear_cooldown");
  settle_state(id, Right::kOperator, {},
               [](StateEdit *edit, const Reservation *, TimeUs) { keypool::ClearCooldown(edit); });
  PG_RETURN_VOID();
}

}  // extern "C"
