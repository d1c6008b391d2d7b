// window.h - what a meter holds at a moment.
//
// Windows. Usage is counted in slots of `ring_width` seconds. At slot n the window is the slots n-60 .. n, so that no interval of 60 slots,
// however it lies, holds more than the limit: 60 seconds, an hour, or a rolling day (never over, and at most one slot late).
//   Width 1: open reservations of the last 60 seconds count in their own second. A request that is settled by its lease counts in the
//   second of its selection, its tokens in the second in which they were settled.
//   Wider: a request and its tokens count when they are settled; calls that are open count now, whenever they were selected.
//
// A meter's own clock. If the wall clock steps back, the newest second that the meter has seen counts as now. Every function here takes
// the wall clock's time and applies this rule.
#pragma once

#include "core/quota/meter.h"

namespace keypool {

inline constexpr uint32_t kWindowSlots = 60;

// The meter's own now, and its second.
TimeUs MeterNow(const Meter &meter, TimeUs now) noexcept;
Second MeterSecond(const Meter &meter, TimeUs now) noexcept;

// What stands in the window, open calls of the window included.
struct WindowUse {
  int64_t requests;
  int64_t tokens;
  int64_t output;
  int64_t open;  // reservations of the window that are not settled
};
WindowUse UseInWindow(const Meter &meter, TimeUs now) noexcept;

// Calls that are open: selected, not settled, and not older than call_timeout. A slot of open calls is call_timeout / 15 seconds wide,
// rounded up, so that the 16 slots always reach back over call_timeout: a place is free again after call_timeout, at most one such
// width later.
struct OpenCalls {
  int64_t calls;
  int64_t tokens;
  int64_t cost;
};
Second OpenSlotWidth(const Meter &meter) noexcept;
OpenCalls CallsInFlight(const Meter &meter, TimeUs now) noexcept;

// What a period holds at this time, without the calls that are open; zeros if it is over.
struct PeriodUse {
  int64_t requests;
  int64_t tokens;
  int64_t cost;
};
PeriodUse UseInPeriod(const Meter &meter, const Period &period, TimeUs now) noexcept;

struct MinuteUse {
  Minute minute;
  uint32_t requests;
  uint32_t rate_limited;
  int64_t tokens;
};

// Writes the minutes that hold something, among the last `minutes` (1 to 60), newest first; returns how many.
int UsageByMinute(const Meter &meter, int minutes, TimeUs now, MinuteUse (&out)[kMinuteSlots]) noexcept;

// Whether the meter has seen a time so far ahead (more than kClockLead) that the clock must have been wrong then.
inline constexpr Second kClockLead = 600;
bool ClockWasWrong(const Meter &meter, TimeUs now) noexcept;

}  // namespace keypool
