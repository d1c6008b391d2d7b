// waiting_lines.cpp - who waits for a key of a provider, and is to be woken.
#include "pg/state/waiting_lines.h"

extern "C" {
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
}

#include "pg/state/wakeups.h"

using keypool::Waiter;
using keypool::WaitingLine;

static_assert(sizeof(WaitingLine) == kWakeupContent);

// A line that is locked.
struct LockedLine {
  WakeupRow row;
  WaitingLine *line;  // null: its row is missing, and nothing is locked
};

static LockedLine lock_line(uint32 provider) {
  LockedLine locked = {wakeup_row_open(line_slot_of(provider), RowExclusiveLock), nullptr};
  if (!wakeup_row_is_open(locked.row)) return locked;
  LockBuffer(locked.row.buffer, BUFFER_LOCK_EXCLUSIVE);
  locked.line = static_cast<WaitingLine *>(wakeup_row_content(locked.row));
  return locked;
}

static void unlock_line(LockedLine *locked) {
  if (locked->line == nullptr) return;
  MarkBufferDirtyHint(locked->row.buffer, true);
  LockBuffer(locked->row.buffer, BUFFER_LOCK_UNLOCK);
  wakeup_row_close(&locked->row);
}

// Also lets those who post know whether anybody waits.
static void unlock_changed_line(LockedLine *locked, const Wakeups &ring) {
  if (locked->line != nullptr && wakeups_is_open(ring)) wakeups_set_waiting(ring, locked->line->count);
  unlock_line(locked);
}

// Who has ended without leaving, by a crash say, keeps nobody waiting: the page outlives them.
static void drop_the_dead(WaitingLine *line) {
  for (uint64 i = Min(line->count, keypool::kMaxWaiters); i-- > 0;) {
    const Waiter waiter = line->waiters[i];
    int32 process = abs(waiter.process);
    if (BackendPidGetProc(process) == nullptr) keypool::LeaveLine(line, process, waiter.provider);
  }
}

static bool has_room(const WaitingLine *line, uint32 provider, uint32 most) {
  return line->count < keypool::kMaxWaiters && keypool::CountWaiters(*line, provider) < most;
}

static Entered enter(WaitingLine *line, Waiter *waiter, uint32 most) {
  bool comes_back = waiter->ticket != 0;
  if (!comes_back) drop_the_dead(line);
  if (!comes_back && !has_room(line, waiter->provider, most)) return {Entered::kFull, false};
  while (waiter->ticket == 0) waiter->ticket = keypool::TakeTicket(line);
  if (!keypool::EnterLine(line, *waiter)) return {Entered::kFull, false};
  return {Entered::kWaits, keypool::IsFirst(*line, *waiter)};
}

Entered waiting_line_enter(Waiter *waiter, uint32 most) {
  Wakeups ring = wakeups_open(waiter->provider, RowExclusiveLock);
  LockedLine locked = lock_line(waiter->provider);
  Entered entered = {Entered::kMissing, true};
  if (locked.line != nullptr && wakeups_is_open(ring)) entered = enter(locked.line, waiter, most);
  unlock_changed_line(&locked, ring);
  wakeups_close(&ring);
  return entered;
}

bool waiting_line_leave(const Waiter &waiter) {
  Wakeups ring = wakeups_open(waiter.provider, RowExclusiveLock);
  LockedLine locked = lock_line(waiter.provider);
  bool woken = locked.line != nullptr && keypool::LeaveLine(locked.line, waiter.process, waiter.provider);
  unlock_changed_line(&locked, ring);
  wakeups_close(&ring);
  return woken;
}

// Lets a process look; whether it does is not waited for.
static void wake(int32 process) {
  PGPROC *proc = process != 0 ? BackendPidGetProc(process) : nullptr;
  if (proc != nullptr) SetLatch(&proc->procLatch);
}

void waiting_line_wake_first(uint32 provider) {
  LockedLine locked = lock_line(provider);
  int32 process = locked.line != nullptr ? keypool::WakeFirst(locked.line, provider) : 0;
  unlock_line(&locked);
  wake(process);
}

void waiting_line_wake_next(const Waiter &waiter, bool other_request) {
  LockedLine locked = lock_line(waiter.provider);
  int32 process = locked.line != nullptr ? keypool::WakeNext(locked.line, waiter, other_request) : 0;
  unlock_line(&locked);
  wake(process);
}
