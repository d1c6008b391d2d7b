// wakeups.h - the rings of posts of core/quota/wakeups.h, which says what they are for.
//
// Posts of a provider go to one of a few rings, by its hash, each of them a row of keypool.wakeups that is changed in
// place, without WAL: after a crash there is no session that could have missed a post. A standby is not told; nothing
// waits there.
//
// Locks: a ring's page is locked after the pages of meters, never before.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/quota/wakeups.h"

// One ring, with its table locked and its page pinned. All zero: not open.
struct Wakeups {
  Relation relation;
  LOCKMODE mode;
  Buffer buffer;
  OffsetNumber offset;
};

inline bool wakeups_is_open(const Wakeups &ring) { return ring.relation != nullptr; }

// The ring of a provider; not open if its row, or the table, is not there. wakeups_close is for both.
Wakeups wakeups_open(uint32 provider_hash, LOCKMODE mode);
void wakeups_close(Wakeups *ring);

// How much was ever posted.
uint64 wakeups_posted(const Wakeups &ring);

// keypool::ReadPosts of the ring.
uint32 wakeups_read(const Wakeups &ring, uint64 *seen, keypool::KeyId (&meters)[keypool::kRingPosts], bool *lost);

// Posts a meter. May be called while pages of meters are locked; raises nothing. Nothing if the ring is not open.
void wakeups_post(const Wakeups &ring, const keypool::KeyId &meter);
