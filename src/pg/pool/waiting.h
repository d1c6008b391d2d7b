// waiting.h - waiting inside the server for a key that serves a request: max_wait.
//
//   waiting_begin
//   repeat: waiting_look, choose_key; until it serves, or waiting_sleep says that it is over
//   waiting_end
//
// Nothing is locked or pinned while it sleeps, and no transaction id is taken. It sleeps on the process's latch, until
// a moment that the refusal told, a wake-up (core/quota/waiting_line.h), or the end of its time. What nobody is woken
// for, as a key that is added, is seen within a second; if who should wake it fails, within five.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/quota/waiting_line.h"
#include "pg/pool/choose_key.h"

inline constexpr keypool::TimeUs kMaxWait = 60 * keypool::kMicrosPerSecond;

// Where it waits for one provider.
struct WaitingPlace {
  keypool::Waiter waiter;
  uint64 posted;  // when it looked
  bool woken;
};

struct Waiting {
  TimestampTz deadline;  // by the server's clock
  int count;
  WaitingPlace *places;  // one for each provider; null: it does not wait
};

void waiting_begin(const Request *requests, int count, keypool::TimeUs max_wait, Waiting *waiting);

// Before it asks: what happens from here on ends the next sleep.
void waiting_look(Waiting *waiting);

// Sleeps, at most until `wait_ms` are over. False: not at all, for its time is over, or too many wait. Can be
// cancelled.
bool waiting_sleep(Waiting *waiting, int64 wait_ms);

// Lets those behind have their turn. What the caches hold may be gone then.
void waiting_end(Waiting *waiting);
