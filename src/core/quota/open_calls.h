// open_calls.h - which calls of a meter are open, by when they were selected.
#pragma once

#include "core/quota/meter.h"

namespace keypool {

struct OpenSince {
  Second first, last;  // they were selected in these seconds or between
  int64_t calls;
  int64_t tokens;  // estimates, as the meter counts them
};
inline constexpr int kMaxOpenSince = kRingSlots + kOpenSlots;

// By second for the last minute, by slot of open calls before; oldest first. Returns how many are written.
int ListOpenCalls(const Meter &meter, TimeUs now, OpenSince (&out)[kMaxOpenSince]) noexcept;

}  // namespace keypool
