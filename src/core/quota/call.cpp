// call.cpp - one call, over all its meters: how it is reserved, and how it ends.
#include "core/quota/call.h"

#include <algorithm>
#include <cassert>

#include "core/quota/slots.h"

namespace keypool {

namespace {

using Edits = MeterEdit *;
using Rules = const MeterRules *const *;

// The meters of a call that changes them, each watched from before the change to after it.
class WatchedMeters {
 public:
  void Begin(const Meter *const *meters, Rules rules, int count) {
    for (int i = 0; i < count; ++i) changes_[i] = BeginChange(*meters[i], rules[i]->rule);
  }

  bool Eased(int i, const Meter &meter, Rules rules) const { return HasEased(changes_[i], meter, rules[i]->rule); }

  // A mask of those that have; nobody awaits them any more.
  uint8_t TakeEased(Edits edits, Rules rules, int count) const {
    uint8_t eased = 0;
    for (int i = 0; i < count; ++i) {
      if (!Eased(i, edits[i].meter(), rules)) continue;
      edits[i].SetHint(edits[i].meter().reserved.awaited, 0);
      eased |= static_cast<uint8_t>(1 << i);
    }
    return eased;
  }

 private:
  WatchedChange changes_[kMaxMeters];
};

// Takes the reservation out of all meters. False if that was done before.
bool CloseByLease(Edits edits, Rules rules, int count, const Reservation &reservation, TimeUs now) {
  if (SettleOnce(&edits[0], reservation, now) == Settled::kBefore) {
    for (int i = 0; i < count; ++i) CountRepeat(&edits[i]);
    return false;
  }
  for (int i = 1; i < count; ++i) CloseInQuota(&edits[i], rules[i]->rule, reservation);
  return true;
}

// Likewise the key's oldest. False if none is open.
bool CloseOldest(Edits edits, int count, Reservation *reservation, TimeUs now) {
  if (!TakeOldest(&edits[0], reservation, now)) return false;
  for (int i = 1; i < count; ++i) CloseShareInQuota(&edits[i], reservation->second);
  return true;
}

void CountInAll(Edits edits, Rules rules, int count, const Amounts &used, Second selected_in, TimeUs now) {
  for (int i = 0; i < count; ++i) Count(&edits[i], rules[i]->rule, used, selected_in, rules[i]->ends, now);
}

bool EndByLease(Edits edits, Rules rules, int count, const CallEnd &end, TimeUs now) {
  if (!CloseByLease(edits, rules, count, end.reservation, now)) return false;
  if (end.ending == Ending::kReleased)
    for (int i = 0; i < count; ++i) CountRelease(&edits[i]);
  else
    CountInAll(edits, rules, count, end.used, end.reservation.second, now);
  return true;
}

// Nothing of it is in any window, and no bit tells whether it was settled.
bool EndTooOld(Edits edits, Rules rules, int count, const CallEnd &end, TimeUs now) {
  if (end.ending == Ending::kReleased) return false;
  for (int i = 0; i < count; ++i) CountInTotals(&edits[i], end.used, rules[i]->ends, now);
  return true;
}

// A record counts even if nobody selected it. A 429 does not: it may be told of a key only to keep it out of the way.
bool EndWithoutLease(Edits edits, Rules rules, int count, const CallEnd &end, TimeUs now) {
  Reservation taken = {};
  bool found = CloseOldest(edits, count, &taken, now);
  if (!found && end.ending == Ending::kLimited) return false;
  CountInAll(edits, rules, count, end.used, found ? taken.second : SecondOf(now), now);
  return true;
}

bool Settle(Edits edits, Rules rules, int count, const CallEnd &end, TimeUs now) {
  if (end.only_blocks) return false;
  if (!end.has_lease) return EndWithoutLease(edits, rules, count, end, now);
  if (end.too_old) return EndTooOld(edits, rules, count, end, now);
  return EndByLease(edits, rules, count, end, now);
}

// Returns the latest deadline that stands on what is blamed.
TimeUs BlockBlamed(Edits edits, int count, const CallEnd &end, TimeUs now) {
  TimeUs latest = 0;
  for (int i = 0; i < count; ++i) {
    if ((end.blames >> i & 1) == 0) continue;
    latest = std::max(latest, BlockModel(&edits[i], i == 0 ? end.blamed_model : 0, end.until, now));
  }
  return latest;
}

// What a probe of another failure, or of none, held is free again.
void NoteHealth(Edits edits, int count, const CallEnd &end, TimeUs now, CallEnded *ended) {
  for (int i = 0; i < count; ++i) {
    bool failed = end.health == Health::kFailed && (end.fails >> i & 1) != 0;
    bool heard = HearsOf(edits[i].meter(), end.reservation.second);
    if (end.health == Health::kServed)
      NoteSuccess(&edits[i], end.reservation.second);
    else if (failed && end.only_suspects && WouldOpen(edits[i].meter(), end.failure, end.reservation.second))
      NoteSuspicion(&edits[i], end.failure, end.reservation.second, now);
    else if (failed)
      ended->opened |= static_cast<uint8_t>(NoteFailure(&edits[i], end.failure, end.reservation.second, now) << i);
    else if ((end.probes >> i & 1) != 0)
      EndProbe(&edits[i], end.reservation.second);
    if (!failed) continue;
    const RecordedMeter &recorded = edits[i].meter().recorded;
    if (heard && ended->failures == 0) ended->failures = recorded.breaker.failures;
    TimeUs until = std::max(recorded.blocked_until, BreakerHoldsUntil(edits[i].meter(), now));
    if (until > now) ended->blocked_until = std::max(ended->blocked_until, until);
  }
}

void NoteObserved(Edits edits, int count, const CallEnd &end, TimeUs now) {
  for (int i = 0; i < end.observed_count; ++i) RaiseToObserved(&edits[end.observed[i].meter], end.observed[i], now);
  for (int i = 0; end.used_up != 0 && i < count; ++i)
    if ((end.used_up >> i & 1) != 0) KeepOut(&edits[i], i == 0 ? end.used_up_model : 0, end.used_up_until, now);
}

void NoteWithoutModel(MeterEdit *key, TimeUs now) {
  const ReservedMeter &reserved = key->meter().reserved;
  key->SetHint(reserved.without_model, SaturatingSum(reserved.without_model, 1));
  key->SetHint(reserved.without_model_at, now);
}

TimeUs EndingNow(const Meter *const *meters, int count, const CallEnd &end, TimeUs now) {
  return end.has_lease ? SettlingNow(meters, count, end.reservation, now) : CommonNow(meters, count, now);
}

}  // namespace

bool NeedsUpkeep(const Meter &meter, const MeterRules &rules, TimeUs now) noexcept {
  const RecordedMeter &recorded = meter.recorded;
  return recorded.ring_width != rules.ring_width || recorded.call_timeout != rules.call_timeout ||
         ClockWasWrong(meter, now);
}

bool Upkeep(MeterEdit *edit, const MeterRules &rules, TimeUs max_block, TimeUs now) noexcept {
  if (!NeedsUpkeep(edit->meter(), rules, now)) return false;
  if (ClockWasWrong(edit->meter(), now)) MoveToNow(edit, rules.ends, max_block, now);
  Configure(edit, rules.ring_width, rules.call_timeout);
  const ReservedMeter &reserved = edit->meter().reserved;
  bool awaited = reserved.awaited != 0;
  if (awaited) edit->SetHint(reserved.awaited, 0);
  return awaited;
}

CallBegun ReserveCall(Meter *const *meters, const MeterRules *const *rules, int count, const CallBegin &begin,
                      TimeUs now) noexcept {
  assert(count >= 1 && count <= kMaxMeters);
  TimeUs common = CommonNow(meters, count, now);
  WatchedMeters watch;
  if (begin.watched) watch.Begin(meters, rules, count);
  CallBegun begun = {{SecondOf(common), 0, begin.estimates}, 0, 0};
  for (int i = 0; i < count; ++i) begun.probes |= static_cast<uint8_t>(BeginProbe(meters[i], common) << i);
  // A turn that is no turn, as a crash may leave one, stays as it is.
  begun.reservation.sequence =
      Reserve(meters[0], rules[0]->rule, begin.estimates, true, std::max<int64_t>(begin.turn, 0), common);
  for (int i = 1; i < count; ++i) Reserve(meters[i], rules[i]->rule, begin.estimates, false, 0, common);
  if (begin.without_model) {
    MeterEdit key(meters[0]);
    NoteWithoutModel(&key, common);
  }
  for (int i = 0; begin.watched && i < count; ++i) {
    if (!watch.Eased(i, *meters[i], rules)) continue;
    meters[i]->reserved.awaited = 0;
    begun.eased |= static_cast<uint8_t>(1 << i);
  }
  return begun;
}

bool WouldOpenBreaker(const Meter *const *meters, int count, const CallEnd &end) noexcept {
  bool opens = false;
  for (int i = 0; i < count; ++i)
    opens = opens || ((end.fails >> i & 1) != 0 && WouldOpen(*meters[i], end.failure, end.reservation.second));
  return opens && end.health == Health::kFailed;
}

CallEnded EndCall(MeterEdit *edits, const MeterRules *const *rules, int count, const CallEnd &end, TimeUs max_block,
                  TimeUs now) noexcept {
  assert(count >= 1 && count <= kMaxMeters && end.blames >> count == 0);
  assert(end.has_lease || (end.ending != Ending::kReleased && !end.too_old));
  CallEnded ended = {};
  const Meter *meters[kMaxMeters];
  for (int i = 0; i < count; ++i) {
    meters[i] = &edits[i].meter();
    ended.eased |= static_cast<uint8_t>(Upkeep(&edits[i], *rules[i], max_block, now) << i);
  }
  WatchedMeters watch;
  watch.Begin(meters, rules, count);
  TimeUs common = EndingNow(meters, count, end, now);
  ended.counted = Settle(edits, rules, count, end, common);
  if (end.ending == Ending::kLimited) ended.blocked_until = BlockBlamed(edits, count, end, common);
  if (ended.counted && end.has_lease && !end.too_old) {
    NoteHealth(edits, count, end, common, &ended);
    NoteObserved(edits, count, end, common);
  }
  if (end.without_model) NoteWithoutModel(&edits[0], common);
  ended.eased |= watch.TakeEased(edits, rules, count);
  return ended;
}

bool ClearMeter(MeterEdit *edit, Clears what, const MeterRules &rules, TimeUs max_block, TimeUs now) noexcept {
  bool eased = Upkeep(edit, rules, max_block, now);
  WatchedChange change = BeginChange(edit->meter(), rules.rule);
  TimeUs own = MeterNow(edit->meter(), now);
  switch (what) {
    case Clears::kAllBlocks:
      ClearBlocks(edit, own);
      break;
    case Clears::kBreaker:
      CloseBreaker(edit, own);
      break;
    case Clears::kOpenCalls:
      DropOpenCalls(edit);
  }
  if (!HasEased(change, edit->meter(), rules.rule)) return eased;
  edit->SetHint(edit->meter().reserved.awaited, 0);
  return true;
}

uint8_t DropCallsOfKey(MeterEdit *edits, const MeterRules *const *rules, int count, TimeUs max_block,
                       TimeUs now) noexcept {
  uint8_t eased = 0;
  const Meter *meters[kMaxMeters];
  for (int i = 0; i < count; ++i) {
    meters[i] = &edits[i].meter();
    eased |= static_cast<uint8_t>(Upkeep(&edits[i], *rules[i], max_block, now) << i);
  }
  WatchedMeters watch;
  watch.Begin(meters, rules, count);
  TimeUs common = CommonNow(meters, count, now);
  Reservation reservation;
  while (CloseOldest(edits, count, &reservation, common)) continue;
  DropOpenCalls(&edits[0]);  // what a crash has left that is of no call
  return eased | watch.TakeEased(edits, rules, count);
}

}  // namespace keypool
