// selection_order.cpp - the heaps behind the choice of the next key.
#include "core/selection_order.h"

#include <algorithm>
#include <utility>

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
  for (uint32_t i = 0; i < count; ++i) places_[i].key = i;
  while (serving_ < count) ServeAgain(serving_);
}

bool SelectionOrder::ServesBefore(const OrderPlace &a, const OrderPlace &b) const noexcept {
  if (a.group != b.group) return a.group < b.group;
  if (a.rank != b.rank) return a.rank < b.rank;
  return candidates_[a.key].id < candidates_[b.key].id;
}

bool SelectionOrder::WaitsBefore(const OrderPlace &a, const OrderPlace &b) const noexcept {
  return a.rank != b.rank ? a.rank < b.rank : a.group < b.group;
}

uint32_t SelectionOrder::FirstServingChild(uint32_t at) const noexcept {
  return FirstChild(at, serving_, [this](uint32_t a, uint32_t b) { return ServesBefore(places_[a], places_[b]); });
}

void SelectionOrder::SiftServingUp(uint32_t at) noexcept {
  for (; at > 0 && ServesBefore(places_[at], places_[Parent(at)]); at = Parent(at))
    std::swap(places_[at], places_[Parent(at)]);
}

void SelectionOrder::SiftServingDown(uint32_t at) noexcept {
  OrderPlace sinking = places_[at];
  for (;;) {
    uint32_t child = FirstServingChild(at);
    if (child == serving_ || !ServesBefore(places_[child], sinking)) break;
    places_[at] = places_[child];
    at = child;
  }
  places_[at] = sinking;
}

void SelectionOrder::SwapWaiting(uint32_t at, uint32_t other) noexcept {
  std::swap(places_[WaitSlot(at)], places_[WaitSlot(other)]);
  NotePosition(at);
  NotePosition(other);
}

void SelectionOrder::SiftWaitingUp(uint32_t at) noexcept {
  for (; at > 0 && WaitsBefore(WaitPlace(at), WaitPlace(Parent(at))); at = Parent(at)) SwapWaiting(at, Parent(at));
}

void SelectionOrder::SiftWaitingDown(uint32_t at) noexcept {
  for (;;) {
    uint32_t child =
        FirstChild(at, waiting_, [this](uint32_t a, uint32_t b) { return WaitsBefore(WaitPlace(a), WaitPlace(b)); });
    if (child == waiting_ || !WaitsBefore(WaitPlace(child), WaitPlace(at))) return;
    SwapWaiting(at, child);
    at = child;
  }
}

// Takes the place behind those that wait into their heap.
void SelectionOrder::AddWaiting() noexcept {
  NotePosition(waiting_);
  SiftWaitingUp(waiting_++);
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
  std::swap(places_[slot], places_[serving_]);
  SiftServingUp(serving_++);
}

void SelectionOrder::Begin(int64_t tokens, TimeUs now) noexcept {
  if (now < begun_at_) WakeAll();
  begun_at_ = now;
  while (serving_ + waiting_ < count_) ServeAgain(serving_);
  while (waiting() && FirstMoment() <= now) Wake(FirstWaiting());
  if (tokens < most_tokens_) WakeWhatWaitsForMore(tokens);
}

void SelectionOrder::CorrectTop(int64_t last_grant) noexcept {
  places_[0].rank = last_grant;
  SiftServingDown(0);
}

void SelectionOrder::SetTopAside() noexcept {
  candidates_[Top()].last_grant = TopGrant();
  std::swap(places_[0], places_[--serving_]);
  SiftServingDown(0);
}

void SelectionOrder::LetTopWait(const Wait &wait) noexcept {
  candidates_[Top()].wait = wait;
  SetTopAside();
  SetWaiting(serving_);
  std::swap(places_[serving_], places_[WaitSlot(waiting_)]);
  AddWaiting();
}

void SelectionOrder::CorrectFirstWaiting(const Wait &wait) noexcept {
  candidates_[FirstWaiting()].wait = wait;
  SetWaiting(WaitSlot(0));
  SiftWaitingDown(0);
}

void SelectionOrder::Wake(uint32_t key) noexcept {
  uint32_t at = position_[key];
  if (at >= waiting_ || WaitPlace(at).key != key) return;
  --waiting_;
  SwapWaiting(at, waiting_);
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
    std::swap(places_[WaitSlot(at)], places_[WaitSlot(waiting_)]);
    AddWaiting();
  }
  while (serving_ + waiting_ < count_) ServeAgain(serving_);
}

}  // namespace keypool
