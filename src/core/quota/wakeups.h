// wakeups.h - telling every session which meters can serve sooner than it has seen.
//
// A session that finds a meter full or blocked need not look at it again before the moment that the meter says, unless
// a change brings that moment forward: a release, a record below the estimate, the end of a cooldown. Whoever makes
// such a change posts the meter's id to the ring of its provider. A session that remembers meters looks whether
// anything was posted before it answers, so that no request is refused, or given a worse key, while a better one is
// free. One post wakes, in each session, all keys under the meter.
//
// Meters are posted only if a session remembers them: it sets `awaited` in the meter, and whoever posts the meter
// clears it.
//
// The rules, each of which the explorer (wakeups_explorer_test) breaks to see that it is needed:
//   1. A session that remembers a meter sets `awaited` under the meter's lock, in the same step in which it looks, and
//      had the ring open (knew how much was posted) before.
//   2. A change that eases an awaited meter clears `awaited` and posts under the meter's lock, in the same step.
//   3. A session answers only if, while the meters that it decides by are locked, nothing has been posted since it last
//      read the ring, and no moment that it remembers has passed.
//   4. What is posted wakes the key, or all groups under the quota; if more was posted than the ring holds, everything.
//
// Locks: the key's page, then quota pages by block number, then the ring. A ring lies in a page that is locked by
// whoever calls the functions here: exclusively to post, shared to read. It needs no WAL: after a crash no session is
// left that could have missed a post.
#pragma once

#include "core/key_id.h"
#include "core/quota/admission.h"

namespace keypool {

inline constexpr uint32_t kRingPosts = 500;

// As it lies on its page; a ring of zeros is empty. `Posts` is how many it remembers.
template <uint32_t Posts>
struct RingOf {
  uint64_t posted;   // since the ring was made
  uint64_t waiting;  // so many wait for posts (waiting_line.h)
  KeyId meters[Posts];
};
using Ring = RingOf<kRingPosts>;
static_assert(sizeof(Ring) == 8016);

template <uint32_t Posts>
void PostMeter(RingOf<Posts> *ring, const KeyId &meter) noexcept {
  ring->meters[ring->posted++ % Posts] = meter;
}

// Copies what was posted after the first `seen`, at most `Posts` ids; returns how many. `seen` counts them from here
// on.
// `*lost`: more was posted than the ring remembers, and nothing is copied.
template <uint32_t Posts>
uint32_t ReadPosts(const RingOf<Posts> &ring, uint64_t *seen, KeyId (&meters)[Posts], bool *lost) noexcept {
  uint64_t fresh = ring.posted - *seen;
  *lost = fresh > Posts;
  uint32_t count = *lost ? 0 : static_cast<uint32_t>(fresh);
  for (uint32_t i = 0; i < count; ++i) meters[i] = ring.meters[(*seen + i) % Posts];
  *seen = ring.posted;
  return count;
}

// What `awaited` says: somebody remembers the meter; would profit from each call that ends, too; or waits for requests
// that are kept apart, and so for the meter's clock to move.
inline constexpr uint32_t kAwaited = 1;
inline constexpr uint32_t kAwaitedForCalls = 2;
inline constexpr uint32_t kAwaitedForPace = 4;

// What a session sets (ors) in a meter that it remembers, by the limits that it asked. Left to whoever changes the
// meter, it would be decided by limits that may have been changed since.
inline uint32_t AwaitedFor(const Limits &limits) noexcept {
  uint32_t calls = limits.of(Limit::kInFlight) != 0 ? kAwaitedForCalls : 0;
  uint32_t pace = limits.burst_seconds != 0 ? kAwaitedForPace : 0;
  return kAwaited | calls | pace;
}

// Whether any of the meters is awaited: then the ring must be open before they are changed. If it is not, unlock, open
// it and begin again.
inline bool AnyAwaited(const Meter *const *meters, int count) noexcept {
  uint32_t awaited = 0;
  for (int i = 0; i < count; ++i) awaited |= meters[i]->reserved.awaited;
  return awaited != 0;
}

// A change of one meter, watched for whether it eases the meter: BeginChange before, EndChange after, under one lock.
//
// By the meter's own clock alone: a change that moves it may ease the meter for a session that has not seen the wall
// clock so late, and will not if that steps back. So may a reservation; Look::tells says when.
struct WatchedChange {
  uint32_t awaited;
  TimeUs pause;  // since the last selection
  Load before;   // if awaited
};
WatchedChange BeginChange(const Meter &meter, const CountRule &rule) noexcept;

// Whether the meter has eased: then `awaited` is to be cleared, and the meter posted before it is unlocked.
bool HasEased(const WatchedChange &change, const Meter &meter, const CountRule &rule) noexcept;

// The same, and clears `awaited`, a hint.
bool EndChange(const WatchedChange &change, Meter *meter, const CountRule &rule) noexcept;

}  // namespace keypool
