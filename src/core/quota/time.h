// time.h - the units of time in the core.
#pragma once

#include <cstdint>

namespace keypool {

using TimeUs = int64_t;   // microseconds since 1970, UTC; 0: never
using Second = uint32_t;  // whole seconds since 1970
using Minute = uint32_t;  // whole minutes since 1970

inline constexpr int64_t kMicrosPerSecond = 1000000;
inline constexpr TimeUs kLatestTime = 4102444800 * kMicrosPerSecond;  // the year 2100: later ones are no real clock's

// What a crash tore may be none.
inline constexpr bool IsTime(TimeUs time) { return time >= 0 && time <= kLatestTime; }

inline constexpr Second SecondOf(TimeUs time) { return static_cast<Second>(time / kMicrosPerSecond); }
inline constexpr Minute MinuteOf(TimeUs time) { return SecondOf(time) / 60; }
inline constexpr TimeUs StartOf(Second second) { return TimeUs{second} * kMicrosPerSecond; }

}  // namespace keypool
