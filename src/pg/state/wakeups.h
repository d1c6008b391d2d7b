// wakeups.h - telling every session which keys can serve sooner than it has seen.
//
// A session that finds a key full or cooling need not look at it again before the moment that its state says, unless
// something brings that moment forward: a release, a record below the estimate, the end of a cooldown. Whoever does
// that posts the key here. A session whose pool has such keys looks whether anything was posted before it answers, so
// that nobody is refused, or given a worse key, while a better one is free.
//
// Keys are posted only if somebody waits for them: who lets a key wait notes that in its state (`awaited`), and who
// posts it takes the note away, both under the lock of the key's page. Posts of a provider go to one of a few rings, by
// its hash, each of them a row of keypool.wakeups that is changed in place, without WAL: after a crash there is no
// session that could have missed a post. A standby is not told; nothing waits there.
//
// Locks: a ring's page is locked after a key's page, never before.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/key_id.h"

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

// How many keys were ever posted.
uint64 wakeups_count(const Wakeups &ring);

inline constexpr int kWakeupsRemembered = 500;

// The keys that were posted after the first `seen`, into an array of kWakeupsRemembered; returns how many there were,
// which may be more than are remembered (the array then holds nothing of use). `seen` counts them from here on.
uint64 wakeups_read(const Wakeups &ring, uint64 *seen, keypool::KeyId *keys);

// Posts a key. May be called while the key's page is locked; raises nothing. Nothing if the ring is not open.
void wakeups_post(const Wakeups &ring, const keypool::KeyId &key);
