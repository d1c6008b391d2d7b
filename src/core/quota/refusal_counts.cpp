// refusal_counts.cpp - how often a provider had no key to give, and since when.
#include "core/quota/refusal_counts.h"

#include "core/quota/slots.h"

namespace keypool {

namespace {

constexpr Second kHour = 3600, kDay = 86400;

template <int Slots>
RefusalSlot SlotOf(const RefusalSlot (&ring)[Slots], uint32_t number) {
  const RefusalSlot &slot = ring[number % Slots];
  return slot.number == number ? slot : RefusalSlot{number, {}};
}

template <int Slots>
void AddTo(RefusalSlot (&ring)[Slots], uint32_t number, const uint32_t (&refused)[kRefused]) {
  RefusalSlot sum = SlotOf(ring, number);
  for (int i = 0; i < kRefused; ++i) sum.counts[i] = SaturatingSlotSum(sum.counts[i], refused[i]);
  ring[number % Slots] = sum;
}

// A request that is too large for every key says nothing of the others.
bool TellShortage(const uint32_t (&refused)[kRefused]) {
  for (int i = 0; i < kRefused; ++i)
    if (refused[i] != 0 && static_cast<Refused>(i) != Refused::kTooLarge) return true;
  return false;
}

}  // namespace

bool AddRefusals(RefusalCounts *counts, const uint32_t (&refused)[kRefused], TimeUs first_at, TimeUs now) noexcept {
  assert(first_at <= now);
  for (int i = 0; i < kRefused; ++i)
    counts->totals[i] = SaturatingSum(std::max<int64_t>(counts->totals[i], 0), refused[i]);
  AddTo(counts->hours, SecondOf(now) / kHour, refused);
  AddTo(counts->days, SecondOf(now) / kDay, refused);
  if (!TellShortage(refused)) return false;
  bool was_short = ShortSince(*counts, first_at) != 0;
  if (!was_short) counts->short_since = first_at;
  counts->last_at = now;
  return !was_short;
}

TimeUs ShortSince(const RefusalCounts &counts, TimeUs now) noexcept {
  bool is_recent = counts.last_at != 0 && IsTime(counts.last_at) && now - counts.last_at < kShortPause;
  return is_recent && IsTime(counts.short_since) ? counts.short_since : 0;
}

RefusalSlot RefusedInHour(const RefusalCounts &counts, uint32_t hour) noexcept { return SlotOf(counts.hours, hour); }
RefusalSlot RefusedInDay(const RefusalCounts &counts, uint32_t day) noexcept { return SlotOf(counts.days, day); }

}  // namespace keypool
