// waiting_line.h - the sessions that wait for a key, in the order in which they came.
//
// Who was refused may enter the line of its provider, and sleep until somebody wakes it, or a moment comes that it
// knows. To be told of everything, it looks how much was posted (wakeups.h), asks, enters the line, and sleeps only if
// nothing was posted meanwhile. Who is awake is not in the line; who is refused again comes back to its old place.
//
// One is woken at a time, since a place that has become free is for one. So:
//   1. Who posts wakes the first of the provider that is not awake yet.
//   2. Who leaves for good, served or not, wakes the next one behind it: there may be room for more than one.
//   3. Who was woken and is refused again wakes the next one behind it whose request differs: that may fit.
//   4. Of equal requests only the first keeps an eye on the clock (IsFirst).
//
// A line lies in a page that is locked by whoever calls the functions here. A crash may leave sessions in it that are no
// more: who takes them for alive waits for them, so they are taken out when somebody enters.
#pragma once

#include <cstdint>

namespace keypool {

inline constexpr uint32_t kMaxWaiters = 500;

struct Waiter {
  int32_t process;    // above 0; in the line it is negative once it has been woken
  uint32_t ticket;    // its place: lower ones came before, modulo 2^32
  uint32_t provider;  // a hash of its name
  uint32_t request;   // a hash of what is asked for; equal ones are served by the same keys at the same time
};

// As it lies on its page; one of zeros is empty. By ticket.
struct WaitingLine {
  uint64_t count;
  uint64_t next_ticket;
  Waiter waiters[kMaxWaiters];
};
static_assert(sizeof(WaitingLine) == 8016);

// How many wait for a provider.
uint32_t CountWaiters(const WaitingLine &line, uint32_t provider) noexcept;

// A new place at the end.
uint32_t TakeTicket(WaitingLine *line) noexcept;

// Puts a waiter at the place that its ticket says, in place of what the process has left behind for that provider.
// False if the line is full.
bool EnterLine(WaitingLine *line, const Waiter &waiter) noexcept;

// Takes a process out that waits for a provider. Returns whether it was woken.
bool LeaveLine(WaitingLine *line, int32_t process, uint32_t provider) noexcept;

// Whether nobody before this waiter, who is in the line, asks for the same.
bool IsFirst(const WaitingLine &line, const Waiter &waiter) noexcept;

// Marks the first of a provider that is not awake as woken; returns its process. 0: there is none.
int32_t WakeFirst(WaitingLine *line, uint32_t provider) noexcept;

// Likewise the first behind a waiter, who is not in the line; `other_request`: that asks for something else.
int32_t WakeNext(WaitingLine *line, const Waiter &waiter, bool other_request) noexcept;

}  // namespace keypool
