// selection_order.h - which key of a pool is next: lowest priority, then least recently granted, then id.
//
// Two things about a key lie in its state, which every process changes, and both are remembered here as lower bounds:
//
//   the order of its last grant    It only grows.
//   when it can serve again        A change that brings this forward is told to every process (pg/state/wakeups.h).
//
// So two heaps over what is remembered find the next key in logarithmic time. One holds the keys that may serve:
// read the state of the top; if it says later, correct the top and look again; if not, no other key can be before it.
// The other holds those that wait, by the moment at which they can serve again.
//
// Invariants:
//   1. places[0 .. serving) is a heap by (priority, last_grant, id); places[count - waiting .. count), read from the
//      end, is a heap by (moment, cooling first); between them are the keys that are set aside for one walk.
//   2. The keys of places are a permutation of 0 .. count-1 between any two calls: an interrupted walk loses no key.
//   3. position[k] is where key k is in the heap of those that wait, and means nothing if it does not.
//
// A place holds what its heap compares, and has four children, side by side: in a large pool, what is not in the
// processor's caches is what costs.
//
// Owns nothing: the arrays belong to the caller.
#pragma once

#include "core/key_id.h"
#include "core/window.h"

namespace keypool {

struct Candidate {
  KeyId id;
  int64_t last_grant;  // as last seen; while it serves, its place knows better
  Wait wait;           // as last seen; of keys that wait only
  int32_t priority;
};

// A key in its heap.
struct OrderPlace {
  int64_t rank;   // last grant, or moment
  int32_t group;  // priority; or 0 if it cools and 1 if not
  uint32_t key;
};

class SelectionOrder {
 public:
  SelectionOrder() = default;

  // All candidates may serve. The arrays hold `count` each and outlive this.
  SelectionOrder(Candidate *candidates, OrderPlace *places, uint32_t *position, uint32_t count) noexcept;

  // Begins a walk for a request of so many tokens: brings back what was set aside, and what waits no longer at this
  // time or waits for larger requests only. If the clock has stepped back since the last walk, brings back all: a key
  // whose cooldown was over while its window was full cools again, to the same moment.
  void Begin(int64_t tokens, TimeUs now) noexcept;

  // Whether no key may serve; if any may, the first of them.
  bool empty() const { return serving_ == 0; }
  uint32_t Top() const { return places_[0].key; }
  int64_t TopGrant() const { return places_[0].rank; }

  // The top's last grant is later than remembered: notes it and finds its place.
  void CorrectTop(int64_t last_grant) noexcept;

  // Leaves the top out until the next walk.
  void SetTopAside() noexcept;

  // The top cannot serve: leaves it out until that is over.
  void LetTopWait(const Wait &wait) noexcept;

  // Whether any key waits; if so, the one that can serve first.
  bool waiting() const { return waiting_ > 0; }
  uint32_t FirstWaiting() const { return WaitPlace(0).key; }
  TimeUs FirstMoment() const { return WaitPlace(0).rank; }

  // The first that waits can serve at another moment than remembered: notes it and finds its place.
  void CorrectFirstWaiting(const Wait &wait) noexcept;

  // A key need not wait any longer; nothing if it does not.
  void Wake(uint32_t key) noexcept;
  void WakeAll() noexcept;

 private:
  bool ServesBefore(const OrderPlace &a, const OrderPlace &b) const noexcept;
  bool WaitsBefore(const OrderPlace &a, const OrderPlace &b) const noexcept;
  uint32_t FirstServingChild(uint32_t at) const noexcept;
  uint32_t WaitSlot(uint32_t at) const { return count_ - 1 - at; }
  const OrderPlace &WaitPlace(uint32_t at) const { return places_[WaitSlot(at)]; }
  void NotePosition(uint32_t at) noexcept { position_[WaitPlace(at).key] = at; }
  void SwapWaiting(uint32_t at, uint32_t other) noexcept;
  void SetWaiting(uint32_t slot) noexcept;
  void AddWaiting() noexcept;
  void SiftServingUp(uint32_t at) noexcept;
  void SiftServingDown(uint32_t at) noexcept;
  void SiftWaitingUp(uint32_t at) noexcept;
  void SiftWaitingDown(uint32_t at) noexcept;
  void ServeAgain(uint32_t slot) noexcept;
  void WakeWhatWaitsForMore(int64_t tokens) noexcept;

  Candidate *candidates_ = nullptr;
  OrderPlace *places_ = nullptr;
  uint32_t *position_ = nullptr;
  uint32_t serving_ = 0;
  uint32_t waiting_ = 0;
  uint32_t count_ = 0;
  int64_t most_tokens_ = 0;  // no key waits for larger requests only than of so many tokens
  TimeUs begun_at_ = 0;      // the time of the last walk
};

}  // namespace keypool
