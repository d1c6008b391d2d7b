// selection_order.cpp - the heap behind the choice of the next key.
#include "core/selection_order.h"

#include <utility>

namespace keypool {

SelectionOrder::SelectionOrder(Candidate *candidates, uint32_t *order, uint32_t count) noexcept
    : candidates_(candidates), order_(order), count_(count) {
  for (uint32_t i = 0; i < count; ++i) order_[i] = i;
  UnparkAll();
}

bool SelectionOrder::Before(uint32_t a, uint32_t b) const noexcept {
  const Candidate &left = candidates_[order_[a]];
  const Candidate &right = candidates_[order_[b]];
  if (left.priority != right.priority) return left.priority < right.priority;
  if (left.last_grant != right.last_grant) return left.last_grant < right.last_grant;
  return left.id < right.id;
}

void SelectionOrder::SiftDown(uint32_t at) noexcept {
  for (;;) {
    uint32_t child = 2 * at + 1;
    if (child >= waiting_) return;
    if (child + 1 < waiting_ && Before(child + 1, child)) ++child;
    if (!Before(child, at)) return;
    std::swap(order_[at], order_[child]);
    at = child;
  }
}

void SelectionOrder::SiftUp(uint32_t at) noexcept {
  while (at > 0 && Before(at, (at - 1) / 2)) {
    std::swap(order_[at], order_[(at - 1) / 2]);
    at = (at - 1) / 2;
  }
}

void SelectionOrder::CorrectTop(int64_t last_grant) noexcept {
  candidates_[order_[0]].last_grant = last_grant;
  SiftDown(0);
}

void SelectionOrder::ParkTop() noexcept {
  --waiting_;
  std::swap(order_[0], order_[waiting_]);
  SiftDown(0);
}

void SelectionOrder::UnparkAll() noexcept {
  while (waiting_ < count_) SiftUp(waiting_++);
}

}  // namespace keypool
