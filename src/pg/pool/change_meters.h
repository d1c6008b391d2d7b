// change_meters.h - a logged change of meters that no call makes.
#pragma once

#include "pg/server/postgres_api.h"

#include "pg/pool/call_meters.h"
#include "pg/server/clock.h"
#include "pg/state/meter_log.h"
#include "pg/state/wakeups.h"

// Locks meters, lets `change` edit them at a moment, with their rules as they are then, and wakes who waits for those
// that it says have eased: uint8 change(keypool::MeterEdit *edits, const CallMeters &call, TimeUs now), a mask. It must
// not raise. `durable` as of meter_change_begin; `hash` of the provider. False, and nothing is changed, if a place no
// longer holds its meter.
template <typename Change>
bool change_meters(const MeterTables &tables, uint32 hash, bool durable, CallMeters *call, Change edit_meters) {
  Wakeups ring = wakeups_open(hash, RowExclusiveLock);
  MeterChange change;
  Meters meters = {};
  meter_change_begin(&change, tables, durable);
  bool there = call_meters_pin(tables, *call, &meters) && meters_lock(&meters, BUFFER_LOCK_EXCLUSIVE);
  if (there) {
    keypool::TimeUs now = clock_now();
    call_meters_at(call, now);
    meter_change_start(&change, meters);
    uint8 eased = edit_meters(change.edits, *call, now);
    for (int i = 0; i < call->count; ++i)
      if ((eased >> i & 1) != 0) wakeups_post(&ring, call->place[i]->id);
    meter_change_commit(&change, meters);
    meters_unlock(&meters, false);
  } else {
    meter_change_abandon(&change);
  }
  wakeups_close(&ring);
  return there;
}
