// wakeups.cpp - the rings of posts.
#include "pg/state/wakeups.h"

#include "pg/state/waiting_lines.h"

static_assert(sizeof(keypool::Ring) == kWakeupContent);

static keypool::Ring *ring_in_page(const Wakeups &ring) {
  return static_cast<keypool::Ring *>(wakeup_row_content(ring.row));
}

Wakeups wakeups_open(uint32 provider, LOCKMODE mode) {
  return {wakeup_row_open(ring_slot_of(provider), mode), provider, false};
}

void wakeups_close(Wakeups *ring) {
  wakeup_row_close(&ring->row);
  if (ring->wakes) waiting_line_wake_first(ring->provider);
  *ring = {};
}

uint64 wakeups_posted(const Wakeups &ring) {
  LockBuffer(ring.row.buffer, BUFFER_LOCK_SHARE);
  uint64 posted = ring_in_page(ring)->posted;
  LockBuffer(ring.row.buffer, BUFFER_LOCK_UNLOCK);
  return posted;
}

uint32 wakeups_read(const Wakeups &ring, uint64 *seen, keypool::KeyId (&meters)[keypool::kRingPosts], bool *lost) {
  LockBuffer(ring.row.buffer, BUFFER_LOCK_SHARE);
  uint32 count = keypool::ReadPosts(*ring_in_page(ring), seen, meters, lost);
  LockBuffer(ring.row.buffer, BUFFER_LOCK_UNLOCK);
  return count;
}

void wakeups_post(Wakeups *ring, const keypool::KeyId &meter) {
  if (!wakeups_is_open(*ring)) return;
  LockBuffer(ring->row.buffer, BUFFER_LOCK_EXCLUSIVE);
  keypool::PostMeter(ring_in_page(*ring), meter);
  ring->wakes = ring->wakes || ring_in_page(*ring)->waiting != 0;
  MarkBufferDirtyHint(ring->row.buffer, true);
  LockBuffer(ring->row.buffer, BUFFER_LOCK_UNLOCK);
}

void wakeups_set_waiting(const Wakeups &ring, uint64 waiting) {
  LockBuffer(ring.row.buffer, BUFFER_LOCK_EXCLUSIVE);
  ring_in_page(ring)->waiting = waiting;
  MarkBufferDirtyHint(ring.row.buffer, true);
  LockBuffer(ring.row.buffer, BUFFER_LOCK_UNLOCK);
}
