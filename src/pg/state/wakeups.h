// wakeups.h - the rings of posts of core/quota/wakeups.h, which says what they are for.
//
// Posts of a provider go to one of a few rings, by its hash.
//
// Locks: a ring's page is locked after the pages of meters and of a line (waiting_lines.h), never before.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/quota/wakeups.h"
#include "pg/state/wakeup_rows.h"

// The ring of a provider. All zero: not open.
struct Wakeups {
  WakeupRow row;
  uint32 provider;
  bool wakes;  // somebody waits for what was posted: to be woken when it is closed
};

inline bool wakeups_is_open(const Wakeups &ring) { return wakeup_row_is_open(ring.row); }

// Not open if its row, or the table, is not there. wakeups_close is for both; no page must be locked then.
Wakeups wakeups_open(uint32 provider, LOCKMODE mode);
void wakeups_close(Wakeups *ring);

// How much was ever posted.
uint64 wakeups_posted(const Wakeups &ring);

// keypool::ReadPosts of the ring.
uint32 wakeups_read(const Wakeups &ring, uint64 *seen, keypool::KeyId (&meters)[keypool::kRingPosts], bool *lost);

// Posts a meter. May be called while pages of meters are locked; raises nothing. Nothing if the ring is not open.
void wakeups_post(Wakeups *ring, const keypool::KeyId &meter);

// Says how many wait for posts. Likewise, but it must be open.
void wakeups_set_waiting(const Wakeups &ring, uint64 waiting);
