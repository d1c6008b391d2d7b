// key_change.h - changes of a key's state that may let it serve sooner, told to those who wait for it.
//
// The telling (wakeups.h) is one step with the change, under the lock of the key's page. Its ring is opened only
// when somebody does wait: the first look then changes nothing, and a second one is made with the ring open.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/window.h"
#include "pg/pool/pool_cache.h"
#include "pg/state/state_store.h"
#include "pg/state/wakeups.h"

// Changes both halves of a key's state, as state_store_change does; `change` is called once at most, with an edit of
// it, in a critical section.
template <typename Change>
StateChange key_change_recorded(Relation relation, const KeyReference &key, Change change);

// The same for the reserved half only: not logged, and not durable.
template <typename Change>
StateChange key_change_reserved(Relation relation, const KeyReference &key, Change change);

// Calls `change`, and tells if the key is awaited and may serve sooner. False if that refused, or if the key is awaited
// and `ring` is not open: `needs_ring` is then set, and nothing was called.
template <typename Change>
bool change_and_tell(keypool::StateEdit *edit, const keypool::KeyId &id, const Wakeups &ring, bool *needs_ring,
                     Change change) {
  const keypool::KeyState &state = edit->state();
  bool awaited = state.reserved.awaited != 0;
  if (awaited && !wakeups_is_open(ring) && !*needs_ring) {
    *needs_ring = true;
    return false;
  }
  keypool::Load before = awaited ? keypool::LoadOf(state) : keypool::Load{};
  if (!change(edit)) return false;
  if (awaited && keypool::LoadOf(state).EasedFrom(before)) {
    edit->Set(state.reserved.awaited, 0);
    wakeups_post(ring, id);
  }
  return true;
}

// Runs a step that may need the ring: without it, and if it does, again with it.
template <typename Step>
StateChange with_ring_if_needed(const KeyReference &key, Step step) {
  Wakeups ring = {};
  bool needs_ring = false;
  StateChange result = step(ring, &needs_ring);
  if (!needs_ring) return result;
  ring = wakeups_open(key.hash, RowExclusiveLock);
  result = step(ring, &needs_ring);
  wakeups_close(&ring);
  return result;
}

template <typename Change>
StateChange key_change_recorded(Relation relation, const KeyReference &key, Change change) {
  return with_ring_if_needed(key, [&](const Wakeups &ring, bool *needs_ring) {
    return state_store_change(relation, key.address, key.id, [&](keypool::StateEdit *edit) {
      return change_and_tell(edit, key.id, ring, needs_ring, change);
    });
  });
}

template <typename Change>
StateChange key_change_reserved(Relation relation, const KeyReference &key, Change change) {
  return with_ring_if_needed(key, [&](const Wakeups &ring, bool *needs_ring) {
    LockedState locked = state_store_lock(relation, key.address, key.id, BUFFER_LOCK_EXCLUSIVE);
    if (locked.state == nullptr) return StateChange::kGone;
    keypool::StateEdit edit(locked.state);
    bool changed = change_and_tell(&edit, key.id, ring, needs_ring, change);
    state_store_unlock(locked, changed);
    return changed ? StateChange::kDone : StateChange::kRefused;
  });
}
