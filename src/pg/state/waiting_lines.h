// waiting_lines.h - the lines of core/quota/waiting_line.h: who waits for a key of a provider, and is to be woken.
//
// Locks: the page of a line is locked before the ring's, and while no meter is. A line whose row is missing is one that
// nobody can enter, nor be woken in.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/quota/waiting_line.h"

// What came of entering.
struct Entered {
  enum Kind : uint8 { kWaits, kFull, kMissing } kind;
  bool first;  // of equal requests
};

// Enters this process; a ticket of 0 gets a new one, which is written to it. kFull: `most` wait for the provider, and
// this one has had no place before.
Entered waiting_line_enter(keypool::Waiter *waiter, uint32 most);

// Takes it out. Returns whether it was woken.
bool waiting_line_leave(const keypool::Waiter &waiter);

// Wakes the first, or the next behind one who is not in the line (core/quota/waiting_line.h).
void waiting_line_wake_first(uint32 provider);
void waiting_line_wake_next(const keypool::Waiter &waiter, bool other_request);
