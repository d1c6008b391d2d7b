// observed_use.h - correcting a meter by what the provider says is used of a limit: somebody else uses the key, too.
//
// Providers tell how much of a limit remained when they answered. If they have counted more by then than the meter
// holds, the rest is added to its window, in the second in which they said it, and leaves it as any other use does.
// Never to totals: it was nobody's call here. Counts are never lowered, since calls that are open may not have reached
// the provider yet. What they say is good for kObservedSeconds, as long as the ring still holds the window of then;
// older answers would count again what has left the window since.
#pragma once

#include "core/quota/limits.h"
#include "core/quota/meter_edit.h"

namespace keypool {

inline constexpr Second kObservedSeconds = 3;

struct ObservedUse {
  uint8_t meter;   // of the call's
  Limit limit;     // kRpm, kTpm or kOutputTpm
  int64_t used;    // in its window; not negative
  Second written;  // when the provider said so
};

// `now` is the meter's own. Nothing for a meter whose slots are wider than a second, or if it is too old.
void RaiseToObserved(MeterEdit *edit, const ObservedUse &observed, TimeUs now) noexcept;

}  // namespace keypool
