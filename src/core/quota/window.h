// window.h - what a meter holds at a moment.
//
// Windows. Usage is counted in slots of `ring_width` seconds. At slot n the window is the slots n-60 .. n, so that no
// interval of 60 slots, however it lies, holds more than the limit: 60 seconds, an hour, or a rolling day (never over,
// and at most one slot late).
//   Width 1: open reservations of the last 60 seconds count in their own second. A request that is settled by its lease
//   counts in the second of its selection, its tokens in the second in which they were settled.
//   Wider: a request and its tokens count when they are settled; calls that are open count now, whenever they were
//   selected.
//
// A meter's own clock. If the wall clock steps back, the newest time that the meter has seen counts as now. Every
// function here takes the wall clock's time (or one that is later) and applies this rule.
#pragma once

#include "core/quota/amounts.h"
#include "core/quota/meter.h"

namespace keypool {

inline constexpr uint32_t kWindowSlots = 60;

// The newest time that a half of the meter has seen; 0: none. What a crash left of a hint may be no time at all: then
// none.
TimeUs NewestRecorded(const RecordedMeter &recorded) noexcept;
TimeUs NewestReserved(const ReservedMeter &reserved) noexcept;

// The meter's own now, and its second.
TimeUs MeterNow(const Meter &meter, TimeUs now) noexcept;
Second MeterSecond(const Meter &meter, TimeUs now) noexcept;

// What stands in the window, open calls included: of the window (width 1), or all of them.
struct WindowUse {
  int64_t requests;
  int64_t tokens;
  int64_t output;  // width 1
  int64_t open;    // reservations that are not settled
};
WindowUse UseInWindow(const Meter &meter, TimeUs now) noexcept;

// The cost in a window that is wider, open calls included.
int64_t CostInWindow(const Meter &meter, TimeUs now) noexcept;

// Calls that are open: selected, not settled, and not older than call_timeout. A slot of open calls is call_timeout /
// 15 seconds wide, rounded up, so that the 16 slots always reach back over call_timeout: a place is free again after
// call_timeout, at most one such width later.
struct OpenCalls {
  int64_t calls;
  int64_t tokens;
  int64_t cost;
};
Second OpenSlotWidth(const Meter &meter) noexcept;
OpenCalls CallsInFlight(const Meter &meter, TimeUs now) noexcept;

// What a period holds at this time, without the calls that are open; zeros if it is over. Tokens by the rule, also
// those that were counted before the rule was this one.
struct PeriodUse {
  int64_t requests;
  int64_t tokens;
  int64_t cost;
};
PeriodUse UseInPeriod(const Meter &meter, const Period &period, const CountRule &rule, TimeUs now) noexcept;

// Whether the meter has seen a time so far ahead (more than kClockLead) that the clock must have been wrong then, or a
// crash has torn the meter: before anything else is done with it, MoveToNow.
inline constexpr Second kClockLead = 600;
bool ClockWasWrong(const Meter &meter, TimeUs now) noexcept;

}  // namespace keypool
