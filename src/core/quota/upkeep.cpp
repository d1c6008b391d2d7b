// upkeep.cpp - changes of a meter that no call makes: calls dropped, widths configured, a clock that was wrong.
#include "core/quota/settling.h"
#include "core/quota/slots.h"
#include "core/quota/usage.h"

namespace keypool {

namespace {

void MoveRecordedRing(Meter *meter, TimeUs seen, TimeUs now) {
  uint32_t newest = SlotNumber(*meter, SecondOf(seen));
  RecordedSlot moved = {0, SlotNumber(*meter, SecondOf(now)), 0, 0, 0};
  int64_t cost = 0;
  for (RecordedSlot &slot : meter->recorded.ring) {
    if (InWindow(slot.number, newest)) {
      moved.requests = SaturatingSlotSum(moved.requests, slot.requests);
      moved.tokens = SaturatingSlotSum(moved.tokens, slot.tokens);
      moved.output = SaturatingSlotSum(moved.output, slot.output);
      if (!BySecond(*meter)) cost = SaturatingSum(cost, static_cast<int64_t>(slot.settled_or_cost));
    }
    slot = {};
  }
  moved.settled_or_cost = static_cast<uint64_t>(cost);
  meter->recorded.ring[RingIndex(moved.number)] = moved;
}

// Minutes keep their distance to the newest, which becomes now's.
void MoveHistory(RecordedMeter *recorded, Minute newest, Minute minute) {
  History moved = {};
  for (Minute age = 0; age < kMinuteSlots; ++age) {
    moved.minute[MinuteIndex(minute - age)] = recorded->history.minute[MinuteIndex(newest - age)];
    moved.rate_limited[MinuteIndex(minute - age)] = recorded->history.rate_limited[MinuteIndex(newest - age)];
  }
  recorded->history = moved;
}

// `own`: the meter's own clock, by which its window is.
void MoveRecorded(Meter *meter, TimeUs own, TimeUs now) {
  RecordedMeter *recorded = &meter->recorded;
  TimeUs seen = NewestRecorded(*recorded);
  if (seen <= now) return;
  MoveRecordedRing(meter, own, now);
  MoveHistory(recorded, MinuteOf(seen), MinuteOf(now));
  // The newest minute began with what is now the newest time.
  TimeUs *newest = recorded->last_429_at == seen ? &recorded->last_429_at : &recorded->totals.last_used_at;
  recorded->totals.last_used_at = std::min(recorded->totals.last_used_at, now);
  recorded->last_429_at = std::min(recorded->last_429_at, now);
  assert(*newest == now);
  (void)newest;
}

void MoveReservedRing(ReservedMeter *reserved, Second seen, Second second) {
  int64_t open = 0;
  ReservedSlot moved = {second, 0, 0, 0, 0};
  for (ReservedSlot &slot : reserved->ring) {
    if (InWindow(slot.second, seen)) {
      open += slot.open;
      moved.tokens = SaturatingSlotSum(moved.tokens, slot.tokens);
      moved.output = SaturatingSlotSum(moved.output, slot.output);
    }
    slot = {};
  }
  moved.open = static_cast<uint16_t>(std::min<int64_t>(open, kMaxSlotOpen));
  reserved->ring[RingIndex(second)] = moved;
}

void MoveOpen(Meter *meter, Second second, const OpenCalls &open) {
  uint32_t number = OpenNumber(*meter, second);
  for (OpenSlot &slot : meter->reserved.open) slot = {};
  OpenSlot &slot = meter->reserved.open[OpenIndex(number)];
  slot.number = number & kOpenNumberMask;
  slot.calls = static_cast<uint64_t>(std::min(open.calls, kMaxOpenCalls));
  slot.tokens = static_cast<uint64_t>(std::min(open.tokens, kMaxOpenTokens));
  slot.cost = static_cast<uint64_t>(std::min(open.cost, kMaxOpenCost));
}

// Puts the calls that the ring knows into slots of open calls as wide as they are now. Older ones are lost, and so is
// the cost of all.
void SortOpen(Meter *meter) {
  for (OpenSlot &slot : meter->reserved.open) slot = {};
  Second newest = MeterSecond(*meter, 0);
  for (const ReservedSlot &seconds : meter->reserved.ring) {
    if (seconds.open == 0 || !InWindow(seconds.second, newest)) continue;
    uint32_t number = OpenNumber(*meter, seconds.second);
    OpenSlot &slot = meter->reserved.open[OpenIndex(number)];
    slot.number = number & kOpenNumberMask;
    slot.calls = std::min<uint64_t>(slot.calls + seconds.open, static_cast<uint64_t>(kMaxOpenCalls));
    slot.tokens = std::min<uint64_t>(slot.tokens + seconds.tokens, static_cast<uint64_t>(kMaxOpenTokens));
  }
}

void MoveReserved(Meter *meter, TimeUs own, TimeUs now) {
  ReservedMeter *reserved = &meter->reserved;
  if (NewestReserved(*reserved) <= now) return;
  OpenCalls open = CallsInFlight(*meter, own);
  MoveReservedRing(reserved, SecondOf(own), SecondOf(now));
  MoveOpen(meter, SecondOf(now), open);
  reserved->last_selected_at = now;
  reserved->probe_until = 0;
}

// The output of the last 60 seconds, or of the slots that they reach into.
int64_t OutputOfMinute(const Meter &meter, Second second) {
  uint32_t newest = SlotNumber(meter, second), oldest = SlotNumber(meter, second - kWindowSlots);
  int64_t output = 0;
  for (const RecordedSlot &slot : meter.recorded.ring)
    if (slot.number >= oldest && slot.number <= newest) output += slot.output;
  return output;
}

// Fills a ring of another width, which is empty, with what is known of the time before: the minutes of the last hour,
// or where slots are seconds those of the last 60 of them, as if they were now's. So whoever tries a width and gives it
// up again, as by ROLLBACK, forgets no limit.
void FillRing(const Meter &before, Meter *meter) {
  TimeUs now = MeterNow(before, 0);
  UsageSlot uses[kMaxUsage];
  int count = UsageBy(before, Span::kMinute, BySecond(*meter) ? 2 : kMinuteSlots, now, uses);
  for (int i = 0; i < count; ++i) {
    Second second = BySecond(*meter) ? SecondOf(now) : uses[i].number * 60;
    RecordedSlot slot = RecordedSlotOf(*meter, SlotNumber(*meter, second));
    slot.requests = SaturatingSlotSum(slot.requests, uses[i].requests);
    slot.tokens = SaturatingSlotSum(slot.tokens, uses[i].tokens);
    if (i == 0) slot.output = SaturatingSlotSum(0, OutputOfMinute(before, SecondOf(now)));
    meter->recorded.ring[RingIndex(slot.number)] = slot;
  }
}

void CutBlocks(RecordedMeter *recorded, TimeUs latest, TimeUs now) {
  recorded->blocked_until = std::min(recorded->blocked_until, latest);
  recorded->breaker.open_until = std::min(recorded->breaker.open_until, latest);
  recorded->breaker.opened_at = std::min(recorded->breaker.opened_at, now);
  for (TimeUs &until : recorded->model_blocked_until) until = std::min(until, latest);
}

}  // namespace

void DropOpenCalls(MeterEdit *edit) noexcept {
  const ReservedMeter &reserved = edit->meter().reserved;
  ReservedMeter dropped = reserved;
  for (ReservedSlot &slot : dropped.ring) slot.open = 0, slot.tokens = 0, slot.output = 0;
  for (OpenSlot &slot : dropped.open) slot.calls = 0, slot.tokens = 0, slot.cost = 0;
  edit->SetWhole(reserved.ring, dropped.ring);
  edit->SetWhole(reserved.open, dropped.open);
}

void Configure(MeterEdit *edit, uint32_t ring_width, uint32_t call_timeout) noexcept {
  assert(ring_width == kSecondSlots || ring_width == kHourSlots || ring_width == kDaySlots);
  assert(call_timeout >= kMinCallTimeout && call_timeout <= kMaxCallTimeout);
  const Meter &meter = edit->meter();
  if (meter.recorded.ring_width != ring_width) {
    Meter filled = FreshMeter(ring_width, call_timeout);
    FillRing(meter, &filled);
    edit->Set(meter.recorded.ring, filled.recorded.ring);
    edit->Set(meter.recorded.ring_width, ring_width);
  }
  if (meter.recorded.call_timeout != call_timeout) {
    Meter sorted = meter;
    sorted.recorded.call_timeout = call_timeout;
    SortOpen(&sorted);
    edit->SetWhole(meter.reserved.open, sorted.reserved.open);
    edit->Set(meter.recorded.call_timeout, call_timeout);
  }
}

void MoveToNow(MeterEdit *edit, const PeriodEnds &ends, TimeUs max_block, TimeUs now) noexcept {
  assert(max_block > 0 && ends.day > SecondOf(now) && ends.month > SecondOf(now));
  Meter moved = edit->meter();
  TimeUs own = MeterNow(moved, now);
  MoveRecorded(&moved, own, now);
  MoveReserved(&moved, own, now);
  CutBlocks(&moved.recorded, now + max_block, now);
  moved.recorded.day.end = std::min(moved.recorded.day.end, ends.day);
  moved.recorded.month.end = std::min(moved.recorded.month.end, ends.month);
  edit->SetWhole(edit->meter(), moved);
  assert(MeterNow(edit->meter(), now) == now);
}

}  // namespace keypool
