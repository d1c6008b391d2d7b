// usage.cpp - what a meter has counted in past minutes, hours and days.
#include "core/quota/usage.h"

#include "core/quota/slots.h"

namespace keypool {

namespace {

uint32_t Cut32(int64_t amount) { return static_cast<uint32_t>(std::min(amount, kMaxSlotAmount)); }

UsageSlot UseInMinute(const RecordedMeter &recorded, Minute minute, Minute newest) {
  int at = MinuteIndex(minute);
  int64_t requests = recorded.history.minute[at].requests, tokens = recorded.history.minute[at].tokens;
  if (minute == newest) {
    requests = recorded.totals.requests - recorded.minute_requests;
    tokens = recorded.totals.tokens - recorded.minute_tokens;
  }
  assert(requests >= 0 && tokens >= 0);
  return {minute, Cut32(requests), recorded.history.rate_limited[at], Cut32(requests), tokens, Cut32(tokens), 0};
}

// The hour of the newest minute, as far as it has come.
UsageSlot RunningHour(const RecordedMeter &recorded) {
  Minute newest = MinuteOf(NewestRecorded(recorded));
  UsageSlot hour = {newest / kMinutesOfHour, 0, 0, 0, 0, 0, 0};
  for (Minute minute = hour.number * kMinutesOfHour; minute <= newest; ++minute)
    AddUsage(&hour, UseInMinute(recorded, minute, newest));
  return hour;
}

bool HoldsSomething(const UsageSlot &use) { return use.requests != 0 || use.rate_limited != 0 || use.tokens != 0; }

// Slot i of a ring holds a number n with n % Slots == i.
template <int Slots>
UsageSlot SlotOf(const UsageSlot (&ring)[Slots], uint32_t number) {
  const UsageSlot &slot = ring[number % Slots];
  return slot.number == number ? slot : UsageSlot{number, 0, 0, 0, 0, 0, 0};
}

UsageSlot UseIn(const RecordedMeter &recorded, Span span, uint32_t number) {
  Minute newest = MinuteOf(NewestRecorded(recorded));
  if (span == Span::kMinute)  // newer than anything recorded, or older than the history: nothing
    return newest - number < kMinuteSlots ? UseInMinute(recorded, number, newest) : UsageSlot{};
  bool by_hour = span == Span::kHour;
  UsageSlot use = by_hour ? SlotOf(recorded.hours, number) : SlotOf(recorded.days, number);
  UsageSlot running = RunningHour(recorded);
  if (number == (by_hour ? running.number : running.number / kHoursOfDay)) AddUsage(&use, running);
  return use;
}

template <int Slots>
void AddTo(MeterEdit *edit, const UsageSlot (&ring)[Slots], uint32_t number, const UsageSlot &use) {
  UsageSlot sum = SlotOf(ring, number);
  AddUsage(&sum, use);
  edit->Set(ring[number % Slots], sum);
}

void Raise(int64_t use, int64_t max, int64_t *percent) {
  if (max != 0) *percent = std::max(*percent, static_cast<int64_t>(static_cast<double>(use) / max * 100));
}

}  // namespace

int UsageBy(const Meter &meter, Span span, int count, TimeUs now, UsageSlot (&out)[kMaxUsage]) noexcept {
  assert(count >= 1 && count <= SpanCount(span));
  auto current = static_cast<uint32_t>(SecondOf(MeterNow(meter, now)) / SpanSeconds(span));
  int written = 0;
  for (uint32_t age = 0; age < static_cast<uint32_t>(count) && age <= current; ++age) {
    UsageSlot use = UseIn(meter.recorded, span, current - age);
    if (HoldsSomething(use)) out[written++] = use;
  }
  return written;
}

void AddUsage(UsageSlot *sum, const UsageSlot &use) noexcept {
  sum->requests = SaturatingSlotSum(sum->requests, use.requests);
  sum->rate_limited = SaturatingSlotSum(sum->rate_limited, use.rate_limited);
  sum->tokens = SaturatingSum(sum->tokens, use.tokens);
  sum->peak_requests = std::max(sum->peak_requests, use.peak_requests);
  sum->peak_tokens = std::max(sum->peak_tokens, use.peak_tokens);
}

void CloseHour(MeterEdit *edit) noexcept {
  const RecordedMeter &recorded = edit->meter().recorded;
  UsageSlot hour = RunningHour(recorded);
  AddTo(edit, recorded.hours, hour.number, hour);
  AddTo(edit, recorded.days, hour.number / kHoursOfDay, hour);
}

int64_t PeakPercent(const UsageSlot &use, Span span, const Limits &limits) noexcept {
  int64_t percent = -1;
  Raise(use.peak_requests, limits.of(Limit::kRpm), &percent);
  Raise(use.peak_tokens, limits.of(Limit::kTpm), &percent);
  if (span == Span::kHour) {
    Raise(use.requests, limits.of(Limit::kRph), &percent);
    Raise(use.tokens, limits.of(Limit::kTph), &percent);
  }
  if (span == Span::kDay) {
    Raise(use.requests, limits.of(Limit::kRpd), &percent);
    Raise(use.tokens, limits.of(Limit::kTpd), &percent);
  }
  return percent;
}

}  // namespace keypool
