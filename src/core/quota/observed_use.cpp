// observed_use.cpp - correcting a meter by what the provider says is used of a limit.
#include "core/quota/observed_use.h"

#include "core/quota/slots.h"

namespace keypool {

namespace {

static_assert(kWindowSlots + kObservedSeconds < kRingSlots);

// Whatever may count against the limit by then, and since.
int64_t UseSince(const Meter &meter, Limit limit, Second oldest, Second second) {
  int64_t use = 0;
  for (Second at = oldest; at <= second; ++at) {
    RecordedSlot recorded = RecordedSlotOf(meter, at);
    const ReservedSlot &slot = meter.reserved.ring[RingIndex(at)];
    ReservedSlot reserved = slot.second == at ? slot : ReservedSlot{};
    use += limit == Limit::kRpm   ? int64_t{recorded.requests} + reserved.open
           : limit == Limit::kTpm ? int64_t{recorded.tokens} + reserved.tokens
                                  : int64_t{recorded.output} + reserved.output;
  }
  return use;
}

}  // namespace

void RaiseToObserved(MeterEdit *edit, const ObservedUse &observed, TimeUs now) noexcept {
  const Meter &meter = edit->meter();
  assert(now == MeterNow(meter, now) && observed.used >= 0);
  Second second = SecondOf(now);
  if (!BySecond(meter) || observed.written > second || second - observed.written > kObservedSeconds) return;
  int64_t missing = observed.used - UseSince(meter, observed.limit, observed.written - kWindowSlots, second);
  if (missing <= 0) return;
  RecordedSlot slot = RecordedSlotOf(meter, observed.written);
  uint32_t *amount = observed.limit == Limit::kRpm   ? &slot.requests
                     : observed.limit == Limit::kTpm ? &slot.tokens
                                                     : &slot.output;
  *amount = SaturatingSlotSum(*amount, missing);
  edit->Set(meter.recorded.ring[RingIndex(observed.written)], slot);
}

}  // namespace keypool
