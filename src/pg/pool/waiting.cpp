// waiting.cpp - waiting inside the server for a key that serves a request.
#include "pg/pool/waiting.h"

extern "C" {
#include "storage/latch.h"
}

#include "core/quota/mix.h"
#include "pg/catalog/provider_changes.h"
#include "pg/server/settings.h"
#include "pg/state/waiting_lines.h"
#include "pg/state/wakeups.h"

static constexpr int64 kFirstLooksMs = 1000;
static constexpr int64 kOthersLookMs = 5000;

// Equal for requests that the same keys serve at the same time.
static uint64 request_hash(const Request &request) {
  const keypool::Amounts &amounts = request.amounts;
  uint64 hash = keypool::HashOfText(request.model) ^ (request.tokens_given ? 1 : 0);
  for (int64 amount : {amounts.tokens, amounts.output, amounts.cached, amounts.cost})
    hash = keypool::MixBits(hash ^ static_cast<uint64>(amount));
  hash = keypool::MixBits(hash ^ keypool::HashOfText(request.affinity));
  for (int i = 0; i < request.except_count; ++i)
    hash = keypool::MixBits(hash ^ keypool::HashOfId(request.except_keys[i]));
  return hash;
}

// Of all of them: who asks several providers is not served as one who asks the first of them alone.
static uint32 hash_of_requests(const Request *requests, int count) {
  uint64 hash = 0;
  for (int i = 0; i < count; ++i)
    hash = keypool::MixBits(hash ^ keypool::HashOfText(requests[i].provider)) ^ request_hash(requests[i]);
  return static_cast<uint32>(hash);
}

void waiting_begin(const Request *requests, int count, keypool::TimeUs max_wait, Waiting *waiting) {
  waiting->deadline = GetCurrentTimestamp() + max_wait;
  waiting->count = count;
  waiting->places = static_cast<WaitingPlace *>(palloc0(count * sizeof(WaitingPlace)));
  uint32 request = hash_of_requests(requests, count);
  for (int i = 0; i < count; ++i)
    waiting->places[i].waiter = {MyProcPid, 0, provider_change_hash(requests[i].provider), request};
}

// How much was posted for a provider.
static uint64 posted_for(uint32 provider) {
  Wakeups ring = wakeups_open(provider, AccessShareLock);
  uint64 posted = wakeups_is_open(ring) ? wakeups_posted(ring) : 0;
  wakeups_close(&ring);
  return posted;
}

void waiting_look(Waiting *waiting) {
  ResetLatch(MyLatch);
  CHECK_FOR_INTERRUPTS();
  for (int i = 0; i < waiting->count; ++i) waiting->places[i].posted = posted_for(waiting->places[i].waiter.provider);
}

static bool has_news(const Waiting &waiting) {
  for (int i = 0; i < waiting.count; ++i)
    if (posted_for(waiting.places[i].waiter.provider) != waiting.places[i].posted) return true;
  return false;
}

static void leave(Waiting *waiting, int entered) {
  for (int i = 0; i < entered; ++i) {
    WaitingPlace *place = &waiting->places[i];
    place->woken = waiting_line_leave(place->waiter) || place->woken;
  }
}

// Enters all lines. False if there is no room in one. `*first`: it must keep an eye on the clock.
static bool enter(Waiting *waiting, bool *first) {
  for (int i = 0; i < waiting->count; ++i) {
    Entered entered = waiting_line_enter(&waiting->places[i].waiter, static_cast<uint32>(keypool_max_waiters));
    *first = *first || entered.first;
    if (entered.kind != Entered::kFull) continue;
    leave(waiting, i);
    return false;
  }
  return true;
}

// It was woken in vain: somebody behind may have more luck with another request.
static void wake_others(Waiting *waiting) {
  for (int i = 0; i < waiting->count; ++i) {
    WaitingPlace *place = &waiting->places[i];
    if (place->woken) waiting_line_wake_next(place->waiter, true);
    place->woken = false;
  }
}

static void sleep_for(int64 ms) {
  WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, static_cast<long>(Max(ms, 1)),
            wait_event_of("KeypoolWaitForKey"));
}

bool waiting_sleep(Waiting *waiting, int64 wait_ms) {
  wake_others(waiting);
  int64 left_ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), waiting->deadline);
  bool first = false;
  if (left_ms <= 0 || !enter(waiting, &first)) return false;
  if (!has_news(*waiting)) sleep_for(Min(left_ms, first ? Min(wait_ms, kFirstLooksMs) : kOthersLookMs));
  leave(waiting, waiting->count);
  if (InterruptPending) waiting_end(waiting);
  CHECK_FOR_INTERRUPTS();
  return true;
}

void waiting_end(Waiting *waiting) {
  for (int i = 0; i < waiting->count; ++i)
    if (waiting->places[i].waiter.ticket != 0) waiting_line_wake_next(waiting->places[i].waiter, false);
}
