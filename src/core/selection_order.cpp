// selection_order.cpp - the heaps behind the choice of the next key.
#include "core/selection_order.h"

#include <algorithm>

namespace keypool {

namespace {

constexpr uint32_t kChildren = 4;

uint32_t Parent(uint32_t at) { return (at - 1) / kChildren; }

// The first of the children at `at` in a heap of `size`, by `before`; `size` if there are none.
template <typename Before>
uint32_t FirstChild(uint32_t at, uint32_t size, Before before) {
  uint32_t child = kChildren * at + 1;
  uint32_t end = std::min(child + kChildren, size);
  uint32_t first = child;
  while (++child < end)
    if (before(child, first)) first = child;
  return std::min(first, size);
}

}  // namespace

SelectionOrder::SelectionOrder(Candidate *candidates, OrderPlace *places, uint32_t *position, uint32_t count) noexcept
    : candidates_(candidates), places_(places), position_(position), count_(count) {
  for (uint32_t i = 0; i < count; ++i) {
    places_[i] = {0, 0, i};
    position_[i] = i;
  }
  while (serving_ < count) ServeAgain(serving_);
}

bool SelectionOrder::ServesBefore(uint32_t a, uint32_t b) const noexcept {
  const OrderPlace &left = places_[a];
  const OrderPlace &right = places_[b];
  if (left.group != right.group) return left.group < right.group;
  if (left.rank != right.rank) return left.rank < right.rank;
  return candidates_[left.key].id < candidates_[right.key].id;
}

bool SelectionOrder::WaitsBefore(uint32_t a, uint32_t b) const noexcept {
  const OrderPlace &left = places_[WaitSlot(a)];
  const OrderPlace &right = places_[WaitSlot(b)];
  return left.rank != right.rank ? left.rank < right.rank : left.group < right.group;
}

void SelectionOrder::Swap(uint32_t slot, uint32_t other) noexcept {
  std::swap(places_[slot], places_[other]);
  position_[places_[slot].key] = slot;
  position_[places_[other].key] = other;
}

void SelectionOrder::SiftServingUp(uint32_t at) noexcept {
  for (; at > 0 && ServesBefore(at, Parent(at)); at = Parent(at)) Swap(at, Parent(at));
}

void SelectionOrder::SiftServingDown(uint32_t at) noexcept {
  for (;;) {
    uint32_t child = FirstChild(at, serving_, [this](uint32_t a, uint32_t b) { return ServesBefore(a, b); });
    if (child == serving_ || !ServesBefore(child, at)) return;
    Swap(at, child);
    at = child;
  }
}

void SelectionOrder::SiftWaitingUp(uint32_t at) noexcept {
  for (; at > 0 && WaitsBefore(at, Parent(at)); at = Parent(at)) Swap(WaitSlot(at), WaitSlot(Parent(at)));
}

void SelectionOrder::SiftWaitingDown(uint32_t at) noexcept {
  for (;;) {
    uint32_t child = FirstChild(at, waiting_, [this](uint32_t a, uint32_t b) { return WaitsBefore(a, b); });
    if (child == waiting_ || !WaitsBefore(child, at)) return;
    Swap(WaitSlot(at), WaitSlot(child));
    at = child;
  }
}

// Makes a place that of a key that waits.
void SelectionOrder::SetWaiting(uint32_t slot) noexcept {
  const Wait &wait = candidates_[places_[slot].key].wait;
  places_[slot].rank = wait.moment;
  places_[slot].group = wait.cooling ? 0 : 1;
  most_tokens_ = std::max(most_tokens_, int64_t{wait.tokens});
}

// Takes a key that neither serves nor waits into those that may serve.
void SelectionOrder::ServeAgain(uint32_t slot) noexcept {
  const Candidate &candidate = candidates_[places_[slot].key];
  places_[slot].rank = candidate.last_grant;
  places_[slot].group = candidate.priority;
  Swap(slot, serving_);
  SiftServingUp(serving_++);
}

void SelectionOrder::Begin(int64_t tokens, TimeUs now) noexcept {
  while (serving_ + waiting_ < count_) ServeAgain(serving_);
  while (waiting() && FirstMoment() <= now) Wake(FirstWaiting());
  if (tokens < most_tokens_) WakeWhatWaitsForMore(tokens);
}

void SelectionOrder::CorrectTop(int64_t last_grant) noexcept {
  candidates_[Top()].last_grant = places_[0].rank = last_grant;
  SiftServingDown(0);
}

void SelectionOrder::SetTopAside() noexcept {
  Swap(0, --serving_);
  SiftServingDown(0);
}

void SelectionOrder::LetTopWait(const Wait &wait) noexcept {
  candidates_[Top()].wait = wait;
  SetTopAside();
  SetWaiting(serving_);
  Swap(serving_, WaitSlot(waiting_));
  SiftWaitingUp(waiting_++);
}

void SelectionOrder::CorrectFirstWaiting(const Wait &wait) noexcept {
  candidates_[FirstWaiting()].wait = wait;
  SetWaiting(WaitSlot(0));
  SiftWaitingDown(0);
}

void SelectionOrder::Wake(uint32_t key) noexcept {
  uint32_t at = WaitSlot(position_[key]);
  if (at >= waiting_) return;
  --waiting_;
  Swap(WaitSlot(at), WaitSlot(waiting_));
  if (at < waiting_) {
    SiftWaitingUp(at);
    SiftWaitingDown(at);
  }
  ServeAgain(WaitSlot(waiting_));
}

void SelectionOrder::WakeAll() noexcept {
  waiting_ = 0;
  most_tokens_ = 0;
  while (serving_ < count_) ServeAgain(serving_);
}

// Linear in the keys that wait: for when a smaller request comes than before.
void SelectionOrder::WakeWhatWaitsForMore(int64_t tokens) noexcept {
  uint32_t waited = waiting_;
  waiting_ = 0;
  most_tokens_ = 0;
  // Those that stay are made a heap again, one by one, in front of what is still to be looked at.
  for (uint32_t at = 0; at < waited; ++at) {
    const Wait &wait = candidates_[places_[WaitSlot(at)].key].wait;
    if (wait.tokens > tokens) continue;
    most_tokens_ = std::max(most_tokens_, int64_t{wait.tokens});
    Swap(WaitSlot(at), WaitSlot(waiting_));
    SiftWaitingUp(waiting_++);
  }
  while (serving_ + waiting_ < count_) ServeAgain(serving_);
}

}  // namespace keypool
