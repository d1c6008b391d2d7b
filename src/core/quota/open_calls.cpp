// open_calls.cpp - which calls of a meter are open, by when they were selected.
#include "core/quota/open_calls.h"

#include "core/quota/slots.h"

namespace keypool {

int ListOpenCalls(const Meter &meter, TimeUs now, OpenSince (&out)[kMaxOpenSince]) noexcept {
  Second second = MeterSecond(meter, now), oldest = second - kRingSlots + 1, width = OpenSlotWidth(meter);
  OpenSince older[kOpenSlots] = {};
  for (uint32_t age = 0; age < kOpenSlots; ++age) {
    uint32_t number = OpenNumber(meter, second) - age;
    const OpenSlot &slot = meter.reserved.open[OpenIndex(number)];
    bool reaches_back = number * width < oldest && IsOpenSlot(slot, number);
    if (reaches_back)
      older[age] = {number * width, std::min(number * width + width, oldest) - 1, static_cast<int64_t>(slot.calls),
                    static_cast<int64_t>(slot.tokens)};
  }
  int count = 0;
  OpenSince recent[kRingSlots];
  for (Second at = oldest; at != second + 1; ++at) {
    const ReservedSlot &slot = meter.reserved.ring[RingIndex(at)];
    if (slot.second != at || slot.open == 0) continue;
    recent[count++] = {at, at, slot.open, slot.tokens};
    OpenSince &coarse = older[OpenNumber(meter, second) - OpenNumber(meter, at)];
    coarse.calls = std::max<int64_t>(coarse.calls - slot.open, 0);
    coarse.tokens = std::max<int64_t>(coarse.tokens - slot.tokens, 0);
  }
  int written = 0;
  for (int age = kOpenSlots; age-- > 0;)
    if (older[age].calls > 0) out[written++] = older[age];
  std::copy(recent, recent + count, out + written);
  return written + count;
}

}  // namespace keypool
