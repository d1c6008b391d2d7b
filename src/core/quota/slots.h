// slots.h - where a moment's counts lie in a meter. For the other files of this folder.
#pragma once

#include <algorithm>
#include <cassert>
#include <limits>

#include "core/quota/window.h"

namespace keypool {

inline constexpr int64_t kMaxSlotAmount = std::numeric_limits<uint32_t>::max();
inline constexpr uint16_t kMaxSlotOpen = std::numeric_limits<uint16_t>::max();

inline int RingIndex(uint32_t number) { return static_cast<int>(number % kRingSlots); }
inline int OpenIndex(uint32_t number) { return static_cast<int>(number % kOpenSlots); }
inline int MinuteIndex(Minute minute) { return static_cast<int>(minute % kMinuteSlots); }

// Numbers are unsigned, so one comparison finds those in [newest - 60, newest].
inline bool InWindow(uint32_t number, uint32_t newest) { return newest - number <= kWindowSlots; }

inline uint32_t SlotNumber(const Meter &meter, Second second) {
  assert(meter.recorded.ring_width != 0);
  return second / meter.recorded.ring_width;
}

inline bool BySecond(const Meter &meter) { return meter.recorded.ring_width == 1; }

// Of open calls. Slots store the lowest bits of their number.
inline uint32_t OpenNumber(const Meter &meter, Second second) { return second / OpenSlotWidth(meter); }
inline bool IsOpenSlot(const OpenSlot &slot, uint32_t number) { return slot.number == (number & kOpenNumberMask); }

// Whether any call may be open: also one that is given up by now. A call that a crash has left in the ring alone is
// taken for none, and leaves the window by itself.
inline bool MayHaveOpenCalls(const Meter &meter) {
  uint64_t calls = 0;
  for (const OpenSlot &slot : meter.reserved.open) calls |= slot.calls;
  return calls != 0;
}

// When the calls of such a slot are given up.
inline TimeUs OpenUntil(const Meter &meter, uint32_t number) {
  return StartOf(1) * (int64_t{number} + kOpenSlots) * OpenSlotWidth(meter);
}

// The recorded slot of a number as it is, or empty if it holds another one.
inline RecordedSlot RecordedSlotOf(const Meter &meter, uint32_t number) {
  const RecordedSlot &slot = meter.recorded.ring[RingIndex(number)];
  return slot.number == number ? slot : RecordedSlot{0, number, 0, 0, 0};
}

inline int64_t SaturatingSum(int64_t sum, int64_t amount) {
  assert(amount >= 0);
  return __builtin_add_overflow(sum, amount, &sum) ? std::numeric_limits<int64_t>::max() : sum;
}

inline uint32_t SaturatingSlotSum(uint32_t sum, int64_t amount) {
  assert(amount >= 0);
  return static_cast<uint32_t>(std::min<int64_t>(kMaxSlotAmount, sum + std::min(amount, kMaxSlotAmount)));
}

// What a slot of reservations can hold of counted tokens at all.
inline int64_t SlotTokens(int64_t counted) { return std::min(counted, kMaxSlotAmount); }
inline int64_t OpenTokens(int64_t counted) { return std::min(counted, kMaxOpenTokens); }

}  // namespace keypool
