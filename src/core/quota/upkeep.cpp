// upkeep.cpp - changes of a meter that no call makes: calls dropped, widths configured, a clock that was wrong.
#include "core/quota/settling.h"
#include "core/quota/slots.h"

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

// The newest minute holds all of what the window does from now on.
void KeepMinuteAboveWindow(const Meter &meter, RecordedMeter *recorded, TimeUs now) {
  const RecordedSlot &slot = meter.recorded.ring[RingIndex(SlotNumber(meter, SecondOf(now)))];
  const Totals &totals = recorded->totals;
  recorded->minute_requests =
      std::max<int64_t>(std::min(recorded->minute_requests, totals.requests - slot.requests), 0);
  recorded->minute_tokens = std::max<int64_t>(std::min(recorded->minute_tokens, totals.tokens - slot.tokens), 0);
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
  KeepMinuteAboveWindow(*meter, recorded, now);
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
    edit->Set(meter.recorded.ring, Meter{}.recorded.ring);
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
  if (moved.reserved.unmatched_at != 0) moved.reserved.unmatched_at = SecondOf(now);
  CutBlocks(&moved.recorded, now + max_block, now);
  moved.recorded.day.end = std::min(moved.recorded.day.end, ends.day);
  moved.recorded.month.end = std::min(moved.recorded.month.end, ends.month);
  edit->SetWhole(edit->meter(), moved);
  assert(MeterNow(edit->meter(), now) == now);
}

}  // namespace keypool
