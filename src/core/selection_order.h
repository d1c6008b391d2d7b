// selection_order.h - which key of a pool is next: lowest priority, then least recently granted, then id.
//
// The true time of a key's last grant lies in its state, which every process changes. It only grows, so what this
// process remembers of it is a lower bound, and a binary heap over the remembered values finds the next key without a
// look at all: read the state of the top; if it says later, correct the top and look again; if not, no other key can
// be before it.
//
// Invariants:
//   1. order[0 .. waiting) is a heap by (priority, last_grant, id); order[waiting .. count) are parked.
//   2. order is a permutation of 0 .. count-1 at all times, so an interrupted walk loses no key: UnparkAll mends it.
//
// Owns nothing: the arrays belong to the caller.
#pragma once

#include "core/key_id.h"

namespace keypool {

struct Candidate {
  KeyId id;
  int32_t priority;
  int64_t last_grant;  // as last seen
};

class SelectionOrder {
 public:
  SelectionOrder() = default;

  // All candidates wait. Both arrays hold `count` and outlive this.
  SelectionOrder(Candidate *candidates, uint32_t *order, uint32_t count) noexcept;

  bool empty() const { return waiting_ == 0; }
  uint32_t Top() const { return order_[0]; }

  // The top's last grant is later than remembered: notes it and finds its place.
  void CorrectTop(int64_t last_grant) noexcept;

  // Leaves the top out until UnparkAll.
  void ParkTop() noexcept;
  void UnparkAll() noexcept;

 private:
  bool Before(uint32_t a, uint32_t b) const noexcept;
  void SiftDown(uint32_t at) noexcept;
  void SiftUp(uint32_t at) noexcept;

  Candidate *candidates_ = nullptr;
  uint32_t *order_ = nullptr;
  uint32_t waiting_ = 0;
  uint32_t count_ = 0;
};

}  // namespace keypool
