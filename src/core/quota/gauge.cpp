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

// Twice on the way of a request that is refused: without a call or a switch for each slot.
template <typename OfRecorded, typename OfReserved>
void Gauge::AddSlots(const Meter &meter, OfRecorded of_recorded, OfReserved of_reserved) noexcept {
  uint32_t newest = SlotNumber(meter, SecondOf(now_));
  bool by_second = BySecond(meter);
  TimeUs width = StartOf(meter.recorded.ring_width);
  TimeUs at = width * (int64_t{newest} + 1);
  for (uint32_t number = newest - kWindowSlots; number != newest + 1; ++number, at += width) {
    const RecordedSlot &recorded = meter.recorded.ring[RingIndex(number)];
    const ReservedSlot &reserved = meter.reserved.ring[RingIndex(number)];
    int64_t amount = recorded.number == number ? of_recorded(recorded) : 0;
    if (by_second && reserved.second == number) amount += of_reserved(reserved);
    if (amount != 0) AddCounted(at, amount);
  }
}

void Gauge::AddWindow(const Meter &meter, Limit limit) noexcept {
  using Recorded = const RecordedSlot &;
  using Reserved = const ReservedSlot &;
  switch (UnitOf(limit)) {
    case Unit::kTokens:
      return AddSlots(
          meter, [](Recorded slot) { return UpToTop(slot.tokens); }, [](Reserved slot) { return slot.tokens; });
    case Unit::kOutput:
      return AddSlots(
          meter, [](Recorded slot) { return UpToTop(slot.output); }, [](Reserved slot) { return slot.output; });
    case Unit::kCost:  // of wider rings: its open calls are added by themselves
      return AddSlots(
          meter, [](Recorded slot) { return static_cast<int64_t>(slot.settled_or_cost); }, [](Reserved) { return 0; });
    case Unit::kRequests:
      return AddSlots(
          meter, [](Recorded slot) { return int64_t{slot.requests}; }, [](Reserved slot) { return slot.open; });
  }
}

void Gauge::AddPeriod(const Meter &meter, const Period &period, const CountRule &rule, Limit limit) noexcept {
  int64_t amount = PeriodAmount(UseInPeriod(meter, period, rule, now_), UnitOf(limit));
  if (amount != 0) AddCounted(StartOf(period.end), amount);
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
