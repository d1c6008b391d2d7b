// selection_order.cpp - the heaps behind the choice of the next key.
#include "core/selection_order.h"

#include <algorithm>

namespace keypool {

SelectionOrder::SelectionOrder(Candidate *candidates, uint32_t *order, uint32_t *position, uint32_t count) noexcept
    : candidates_(candidates), order_(order), position_(position), count_(count) {
  for (uint32_t i = 0; i < count; ++i) order_[i] = position_[i] = i;
  while (serving_ < count) ServeAgain(serving_);
}

bool SelectionOrder::ServesBefore(uint32_t a, uint32_t b) const noexcept {
  const Candidate &left = candidates_[order_[a]];
  const Candidate &right = candidates_[order_[b]];
  if (left.priority != right.priority) return left.priority < right.priority;
  if (left.last_grant != right.last_grant) return left.last_grant < right.last_grant;
  return left.id < right.id;
}

bool SelectionOrder::WaitsBefore(uint32_t a, uint32_t b) const noexcept {
  return candidates_[order_[WaitSlot(a)]].wait.EndsBefore(candidates_[order_[WaitSlot(b)]].wait);
}

void SelectionOrder::Swap(uint32_t slot, uint32_t other) noexcept {
  std::swap(order_[slot], order_[other]);
  position_[order_[slot]] = slot;
  position_[order_[other]] = other;
}

void SelectionOrder::SiftServingUp(uint32_t at) noexcept {
  while (at > 0 && ServesBefore(at, (at - 1) / 2)) {
    Swap(at, (at - 1) / 2);
    at = (at - 1) / 2;
  }
}

void SelectionOrder::SiftServingDown(uint32_t at) noexcept {
  for (;;) {
    uint32_t child = 2 * at + 1;
    if (child >= serving_) return;
    if (child + 1 < serving_ && ServesBefore(child + 1, child)) ++child;
    if (!ServesBefore(child, at)) return;
    Swap(at, child);
    at = child;
  }
}

void SelectionOrder::SiftWaitingUp(uint32_t at) noexcept {
  while (at > 0 && WaitsBefore(at, (at - 1) / 2)) {
    Swap(WaitSlot(at), WaitSlot((at - 1) / 2));
    at = (at - 1) / 2;
  }
}

void SelectionOrder::SiftWaitingDown(uint32_t at) noexcept {
  for (;;) {
    uint32_t child = 2 * at + 1;
    if (child >= waiting_) return;
    if (child + 1 < waiting_ && WaitsBefore(child + 1, child)) ++child;
    if (!WaitsBefore(child, at)) return;
    Swap(WaitSlot(at), WaitSlot(child));
    at = child;
  }
}

// Takes a key that neither serves nor waits into those that may serve.
void SelectionOrder::ServeAgain(uint32_t slot) noexcept {
  Swap(slot, serving_);
  SiftServingUp(serving_++);
}

void SelectionOrder::Begin(int64_t tokens, TimeUs now) noexcept {
  while (serving_ + waiting_ < count_) ServeAgain(serving_);
  while (waiting() && FirstMoment() <= now) Wake(FirstWaiting());
  if (tokens < most_tokens_) WakeWhatWaitsForMore(tokens);
}

void SelectionOrder::CorrectTop(int64_t last_grant) noexcept {
  candidates_[order_[0]].last_grant = last_grant;
  SiftServingDown(0);
}

void SelectionOrder::SetTopAside() noexcept {
  Swap(0, --serving_);
  SiftServingDown(0);
}

void SelectionOrder::LetTopWait(const Wait &wait) noexcept {
  candidates_[order_[0]].wait = wait;
  most_tokens_ = std::max(most_tokens_, int64_t{wait.tokens});
  SetTopAside();
  Swap(serving_, WaitSlot(waiting_));
  SiftWaitingUp(waiting_++);
}

void SelectionOrder::CorrectFirstWaiting(const Wait &wait) noexcept {
  candidates_[FirstWaiting()].wait = wait;
  most_tokens_ = std::max(most_tokens_, int64_t{wait.tokens});
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
    const Wait &wait = candidates_[order_[WaitSlot(at)]].wait;
    if (wait.tokens > tokens) continue;
    most_tokens_ = std::max(most_tokens_, int64_t{wait.tokens});
    Swap(WaitSlot(at), WaitSlot(waiting_));
    SiftWaitingUp(waiting_++);
  }
  while (serving_ + waiting_ < count_) ServeAgain(serving_);
}

}  // namespace keypool
