// meter_store.h - the meters of keys and quotas: rows of keypool.key_meters and keypool.quota_meters, read and changed
// in place.
//
// A row is fixed in width, so its meter is changed where it lies, under the content lock of its buffer, as a sequence's
// row is. A row is named by its place, which holds until the table is rewritten (relations_version tells), and is
// accepted only if the id is in it, and no transaction that has committed, nor this one, has deleted it.
//
// One call concerns up to four meters. Lock order, everywhere: the key's page, then the pages of its quotas by block
// number, each once, then a ring (wakeups.h). Nothing between lock and unlock raises, allocates, or takes another lock.
// The tables are locked before and unlocked after, so that a rewrite cannot happen between.
//
//   MeterTables tables = meter_tables_open(RowExclusiveLock, true);
//   Meters meters = {};
//   if (meters_pin_key(tables, &key, &meters) && meters_pin_quotas(tables, quotas, count, &meters) &&
//       meters_lock(&meters, BUFFER_LOCK_EXCLUSIVE)) {
//     ...                              // change hints in meters.meter[i], or see meter_log.h
//     meters_unlock(&meters, true);
//   }
//   meter_tables_close(tables);
#pragma once

#include "pg/server/postgres_api.h"

#include "core/key_id.h"
#include "core/quota/breaker.h"
#include "core/quota/meter.h"
#include "core/quota/settling.h"

enum class MeterKind : uint8 { kKey, kQuota };

// The tables, opened and locked. Without quotas, the second is null: to open it takes as long as half a selection.
struct MeterTables {
  Relation keys;
  Relation quotas;
  LOCKMODE mode;
};
// Raises 42809 if one of them is logged and the other is not: one record is for both.
MeterTables meter_tables_open(LOCKMODE mode, bool with_quotas);
void meter_tables_close(const MeterTables &tables);

// One table, for those who read or change its rows as rows.
Relation meter_table_open(MeterKind kind, LOCKMODE mode);

// Where a meter lies.
struct MeterPlace {
  keypool::KeyId id;  // of the key or the quota
  ItemPointerData address;
  Buffer buffer;  // in which it was seen last, or invalid; kept up to date
};

// Gives a key or a quota this meter if it has none, or takes its meter away, as part of this transaction. No trigger
// fires: those of the tables are for statements of users.
void meter_store_add(MeterKind kind, const keypool::KeyId &id, const keypool::Meter &fresh);
void meter_store_remove(MeterKind kind, const keypool::KeyId &id);

// Finds rows by id, as a snapshot sees them: any number between begin and end, since to begin takes longer than to find
// one. False if there is none.
struct MeterFinder {
  Relation index;
  IndexScanDesc scan;
  TupleTableSlot *row;
};
MeterFinder meter_finder_begin(MeterKind kind, Relation table, Snapshot snapshot);
bool meter_finder_find(const MeterFinder &finder, const keypool::KeyId &id, ItemPointer address);
void meter_finder_end(MeterFinder *finder);

// Copies a meter, as it is now, out of the row that the snapshot sees, deleted since or not. False if it sees none. The
// snapshot must keep the row from being removed.
bool meter_finder_copy(const MeterFinder &finder, const keypool::KeyId &id, keypool::Meter *copy);

// What all meters together tell.
struct MeterCensus {
  int64 ahead;          // have seen a time so far ahead of `now` that the clock must have been wrong (ClockWasWrong)
  int64 resting;        // have a breaker that is open, or waits for its probe
  int64 without_model;  // were selected or settled in the last day by calls that named no model, and should have
};
MeterCensus meter_store_census(keypool::TimeUs now);

// The meters of one call: the key's first, if there is one, then those of quotas as they were given. All zero: nothing
// is pinned.
struct Meters {
  int count;
  MeterKind kind[keypool::kMaxMeters];
  const MeterPlace *place[keypool::kMaxMeters];
  keypool::Meter *meter[keypool::kMaxMeters];  // in the page
  Buffer buffer[keypool::kMaxMeters];          // of each; pinned once for each
  int pages;                                   // that are locked
  Buffer page[keypool::kMaxMeters];            // those, each once, in the order in which they were locked
};

// Pins the page of a key's meter, which comes first, and the pages of meters of quotas. False if a place no longer
// holds its meter; nothing is pinned then.
bool meters_pin_key(const MeterTables &tables, MeterPlace *key, Meters *meters);
bool meters_pin_quotas(const MeterTables &tables, MeterPlace *const *quotas, int count, Meters *meters);
void meters_unpin(Meters *meters);

// The key's turn, without a lock: it only grows.
int64 meters_turn(const Meters &meters);

// Locks all that are pinned. False if a place no longer holds its meter; nothing is pinned then. Asserts the order.
bool meters_lock(Meters *meters, int mode);

// The same, but no longer than until somebody has selected the key, which moves its turn on from `turn`: then nothing
// is locked, and all stays pinned. A lock is held for less than a microsecond, and most who hold one select the key: to
// sleep until it is free would take longer, and be in vain.
enum class MetersLock : uint8 { kLocked, kSelected, kGone };
MetersLock meters_lock_unless_selected(Meters *meters, int mode, int64 turn);

// Unlocks and unpins. `hints_changed`: the reserved halves were changed without a log: the pages will be written some
// time.
void meters_unlock(Meters *meters, bool hints_changed);
