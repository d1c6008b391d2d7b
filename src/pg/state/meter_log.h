// meter_log.h - a change of up to four meters that is logged, as one record.
//
// The record is one of the server's own kind for extensions, generic WAL: crash recovery, standbys and the tools for
// WAL know it. Its form, of access/transam/generic_xlog.c in every version since 9.6: for each page, pieces of two
// bytes of offset in the page, two bytes of length, and so many bytes of what lies there after the change.
//
// GenericXLogFinish() would do the same. But it copies the pages and compares all of them to find the bytes that
// changed, which takes several times as long as all else that keypool_record does; here they are known. It also leaves
// out bytes of a reserved slot that are as they were, though they were never logged. So in a server that is not on the
// list of those that this is tested with (server_is_tested), it writes the pages whole.
//
//   MeterChange change;
//   meter_change_begin(&change, tables, true);       may raise
//   meters_pin_..., meters_lock(&meters, BUFFER_LOCK_EXCLUSIVE), else meter_change_abandon(&change)
//   meter_change_start(&change, meters);             from here on nothing may raise
//   ... one call of the core with change.edits, wakeups_post ...
//   meter_change_commit(&change, meters);
//   meters_unlock(&meters, false);
#pragma once

#include "pg/server/postgres_api.h"

#include "core/quota/meter_edit.h"
#include "pg/state/meter_store.h"

struct GenericXLogState;

struct MeterChange {
  GenericXLogState *generic;                   // null where meter_log itself writes the record
  bool logged[2];                              // whether the table of this MeterKind is
  keypool::Meter *meter[keypool::kMaxMeters];  // to change hints of: in the page, or in the server's copy of it
  keypool::MeterEdit edits[keypool::kMaxMeters];
};

// Before the pages are locked, since it may allocate. `durable`: while synchronous_commit is not off, the transaction
// gets an id, so that its COMMIT waits for the record to be on disk, as after nextval().
void meter_change_begin(MeterChange *change, const MeterTables &tables, bool durable);

// Ends it without a change.
void meter_change_abandon(MeterChange *change);

// Begins the edits of meters that are locked exclusively.
void meter_change_start(MeterChange *change, const Meters &meters);

// Puts what the edits have changed into the pages, and logs it. The pages stay locked.
void meter_change_commit(MeterChange *change, const Meters &meters);
