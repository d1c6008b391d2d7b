// settling.cpp - how a meter changes: a reservation, what becomes of it, and blocks.
#include "core/quota/settling.h"

#include <bit>

#include "core/quota/breaker.h"
#include "core/quota/slots.h"
#include "core/quota/usage.h"

namespace keypool {

namespace {

constexpr Second kSecondsOfDay = 86400;
constexpr Minute kFewMinutes = 6;  // more of them are one piece of the log

// What one call holds of a slot, as the meter counts it.
struct Held {
  int64_t tokens;
  int64_t output;
  int64_t cost;
};

Held HeldBy(const Amounts &estimates, const CountRule &rule) {
  return {CountedTokens(estimates, rule), estimates.output, estimates.cost};
}

uint32_t Less(uint32_t sum, int64_t amount) { return static_cast<uint32_t>(std::max<int64_t>(sum - amount, 0)); }
uint64_t Less64(uint64_t sum, int64_t amount) {
  return static_cast<uint64_t>(std::max<int64_t>(static_cast<int64_t>(sum) - amount, 0));
}

uint64_t SettledBit(uint32_t sequence) { return uint64_t{1} << (63 - sequence); }

// Seconds that are known one by one: the ring still has their slots.
bool IsKnown(Second second, Second now) { return second <= now && now - second < kRingSlots; }

// The sequence of the next selection of a second. What was settled in it before a crash lost the slot is not given out
// again.
uint32_t NextSequence(const Meter &meter, const ReservedSlot &slot) {
  uint64_t settled = RecordedSlotOf(meter, slot.second).settled_or_cost;
  uint32_t used = settled == 0 ? 0 : 64 - static_cast<uint32_t>(std::countr_zero(settled));
  return std::min<uint32_t>(std::max<uint32_t>(slot.selected, used), kTrackedSelections);
}

uint32_t ReserveInRing(Meter *meter, const Held &held, bool is_key, Second second) {
  ReservedSlot &slot = meter->reserved.ring[RingIndex(second)];
  if (slot.second != second) slot = {second, 0, 0, 0, 0};
  uint32_t sequence = 0;
  if (is_key) {
    sequence = NextSequence(*meter, slot);
    slot.selected = static_cast<uint16_t>(std::min<uint32_t>(sequence + 1, kTrackedSelections));
  }
  slot.open = static_cast<uint16_t>(slot.open + (slot.open != kMaxSlotOpen));
  slot.tokens = SaturatingSlotSum(slot.tokens, held.tokens);
  slot.output = SaturatingSlotSum(slot.output, held.output);
  return sequence;
}

int64_t OpenSum(int64_t sum, int64_t amount, int64_t max) { return std::min(sum + std::min(amount, max), max); }

void ReserveInOpen(Meter *meter, const Held &held, Second second) {
  uint32_t number = OpenNumber(*meter, second);
  ReservedMeter *reserved = &meter->reserved;
  OpenSlot slot = reserved->open[OpenIndex(number)];
  if (!IsOpenSlot(slot, number)) {
    if (slot.calls != 0) reserved->expiries = SaturatingSum(reserved->expiries, slot.calls);
    slot = {number & kOpenNumberMask, 0, 0, 0};
  }
  slot.calls = static_cast<uint64_t>(OpenSum(slot.calls, 1, kMaxOpenCalls));
  slot.tokens = static_cast<uint64_t>(OpenSum(slot.tokens, held.tokens, kMaxOpenTokens));
  slot.cost = static_cast<uint64_t>(OpenSum(slot.cost, held.cost, kMaxOpenCost));
  reserved->open[OpenIndex(number)] = slot;
}

// Takes one open reservation out of its second; nothing is left when nothing is open.
void CloseInRing(MeterEdit *edit, Second second, const Held &held) {
  const ReservedSlot &at = edit->meter().reserved.ring[RingIndex(second)];
  if (at.second != second || at.open == 0) return;
  ReservedSlot slot = at;
  --slot.open;
  slot.tokens = slot.open == 0 ? 0 : Less(slot.tokens, held.tokens);
  slot.output = slot.open == 0 ? 0 : Less(slot.output, held.output);
  edit->SetWhole(at, slot);
}

void CloseInOpen(MeterEdit *edit, uint32_t number, const Held &held) {
  const OpenSlot &at = edit->meter().reserved.open[OpenIndex(number)];
  if (!IsOpenSlot(at, number) || at.calls == 0) return;
  OpenSlot slot = at;
  slot.calls = slot.calls - 1;
  slot.tokens = slot.calls == 0 ? 0 : Less64(slot.tokens, held.tokens);
  slot.cost = slot.calls == 0 ? 0 : Less64(slot.cost, held.cost);
  edit->SetWhole(at, slot);
}

// Also where the slots are over by now: if the clock steps back, they are not.
void Close(MeterEdit *edit, Second second, const Held &held) {
  CloseInRing(edit, second, held);
  CloseInOpen(edit, OpenNumber(edit->meter(), second), held);
}

// The oldest second of the ring in which a call is open; `now` + 1 if there is none.
Second OldestOpenSecond(const Meter &meter, Second now) {
  for (Second second = now - kRingSlots + 1; second <= now; ++second) {
    const ReservedSlot &slot = meter.reserved.ring[RingIndex(second)];
    if (slot.second == second && slot.open != 0) return second;
  }
  return now + 1;
}

// What the ring knows of a slot of open calls.
int64_t CallsOfRing(const Meter &meter, uint32_t number, Second now) {
  Second width = OpenSlotWidth(meter);
  Second first = std::max(now - kRingSlots + 1, number * width), last = std::min(now, number * width + width - 1);
  int64_t calls = 0;
  for (Second second = first; second <= last; ++second) {
    const ReservedSlot &slot = meter.reserved.ring[RingIndex(second)];
    if (slot.second == second) calls += slot.open;
  }
  return calls;
}

// Whether calls are open from before the ring, up to a number of slots; if so, the oldest. A slot that began in the
// ring has none: if it holds more than the ring, a crash has left that.
bool OldestBeforeRing(const Meter &meter, Second oldest_of_ring, Second now, uint32_t *number) {
  Second width = OpenSlotWidth(meter);
  uint32_t newest = now / width;
  for (uint32_t age = kOpenSlots; age-- > 0;) {
    *number = newest - age;
    if (*number > OpenNumber(meter, oldest_of_ring) || *number * width > now - kRingSlots) return false;
    const OpenSlot &slot = meter.reserved.open[OpenIndex(*number)];
    bool open = IsOpenSlot(slot, *number) && slot.calls != 0;
    if (open && static_cast<int64_t>(slot.calls) > CallsOfRing(meter, *number, now)) return true;
  }
  return false;
}

// An equal share of what is open in a second, or in the slot of open calls that it lies in.
Held ShareOf(const Meter &meter, Second second) {
  Held share = {};
  const OpenSlot &open = meter.reserved.open[OpenIndex(OpenNumber(meter, second))];
  if (IsOpenSlot(open, OpenNumber(meter, second)) && open.calls != 0)
    share = {static_cast<int64_t>(open.tokens / open.calls), 0, static_cast<int64_t>(open.cost / open.calls)};
  const ReservedSlot &slot = meter.reserved.ring[RingIndex(second)];
  if (slot.second == second && slot.open != 0) {
    share.tokens = slot.tokens / slot.open;
    share.output = slot.output / slot.open;
  }
  return share;
}

// Raises a total. At the top, what does not fit is taken off where the periods began, so that they go on counting.
template <size_t N>
void Raise(int64_t *total, int64_t amount, int64_t *const (&starts)[N]) {
  int64_t left = std::numeric_limits<int64_t>::max() - *total;
  *total += std::min(amount, left);
  if (amount <= left) return;
  for (int64_t *start : starts) *start = std::max<int64_t>(*start - (amount - left), 0);
}

Second EndAfter(Second end, Second now) {
  if (end > now) return end;
  return end + ((now - end) / kSecondsOfDay + 1) * kSecondsOfDay;
}

void BeginPeriod(MeterEdit *edit, const Period &period, Second end, Second now) {
  if (period.end > now) return;
  const Totals &totals = edit->meter().recorded.totals;
  edit->Set(period, {EndAfter(end, now), 0, totals.requests, totals.tokens, totals.output, totals.cached, totals.cost});
}

// Empties the positions of the history between two minutes, the newer one's own 429s included.
void EmptyMinutes(MeterEdit *edit, Minute newest, Minute minute) {
  const History &history = edit->meter().recorded.history;
  if (newest == 0) return;
  if (minute - newest > kFewMinutes) edit->NoteWhole(history);
  for (Minute past = 1; past <= std::min<Minute>(minute - newest, kMinuteSlots); ++past) {
    edit->Set(history.minute[MinuteIndex(newest + past)], {});
    edit->Set(history.rate_limited[MinuteIndex(newest + past)], 0);
  }
}

// The minute of `now` becomes the newest.
void BeginMinute(MeterEdit *edit, TimeUs now) {
  const RecordedMeter &recorded = edit->meter().recorded;
  Minute newest = MinuteOf(NewestRecorded(recorded)), minute = MinuteOf(now);
  if (minute == newest) return;
  assert(minute > newest);
  if (newest != 0 && newest / kMinutesOfHour != minute / kMinutesOfHour) CloseHour(edit);
  MinuteSlot passed = {SaturatingSlotSum(0, recorded.totals.requests - recorded.minute_requests),
                       SaturatingSlotSum(0, recorded.totals.tokens - recorded.minute_tokens)};
  edit->Set(recorded.history.minute[MinuteIndex(newest)], passed);
  EmptyMinutes(edit, newest, minute);
  edit->Set(recorded.minute_requests, recorded.totals.requests);
  edit->Set(recorded.minute_tokens, recorded.totals.tokens);
}

// At the top of the totals, which nobody reaches honestly.
void RaiseTotalsToTheTop(MeterEdit *edit, const Amounts &used, Totals totals) {
  const RecordedMeter &recorded = edit->meter().recorded;
  Period day = recorded.day, month = recorded.month;
  int64_t minute_requests = recorded.minute_requests, minute_tokens = recorded.minute_tokens;
  Raise(&totals.requests, 1, {&day.requests, &month.requests, &minute_requests});
  Raise(&totals.tokens, used.tokens, {&day.tokens, &month.tokens, &minute_tokens});
  Raise(&totals.output, used.output, {&day.output, &month.output});
  Raise(&totals.cached, used.cached, {&day.cached, &month.cached});
  Raise(&totals.cost, used.cost, {&day.cost, &month.cost});
  edit->Set(recorded.totals, totals);
  edit->Set(recorded.minute_requests, minute_requests);
  edit->Set(recorded.minute_tokens, minute_tokens);
  edit->Set(recorded.day, day);
  edit->Set(recorded.month, month);
}

void RaiseTotals(MeterEdit *edit, const Amounts &used, TimeUs now) {
  Totals totals = edit->meter().recorded.totals;
  totals.last_used_at = now;
  Totals raised = totals;
  bool over = __builtin_add_overflow(totals.requests, 1, &raised.requests);
  over |= __builtin_add_overflow(totals.tokens, used.tokens, &raised.tokens);
  over |= __builtin_add_overflow(totals.output, used.output, &raised.output);
  over |= __builtin_add_overflow(totals.cached, used.cached, &raised.cached);
  over |= __builtin_add_overflow(totals.cost, used.cost, &raised.cost);
  if (over) return RaiseTotalsToTheTop(edit, used, totals);
  edit->SetAsOne(edit->meter().recorded.totals, raised);  // its few bytes lie 8 apart
}

void CountRequestIn(MeterEdit *edit, Second second) {
  const Meter &meter = edit->meter();
  RecordedSlot slot = RecordedSlotOf(meter, SlotNumber(meter, second));
  slot.requests = SaturatingSlotSum(slot.requests, 1);
  edit->Set(meter.recorded.ring[RingIndex(slot.number)], slot);
}

void CountRateLimited(MeterEdit *edit, TimeUs now) {
  const RecordedMeter &recorded = edit->meter().recorded;
  BeginMinute(edit, now);
  const uint16_t &count = recorded.history.rate_limited[MinuteIndex(MinuteOf(now))];
  edit->Set(count, static_cast<uint16_t>(count + (count != UINT16_MAX)));
  edit->Set(recorded.last_429_at, now);
  const ReservedMeter &reserved = edit->meter().reserved;
  edit->SetHint(reserved.rate_limits, SaturatingSum(reserved.rate_limits, 1));
}

// Where a model's block stands or can: its own place, else one that is free; -1 if there is neither.
int PlaceOfModel(const RecordedMeter &recorded, uint32_t model_hash, TimeUs now) {
  int free = -1;
  for (int i = 0; i < kBlockedModels; ++i) {
    bool is_over = recorded.model_blocked_until[i] <= now;
    if (recorded.model_hash[i] == model_hash && recorded.model_blocked_until[i] != 0) return i;
    if (is_over && free < 0) free = i;
  }
  return free;
}

}  // namespace

TimeUs CommonNow(const Meter *const *meters, int count, TimeUs now) noexcept {
  assert(count >= 1 && count <= kMaxMeters);
  for (int i = 0; i < count; ++i) now = MeterNow(*meters[i], now);
  return now;
}

TimeUs SettlingNow(const Meter *const *meters, int count, const Reservation &reservation, TimeUs now) noexcept {
  TimeUs common = CommonNow(meters, count, now);
  TimeUs selected = StartOf(reservation.second);
  return selected - common > StartOf(kClockLead) ? common : std::max(common, selected);
}

uint32_t Reserve(Meter *meter, const CountRule &rule, const Amounts &estimates, bool is_key, int64_t turn,
                 TimeUs now) noexcept {
  assert(now == MeterNow(*meter, now) && turn >= 0);
  ReservedMeter *reserved = &meter->reserved;
  Held held = HeldBy(estimates, rule);
  uint32_t sequence = ReserveInRing(meter, held, is_key, SecondOf(now));
  ReserveInOpen(meter, held, SecondOf(now));
  reserved->last_selected_at = now;
  reserved->selections = SaturatingSum(reserved->selections, 1);
  if (turn != 0) reserved->turn = turn;
  return sequence;
}

void NoteReservation(MeterEdit *edit, TimeUs now) noexcept {
  const Meter &meter = edit->meter();
  assert(meter.reserved.last_selected_at == now);
  edit->NoteWhole(meter.reserved.turn);
  edit->NoteWhole(meter.reserved.last_selected_at);
  if (meter.reserved.probe_until != 0) edit->NoteWhole(meter.reserved.probe_until);
  edit->NoteWhole(meter.reserved.ring[RingIndex(SecondOf(now))]);
  edit->NoteWhole(meter.reserved.open[OpenIndex(OpenNumber(meter, SecondOf(now)))]);
}

Settled SettleOnce(MeterEdit *key, const Reservation &reservation, TimeUs now) noexcept {
  const Meter &meter = key->meter();
  assert(BySecond(meter) && now == MeterNow(meter, now) && reservation.sequence <= kTrackedSelections);
  Second second = SecondOf(now);
  bool known = IsKnown(reservation.second, second);
  if (known && reservation.sequence < kTrackedSelections) {
    RecordedSlot slot = RecordedSlotOf(meter, reservation.second);
    if ((slot.settled_or_cost & SettledBit(reservation.sequence)) != 0) return Settled::kBefore;
    slot.settled_or_cost |= SettledBit(reservation.sequence);
    key->Set(meter.recorded.ring[RingIndex(reservation.second)], slot);
  }
  Close(key, reservation.second, HeldBy(reservation.estimates, {}));
  return known ? Settled::kNow : Settled::kTooOld;
}

void CloseInQuota(MeterEdit *quota, const CountRule &rule, const Reservation &reservation) noexcept {
  Close(quota, reservation.second, HeldBy(reservation.estimates, rule));
}

bool TakeOldest(MeterEdit *key, Reservation *reservation, TimeUs now) noexcept {
  const Meter &meter = key->meter();
  assert(now == MeterNow(meter, now));
  if (!MayHaveOpenCalls(meter)) return false;
  Second second = SecondOf(now), oldest = OldestOpenSecond(meter, second);
  uint32_t number;
  if (OldestBeforeRing(meter, oldest, second, &number))
    oldest = std::min((number + 1) * OpenSlotWidth(meter) - 1, second - kRingSlots);
  if (oldest > second) return false;
  Held share = ShareOf(meter, oldest);
  Close(key, oldest, share);
  int64_t tokens = std::min(share.tokens, kMaxTokens);
  *reservation = {
      oldest, kTrackedSelections, {tokens, std::min(share.output, tokens), 0, std::min(share.cost, kMaxCost)}};
  return true;
}

void CloseShareInQuota(MeterEdit *quota, Second second) noexcept {
  Close(quota, second, ShareOf(quota->meter(), second));
}

void Count(MeterEdit *edit, const CountRule &rule, const Amounts &used, Second selected_in, const PeriodEnds &ends,
           TimeUs now) noexcept {
  CountInTotals(edit, used, ends, now);
  const Meter &meter = edit->meter();
  Second second = SecondOf(now);
  RecordedSlot slot = RecordedSlotOf(meter, SlotNumber(meter, second));
  slot.tokens = SaturatingSlotSum(slot.tokens, CountedTokens(used, rule));
  slot.output = SaturatingSlotSum(slot.output, used.output);
  bool counts_now = selected_in >= second || !BySecond(meter);
  if (counts_now) slot.requests = SaturatingSlotSum(slot.requests, 1);
  if (!BySecond(meter))
    slot.settled_or_cost = static_cast<uint64_t>(SaturatingSum(static_cast<int64_t>(slot.settled_or_cost), used.cost));
  edit->Set(meter.recorded.ring[RingIndex(slot.number)], slot);
  if (!counts_now && InWindow(selected_in, second)) CountRequestIn(edit, selected_in);
}

void CountInTotals(MeterEdit *edit, const Amounts &used, const PeriodEnds &ends, TimeUs now) noexcept {
  const RecordedMeter &recorded = edit->meter().recorded;
  assert(now == MeterNow(edit->meter(), now) && used.tokens >= 0 && used.cost >= 0);
  BeginMinute(edit, now);
  BeginPeriod(edit, recorded.day, ends.day, SecondOf(now));
  BeginPeriod(edit, recorded.month, ends.month, SecondOf(now));
  RaiseTotals(edit, used, now);
}

void CountRelease(MeterEdit *edit) noexcept {
  const ReservedMeter &reserved = edit->meter().reserved;
  edit->SetHint(reserved.releases, SaturatingSum(reserved.releases, 1));
}

void CountRepeat(MeterEdit *edit) noexcept {
  const ReservedMeter &reserved = edit->meter().reserved;
  edit->SetHint(reserved.repeats, SaturatingSum(reserved.repeats, 1));
}

TimeUs KeepOut(MeterEdit *edit, uint32_t model_hash, TimeUs until, TimeUs now) noexcept {
  const RecordedMeter &recorded = edit->meter().recorded;
  assert(now == MeterNow(edit->meter(), now) && until > 0);
  int place = model_hash != 0 ? PlaceOfModel(recorded, model_hash, now) : -1;
  if (place < 0) {
    edit->Set(recorded.blocked_until, std::max(recorded.blocked_until, until));
    return recorded.blocked_until;
  }
  TimeUs before = recorded.model_hash[place] == model_hash ? recorded.model_blocked_until[place] : 0;
  edit->Set(recorded.model_hash[place], model_hash);
  edit->Set(recorded.model_blocked_until[place], std::max(before, until));
  return recorded.model_blocked_until[place];
}

TimeUs Block(MeterEdit *edit, TimeUs until, TimeUs now) noexcept { return BlockModel(edit, 0, until, now); }

TimeUs BlockModel(MeterEdit *edit, uint32_t model_hash, TimeUs until, TimeUs now) noexcept {
  CountRateLimited(edit, now);
  return KeepOut(edit, model_hash, until, now);
}

void ClearBlocks(MeterEdit *edit, TimeUs now) noexcept {
  const RecordedMeter &recorded = edit->meter().recorded;
  edit->Set(recorded.blocked_until, 0);
  CloseBreaker(edit, now);
  for (int i = 0; i < kBlockedModels; ++i) {
    edit->Set(recorded.model_hash[i], 0);
    edit->Set(recorded.model_blocked_until[i], 0);
  }
}

}  // namespace keypool
