// wakeups.cpp - telling every session which meters can serve sooner than it has seen.
#include "core/quota/wakeups.h"

#include <cassert>

#include "core/quota/window.h"

namespace keypool {

namespace {

constexpr TimeUs kLongestPause = kMaxBurstSeconds * kMicrosPerSecond;

TimeUs PauseOf(const Meter &meter) { return MeterNow(meter, 0) - meter.reserved.last_selected_at; }

}  // namespace

// Most meters are not awaited: the load costs a walk over their slots.
WatchedChange BeginChange(const Meter &meter, const CountRule &rule) noexcept {
  WatchedChange change;
  change.awaited = meter.reserved.awaited;
  if (change.awaited == 0) return change;
  change.pause = PauseOf(meter);
  change.before = LoadOf(meter, rule, 0);
  return change;
}

bool HasEased(const WatchedChange &change, const Meter &meter, const CountRule &rule) noexcept {
  assert(meter.reserved.awaited == change.awaited);
  if (change.awaited == 0) return false;
  bool calls_matter = (change.awaited & kAwaitedForCalls) != 0;
  bool paced = (change.awaited & kAwaitedForPace) != 0 && change.pause < kLongestPause;
  if (paced && PauseOf(meter) > change.pause) return true;
  return LoadOf(meter, rule, 0).EasedFrom(change.before, calls_matter);
}

bool EndChange(const WatchedChange &change, Meter *meter, const CountRule &rule) noexcept {
  if (!HasEased(change, *meter, rule)) return false;
  meter->reserved.awaited = 0;
  return true;
}

}  // namespace keypool
