// waiting_line.cpp - the sessions that wait for a key, in the order in which they came.
#include "core/quota/waiting_line.h"

#include <algorithm>
#include <cassert>

namespace keypool {

namespace {

// What a page holds may be anything.
uint64_t CountOf(const WaitingLine &line) { return std::min<uint64_t>(line.count, kMaxWaiters); }

Waiter *EndOf(WaitingLine *line) { return line->waiters + CountOf(*line); }

bool IsBefore(const Waiter &one, const Waiter &other) { return static_cast<int32_t>(one.ticket - other.ticket) < 0; }

// The first that does not come before this one.
Waiter *PlaceOf(WaitingLine *line, const Waiter &waiter) {
  return std::find_if(line->waiters, EndOf(line), [&](const Waiter &other) { return !IsBefore(other, waiter); });
}

bool AsksTheSame(const Waiter &one, const Waiter &other) {
  return one.provider == other.provider && one.request == other.request;
}

// Wakes the first from a place on that `fits`.
template <typename Fits>
int32_t Wake(Waiter *from, Waiter *end, Fits fits) {
  Waiter *found = std::find_if(from, end, [&](const Waiter &other) { return other.process > 0 && fits(other); });
  if (found == end) return 0;
  found->process = -found->process;
  return -found->process;
}

}  // namespace

uint32_t CountWaiters(const WaitingLine &line, uint32_t provider) noexcept {
  auto waits = [&](const Waiter &waiter) { return waiter.provider == provider; };
  return static_cast<uint32_t>(std::count_if(line.waiters, line.waiters + CountOf(line), waits));
}

uint32_t TakeTicket(WaitingLine *line) noexcept { return static_cast<uint32_t>(line->next_ticket++); }

bool EnterLine(WaitingLine *line, const Waiter &waiter) noexcept {
  assert(waiter.process > 0);
  LeaveLine(line, waiter.process, waiter.provider);
  if (CountOf(*line) == kMaxWaiters) return false;
  Waiter *place = PlaceOf(line, waiter), *end = EndOf(line);
  std::move_backward(place, end, end + 1);
  *place = waiter;
  ++line->count;
  return true;
}

bool LeaveLine(WaitingLine *line, int32_t process, uint32_t provider) noexcept {
  auto is_it = [&](const Waiter &waiter) {
    return waiter.provider == provider && (waiter.process == process || waiter.process == -process);
  };
  Waiter *end = EndOf(line), *found = std::find_if(line->waiters, end, is_it);
  if (found == end) return false;
  bool woken = found->process < 0;
  std::move(found + 1, end, found);
  line->count = CountOf(*line) - 1;
  return woken;
}

bool IsFirst(const WaitingLine &line, const Waiter &waiter) noexcept {
  return std::none_of(line.waiters, line.waiters + CountOf(line),
                      [&](const Waiter &other) { return IsBefore(other, waiter) && AsksTheSame(other, waiter); });
}

int32_t WakeFirst(WaitingLine *line, uint32_t provider) noexcept {
  return Wake(line->waiters, EndOf(line), [&](const Waiter &other) { return other.provider == provider; });
}

int32_t WakeNext(WaitingLine *line, const Waiter &waiter, bool other_request) noexcept {
  return Wake(PlaceOf(line, waiter), EndOf(line), [&](const Waiter &other) {
    return other.provider == waiter.provider && !(other_request && AsksTheSame(other, waiter));
  });
}

}  // namespace keypool
