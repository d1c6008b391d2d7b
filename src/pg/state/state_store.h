// state_store.h - the rows of keypool.key_state, read and changed in place.
//
// A row is fixed in width, so its state is changed where it lies, under the content lock of its buffer, as a sequence's
// row is. A row is named by its address, which holds until the table is rewritten (relations_version tells), and is
// accepted only if the key's id is in it, and no transaction that has committed, nor this one, has deleted it.
//
// Rules: one row locked at a time; nothing between lock and unlock raises, allocates, or takes another lock but that of
// a ring (wakeups.h); the table is locked (state_store_open) before and unlocked after, so that a rewrite cannot
// happen between.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/key_id.h"
#include "core/key_state.h"
#include "pg/state/state_log.h"

// A key's state while its buffer is locked.
struct LockedState {
  Buffer buffer;
  keypool::KeyState *state;  // in the page; null if the address no longer holds this key
};

Relation state_store_open(LOCKMODE mode);
void state_store_close(Relation relation, LOCKMODE mode);

// Gives a key a fresh state if it has none, or takes its state away, as part of this transaction. No trigger fires:
// those of the table are for statements of users.
void state_store_add(const keypool::KeyId &key);
void state_store_remove(const keypool::KeyId &key);

// Finds rows by their keys, as a snapshot sees them: any number between begin and end, since to begin takes longer than
// to find one. False if there is none.
struct StateFinder {
  Relation index;
  IndexScanDesc scan;
  TupleTableSlot *row;
};
StateFinder state_finder_begin(Relation relation, Snapshot snapshot);
bool state_finder_find(const StateFinder &finder, const keypool::KeyId &key, ItemPointer address);
void state_finder_end(StateFinder *finder);

// Copies a key's state, as it is now, out of the row that the snapshot sees, deleted since or not. False if it sees
// none. The snapshot must keep the row from being removed.
bool state_finder_copy(const StateFinder &finder, const keypool::KeyId &key, keypool::KeyState *copy);

// Locks a row's buffer, shared to read or exclusive to change the reserved half. Where state is null the buffer is not
// locked.
LockedState state_store_lock(Relation relation, const ItemPointerData &address, const keypool::KeyId &key, int mode);

// The same, but only if the key has not been granted since the grant with the order number `since`. Else the buffer is
// not locked, and state is null. `*last_grant` is the number of its last grant, -1 if the address does not hold the
// key. The first look is without a lock: a row does not move in a page that is pinned, and the number only grows.
// `*recent` is the buffer in which the row was seen last, or invalid; it is kept up to date.
LockedState state_store_lock_unless_granted(Relation relation, const ItemPointerData &address,
                                            const keypool::KeyId &key, int mode, int64 since, Buffer *recent,
                                            int64 *last_grant);

// Ends it. `changed` says that the reserved half was changed: the page will be written some time, and no WAL is.
void state_store_unlock(const LockedState &locked, bool changed);

enum class StateChange { kDone, kRefused, kGone };

// Changes a row, both halves, and logs it. While synchronous_commit is not off the transaction gets an id, so that its
// COMMIT waits for the flush, as after nextval(). `change` is called once with an edit of the state, under the lock, in
// a critical section, where an error ends the server (see state_log_start); it returns false if it refuses, and has
// then changed nothing. kGone: the address no longer holds this key.
template <typename Change>
StateChange state_store_change(Relation relation, const ItemPointerData &address, const keypool::KeyId &key,
                               Change change);

template <typename Change>
StateChange state_store_change(Relation relation, const ItemPointerData &address, const keypool::KeyId &key,
                               Change change) {
  if (synchronous_commit > SYNCHRONOUS_COMMIT_OFF) GetTopTransactionId();
  StateLog log = state_log_begin(relation);
  LockedState locked = state_store_lock(relation, address, key, BUFFER_LOCK_EXCLUSIVE);
  if (locked.state == nullptr) {
    state_log_abandon(log);
    return StateChange::kGone;
  }
  keypool::StateEdit edit(state_log_start(log, locked.buffer, locked.state));
  bool done = change(&edit);
  state_log_finish(log, locked.buffer, edit);
  state_store_unlock(locked, false);
  return done ? StateChange::kDone : StateChange::kRefused;
}
