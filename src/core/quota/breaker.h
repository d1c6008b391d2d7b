// breaker.h - a circuit breaker: what goes through a meter is stopped after failures, and tried again with one call.
//
//   closed    openings is 0. Failures of one reason in a row are counted; at the rule's threshold it opens
//   open      until open_until nothing goes through
//   half-open after that: one call is let through as a probe, over all sessions. While it is under way, or until its
//             place is free (the breaker's own time, at least a minute), nothing else is
//
// The probe's success closes it; its failure opens it again for twice as long, at most a day. Calls that were selected
// before it opened, or was closed by hand, say nothing about it. So the calls that fail together open it once.
//
// That a probe is under way is a hint: a crash may forget it, and lets another one through. That it has ended is
// logged: a page may have been written meanwhile.
//
// All times are the meter's own. What changes is recorded, but for that hint.
#pragma once

#include "core/quota/meter_edit.h"

namespace keypool {

// When failures of a reason open a breaker, and for how long at first.
struct BreakerRule {
  uint8_t reason;      // tells failures in a row of different kinds apart; not 0
  uint16_t threshold;  // so many in a row open it; 0: they never do
  uint32_t seconds;    // 1 to kMaxBreakerSeconds
};

inline constexpr uint32_t kMaxBreakerSeconds = 86400;
inline constexpr uint32_t kMinProbeSeconds = 60;

enum class BreakerState : uint8_t { kClosed, kOpen, kHalfOpen };
BreakerState BreakerStateOf(const Meter &meter, TimeUs now) noexcept;

// For how long it has been open; 0: it is closed. An estimate after a probe has failed: only the moment of the last
// opening is kept, so each time before counts half of the next, as it was doubled, and the wait for a probe nothing.
TimeUs BreakerOpenFor(const Meter &meter, TimeUs now) noexcept;

// Until when nothing goes through: while it is open, or a probe is under way. 0: something does.
TimeUs BreakerHoldsUntil(const Meter &meter, TimeUs now) noexcept;

// A selection that is let through while it is half-open is the probe: takes its place. Returns whether it is one.
bool BeginProbe(Meter *meter, TimeUs now) noexcept;

// A probe that was selected in this second has ended, and says nothing: its place is free, if it still is its own.
void EndProbe(MeterEdit *edit, Second selected_in) noexcept;

// Whether a call that was selected in this second says anything.
bool HearsOf(const Meter &meter, Second selected_in) noexcept;

// A call that was selected in this second has succeeded.
void NoteSuccess(MeterEdit *edit, Second selected_in) noexcept;

// Or failed. Returns whether that has opened the breaker.
bool NoteFailure(MeterEdit *edit, const BreakerRule &rule, Second selected_in, TimeUs now) noexcept;

// Whether such a failure would.
bool WouldOpen(const Meter &meter, const BreakerRule &rule, Second selected_in) noexcept;

// Notes a failure that would open the breaker, but does not: blocks the meter for kSuspectSeconds instead, for which it
// is suspect. For whoever thinks that the fault is elsewhere.
inline constexpr uint32_t kSuspectSeconds = 60;
void NoteSuspicion(MeterEdit *edit, const BreakerRule &rule, Second selected_in, TimeUs now) noexcept;
bool IsSuspect(const Meter &meter, TimeUs now) noexcept;

// By hand: closes it, and no call that was selected up to now is heard any more.
void CloseBreaker(MeterEdit *edit, TimeUs now) noexcept;

}  // namespace keypool
