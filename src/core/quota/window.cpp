// window.cpp - what a meter holds at a moment.
#include "core/quota/window.h"

#include <bit>
#include <cstring>

#include "core/quota/slots.h"

namespace keypool {

namespace {

// Sums over the slots whose number is in a window: of what stands behind the number, in 32 bits each.
struct SlotSums {
  uint64_t second, third, fourth;
  uint32_t any_second;  // the bits that any of those has
};

template <size_t Offset, typename Slot>
SlotSums SumOneByOne(const Slot (&ring)[kRingSlots], uint32_t newest) {
  SlotSums sums = {};
  for (const Slot &slot : ring) {
    uint32_t parts[4];
    memcpy(parts, reinterpret_cast<const unsigned char *>(&slot) + Offset, sizeof(parts));
    uint64_t counted = -uint64_t{InWindow(parts[0], newest)};
    sums.second += counted & parts[1];
    sums.any_second |= static_cast<uint32_t>(counted) & parts[1];
    sums.third += counted & parts[2];
    sums.fourth += counted & parts[3];
  }
  return sums;
}

#if defined(__GNUC__)

// What is summed of a slot, and its number, are four parts of 32 bits: one vector. Without branches: on the way of
// every selection. Sums of 32 bits do while no part reaches 2^26, which is looked at afterwards.
using Four = uint32_t __attribute__((vector_size(16)));
using FourSigned = int32_t __attribute__((vector_size(16)));
constexpr uint32_t kLargeParts = ~((uint32_t{1} << 26) - 1);

#if defined(__clang__)
Four FirstToAll(Four parts) { return __builtin_shufflevector(parts, parts, 0, 0, 0, 0); }
#else
Four FirstToAll(Four parts) { return __builtin_shuffle(parts, Four{0, 0, 0, 0}); }
#endif

template <size_t Offset, typename Slot>
SlotSums SumWindow(const Slot (&ring)[kRingSlots], uint32_t newest) {
  static_assert(sizeof(Slot) >= Offset + sizeof(Four));
  // Those of the window are moved to the top of the signed numbers, so that one comparison finds them.
  const uint32_t shift = (uint32_t{1} << 31) - newest - 1;
  const auto below = static_cast<int32_t>((uint32_t{1} << 31) - kWindowSlots - 2);
  const FourSigned belows = {below, below, below, below};
  Four sums = {}, any = {};
#pragma GCC unroll 8
  for (const Slot &slot : ring) {
    Four parts;
    memcpy(&parts, reinterpret_cast<const unsigned char *>(&slot) + Offset, sizeof(parts));
    Four counted = parts & reinterpret_cast<Four>(reinterpret_cast<FourSigned>(FirstToAll(parts) + shift) > belows);
    sums += counted;
    any |= counted;
  }
  if (((any[1] | any[2] | any[3]) & kLargeParts) != 0) return SumOneByOne<Offset>(ring, newest);
  return {sums[1], sums[2], sums[3], any[1]};
}

#else

template <size_t Offset, typename Slot>
SlotSums SumWindow(const Slot (&ring)[kRingSlots], uint32_t newest) {
  return SumOneByOne<Offset>(ring, newest);
}

#endif

// `open` and `selected` of a reserved slot are one part of 32 bits, whose lower half is what is open. Sums of those do
// not reach into the upper half while no slot has 1,024 open; and quotas have nothing there.
int64_t OpenInWindow(const ReservedSlot (&ring)[kRingSlots], const SlotSums &sums, Second newest) {
  static_assert(offsetof(ReservedSlot, open) == sizeof(Second) && std::endian::native == std::endian::little);
  constexpr uint32_t kLower = UINT16_MAX, kManyOpen = kLower & ~uint32_t{1023};
  static_assert(1023 * (kWindowSlots + 1) <= kLower);
  if (sums.any_second <= kLower) return static_cast<int64_t>(sums.second);
  if ((sums.any_second & kManyOpen) == 0) return static_cast<int64_t>(sums.second & kLower);
  int64_t open = 0;
  for (const ReservedSlot &slot : ring)
    if (InWindow(slot.second, newest)) open += slot.open;
  return open;
}

int64_t GrownBy(int64_t total, int64_t start) {
  assert(total >= start && start >= 0);
  return total - start;
}

}  // namespace

Meter FreshMeter(uint32_t ring_width, uint32_t call_timeout) noexcept {
  assert(ring_width != 0);
  assert(call_timeout >= kMinCallTimeout && call_timeout <= kMaxCallTimeout);
  Meter meter = {};
  meter.layout = kLayout;
  meter.recorded.ring_width = ring_width;
  meter.recorded.call_timeout = call_timeout;
  return meter;
}

TimeUs NewestRecorded(const RecordedMeter &recorded) noexcept {
  return std::max(recorded.totals.last_used_at, recorded.last_429_at);
}

TimeUs NewestReserved(const ReservedMeter &reserved) noexcept {
  return IsTime(reserved.last_selected_at) ? reserved.last_selected_at : 0;
}

TimeUs MeterNow(const Meter &meter, TimeUs now) noexcept {
  return std::max(now, std::max(NewestRecorded(meter.recorded), NewestReserved(meter.reserved)));
}

Second MeterSecond(const Meter &meter, TimeUs now) noexcept { return SecondOf(MeterNow(meter, now)); }

WindowUse UseInWindow(const Meter &meter, TimeUs now) noexcept {
  Second second = MeterSecond(meter, now);
  SlotSums recorded = SumWindow<offsetof(RecordedSlot, number)>(meter.recorded.ring, SlotNumber(meter, second));
  WindowUse use = {static_cast<int64_t>(recorded.second), static_cast<int64_t>(recorded.third),
                   static_cast<int64_t>(recorded.fourth), 0};
  if (BySecond(meter)) {
    SlotSums reserved = SumWindow<0>(meter.reserved.ring, second);
    use.open = OpenInWindow(meter.reserved.ring, reserved, second);
    use.tokens += static_cast<int64_t>(reserved.third);
    use.output += static_cast<int64_t>(reserved.fourth);
  } else {
    OpenCalls open = CallsInFlight(meter, now);
    use.open = open.calls;
    use.tokens += open.tokens;
  }
  use.requests += use.open;
  return use;
}

int64_t CostInWindow(const Meter &meter, TimeUs now) noexcept {
  assert(!BySecond(meter));
  uint32_t newest = SlotNumber(meter, MeterSecond(meter, now));
  int64_t cost = CallsInFlight(meter, now).cost;
  for (const RecordedSlot &slot : meter.recorded.ring)
    if (InWindow(slot.number, newest)) cost = SaturatingSum(cost, static_cast<int64_t>(slot.settled_or_cost));
  return cost;
}

Second OpenSlotWidth(const Meter &meter) noexcept {
  assert(meter.recorded.call_timeout >= kMinCallTimeout);
  return (meter.recorded.call_timeout + kOpenSlots - 2) / (kOpenSlots - 1);
}

// Slot i can only hold the newest number that lies there, or one that is given up.
OpenCalls CallsInFlight(const Meter &meter, TimeUs now) noexcept {
  uint32_t newest = OpenNumber(meter, MeterSecond(meter, now));
  OpenCalls open = {};
  for (uint32_t age = 0; age < kOpenSlots; ++age) {
    const OpenSlot &slot = meter.reserved.open[OpenIndex(newest - age)];
    int64_t counted = -int64_t{IsOpenSlot(slot, newest - age)};
    open.calls += counted & static_cast<int64_t>(slot.calls);
    open.tokens += counted & static_cast<int64_t>(slot.tokens);
    open.cost += counted & static_cast<int64_t>(slot.cost);
  }
  return open;
}

PeriodUse UseInPeriod(const Meter &meter, const Period &period, const CountRule &rule, TimeUs now) noexcept {
  if (period.end <= MeterSecond(meter, now)) return {};
  const Totals &totals = meter.recorded.totals;
  Amounts grown = {GrownBy(totals.tokens, period.tokens), GrownBy(totals.output, period.output),
                   GrownBy(totals.cached, period.cached), 0};
  // Totals at their top may have lost their proportion.
  grown.output = std::min(grown.output, grown.tokens);
  grown.cached = std::min(grown.cached, grown.tokens - grown.output);
  return {GrownBy(totals.requests, period.requests), CountedTokens(grown, rule), GrownBy(totals.cost, period.cost)};
}

bool ClockWasWrong(const Meter &meter, TimeUs now) noexcept { return MeterNow(meter, now) - now > StartOf(kClockLead); }

}  // namespace keypool
