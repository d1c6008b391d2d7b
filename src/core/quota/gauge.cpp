// gauge.cpp - what counts against one limit, and when it leaves.
#include "core/quota/gauge.h"

namespace keypool {

namespace {

enum class Unit { kRequests, kTokens, kOutput, kCost };
enum class Span { kWindow, kDay, kMonth, kFlight };

Unit UnitOf(Limit limit) {
  switch (limit) {
    case Limit::kTpm:
    case Limit::kTph:
    case Limit::kTpd:
    case Limit::kTokensMonth:
      return Unit::kTokens;
    case Limit::kOutputTpm:
      return Unit::kOutput;
    case Limit::kCostDay:
    case Limit::kCostMonth:
      return Unit::kCost;
    default:
      return Unit::kRequests;
  }
}

Span SpanOf(Limit limit, bool rolling_day) {
  switch (limit) {
    case Limit::kRpd:
    case Limit::kTpd:
    case Limit::kCostDay:
      return rolling_day ? Span::kWindow : Span::kDay;
    case Limit::kRequestsMonth:
    case Limit::kTokensMonth:
    case Limit::kCostMonth:
      return Span::kMonth;
    case Limit::kInFlight:
      return Span::kFlight;
    default:
      return Span::kWindow;
  }
}

// A slot that is full may have held more than it says: no limit has room beside it.
int64_t UpToTop(uint32_t amount) { return amount == kMaxSlotAmount ? int64_t{1} << 55 : amount; }

int64_t RecordedAmount(const RecordedSlot &slot, Unit unit) {
  switch (unit) {
    case Unit::kTokens:
      return UpToTop(slot.tokens);
    case Unit::kOutput:
      return UpToTop(slot.output);
    case Unit::kCost:
      return static_cast<int64_t>(slot.settled_or_cost);
    default:
      return slot.requests;
  }
}

int64_t ReservedAmount(const ReservedSlot &slot, Unit unit) {
  return unit == Unit::kTokens ? slot.tokens : unit == Unit::kOutput ? slot.output : slot.open;
}

int64_t OpenAmount(const OpenSlot &slot, Unit unit) {
  return static_cast<int64_t>(unit == Unit::kTokens ? slot.tokens : unit == Unit::kCost ? slot.cost : slot.calls);
}

int64_t PeriodAmount(const PeriodUse &use, Unit unit) {
  return unit == Unit::kTokens ? use.tokens : unit == Unit::kCost ? use.cost : use.requests;
}

}  // namespace

int64_t AmountFor(Limit limit, const Request &request) noexcept {
  switch (UnitOf(limit)) {
    case Unit::kTokens:
      return request.tokens;
    case Unit::kOutput:
      return request.output;
    case Unit::kCost:
      return request.cost;
    default:
      return 1;
  }
}

Gauge::Gauge(const Meter &meter, const Limits &limits, Limit limit, TimeUs now) noexcept : now_(now) {
  assert(now == MeterNow(meter, now));
  Span span = SpanOf(limit, limits.rolling_day);
  if (span == Span::kWindow) AddWindow(meter, limit);
  if (span == Span::kDay) AddPeriod(meter, meter.recorded.day, limits.rule, limit);
  if (span == Span::kMonth) AddPeriod(meter, meter.recorded.month, limits.rule, limit);
  if (span != Span::kWindow || !BySecond(meter)) AddOpen(meter, limit);
}

void Gauge::AddCounted(TimeUs at, int64_t amount) noexcept {
  if (amount == 0) return;
  assert(counted_count_ <= static_cast<int>(kWindowSlots));
  counted_[counted_count_++] = {at, amount};
  use_ = SaturatingSum(use_, amount);
}

void Gauge::AddWindow(const Meter &meter, Limit limit) noexcept {
  Unit unit = UnitOf(limit);
  uint32_t newest = SlotNumber(meter, SecondOf(now_));
  for (uint32_t age = kWindowSlots + 1; age-- > 0;) {
    uint32_t number = newest - age;
    int64_t amount = RecordedAmount(RecordedSlotOf(meter, number), unit);
    const ReservedSlot &reserved = meter.reserved.ring[RingIndex(number)];
    if (BySecond(meter) && reserved.second == number) amount += ReservedAmount(reserved, unit);
    AddCounted(StartOf(1) * (int64_t{number} + kWindowSlots + 1) * meter.recorded.ring_width, amount);
  }
}

void Gauge::AddPeriod(const Meter &meter, const Period &period, const CountRule &rule, Limit limit) noexcept {
  AddCounted(StartOf(period.end), PeriodAmount(UseInPeriod(meter, period, rule, now_), UnitOf(limit)));
}

void Gauge::AddOpen(const Meter &meter, Limit limit) noexcept {
  uint32_t newest = OpenNumber(meter, SecondOf(now_));
  for (uint32_t age = kOpenSlots; age-- > 0;) {
    const OpenSlot &slot = meter.reserved.open[OpenIndex(newest - age)];
    int64_t amount = IsOpenSlot(slot, newest - age) ? OpenAmount(slot, UnitOf(limit)) : 0;
    if (amount == 0) continue;
    open_[open_count_++] = {OpenUntil(meter, newest - age), amount};
    use_ = SaturatingSum(use_, amount);
  }
}

TimeUs Gauge::FirstRoom(int64_t max, int64_t more) const noexcept {
  assert(max > 0 && more <= max);
  TimeUs moment = now_;
  int64_t use = use_;
  for (int i = 0, j = 0; !HasRoom(max, use, more) && (i < counted_count_ || j < open_count_);) {
    bool is_counted = j == open_count_ || (i < counted_count_ && counted_[i].at <= open_[j].at);
    const Leaving &next = is_counted ? counted_[i++] : open_[j++];
    assert(next.at >= moment);
    moment = next.at;
    use = std::max<int64_t>(use - next.amount, 0);
  }
  return moment;
}

}  // namespace keypool
