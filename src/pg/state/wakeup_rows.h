// wakeup_rows.h - the rows of keypool.wakeups: the rings of posts, and the lines of those who wait for them.
//
// All are of one size, lie in a page each, and are changed in place, without WAL of their own: after a crash there is no
// session that could have missed a post, or waits, whatever the page says. A standby is not told; nothing waits there.
#pragma once

#include "pg/server/postgres_api.h"

// As many as the install script makes, of each kind.
inline constexpr int kWakeupRings = 8;
inline constexpr int kWakeupRows = 2 * kWakeupRings;
inline constexpr Size kWakeupContent = 8016;

// Which rows are for a provider, by the hash of its name.
inline int32 ring_slot_of(uint32 provider) { return static_cast<int32>(provider % kWakeupRings); }
inline int32 line_slot_of(uint32 provider) { return kWakeupRings + ring_slot_of(provider); }

// One row, with its table locked and its page pinned. All zero: not open.
struct WakeupRow {
  Relation relation;
  LOCKMODE mode;
  Buffer buffer;
  OffsetNumber offset;
};

inline bool wakeup_row_is_open(const WakeupRow &row) { return row.relation != nullptr; }

// Not open if the row, or the table, is not there. wakeup_row_close is for both.
WakeupRow wakeup_row_open(int32 slot, LOCKMODE mode);
void wakeup_row_close(WakeupRow *row);

// What it holds, in the page: of kWakeupContent bytes, aligned to 8, to be used under the lock of the page.
void *wakeup_row_content(const WakeupRow &row);
