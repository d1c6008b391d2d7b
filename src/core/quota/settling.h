// settling.h - how a meter changes: a reservation, what becomes of it, and blocks.
//
// One call concerns one to four meters: the key's, and those of its quotas. All of them change under all their locks,
// in one second: the latest of their own clocks and the wall clock (CommonNow, SettlingNow), which is the `now` of
// every function here. If the clock of one of them was wrong (ClockWasWrong), MoveToNow comes first. The key's meter
// decides whether a lease was settled before; quotas follow:
//
//   select    Admit each, then Reserve in each
//   record    SettleOnce; if it is not kBefore: CloseInQuota in each quota, Count in each meter
//   release   SettleOnce, likewise CloseInQuota, CountRelease; of any that is kBefore: CountRepeat
//   429       as record, with no tokens; then Block or BlockModel
//   record without a lease: TakeOldest; if it found one, CloseShareInQuota in each quota; Count in each meter
//
// Counts never go below zero. Nothing here allocates, throws, or takes longer than a walk over the slots.
//
// What a settlement logs of the reserved half is one slot of the ring and one of the open calls, each of them whole:
// what recovery makes of it is that slot as it was after the settlement, with all calls that were open then. Selections
// before it come back with it, selections after it are lost, as if nobody had made them. A slot that no settlement
// touched is what it was when its page was last written. So recovery may forget calls that are open, and shows none
// that are not.
#pragma once

#include "core/quota/admission.h"
#include "core/quota/meter_edit.h"

namespace keypool {

inline constexpr int kMaxMeters = 4;

// One open selection, as its lease names it.
struct Reservation {
  Second second;      // in which it was selected
  uint32_t sequence;  // its number among that second's selections of the key; kTrackedSelections for all beyond
  Amounts estimates;
};

// The latest of the meters' own clocks and the wall clock.
TimeUs CommonNow(const Meter *const *meters, int count, TimeUs now) noexcept;

// The same for a settlement: also not before the lease's second, which the meters had seen before a crash and a step
// back of the clock; unless that is more than kClockLead ahead, for then MoveToNow has been there.
TimeUs SettlingNow(const Meter *const *meters, int count, const Reservation &reservation, TimeUs now) noexcept;

// Reserves one request in a meter. Changes the reserved half only, and returns the sequence (keys: `is_key`; else 0).
// `turn` is what the turn becomes (turn.h); 0 leaves it. A slot that would overflow is a fault of the caller: Admit
// says kFullSlot.
uint32_t Reserve(Meter *meter, const CountRule &rule, const Amounts &estimates, bool is_key, int64_t turn,
                 TimeUs now) noexcept;

// Notes all that Reserve has changed, counters aside: for selections that are logged.
void NoteReservation(MeterEdit *meter, TimeUs now) noexcept;

// What became of a lease in the key's meter.
enum class Settled : uint8_t {
  kNow,     // it was open, or a crash forgot it: it counts
  kBefore,  // it was settled or released before: nothing is to change
  kTooOld,  // not of the last 64 seconds, which are known one by one: it counts, and may count twice
};

// Marks a reservation as settled in the key's meter, and takes it out of the reserved half. Logged, released or
// recorded alike. Of selections beyond kTrackedSelections in one second nothing is known: they are kNow each time.
Settled SettleOnce(MeterEdit *key, const Reservation &reservation, TimeUs now) noexcept;

// Takes a reservation out of the reserved half of a quota's meter.
void CloseInQuota(MeterEdit *quota, const CountRule &rule, const Reservation &reservation) noexcept;

// Without a lease: the key's oldest open reservation is taken to be this one. False if none is open. `*reservation`
// gets its second and an equal share of the estimates of that second, or, beyond the ring, of that slot of open calls
// (then the second is one that has left the window). Its lease may still be settled, and then counts, too.
bool TakeOldest(MeterEdit *key, Reservation *reservation, TimeUs now) noexcept;

// Takes one call that was selected in this second, with an equal share of the estimates, out of a quota's meter.
void CloseShareInQuota(MeterEdit *quota, Second second) noexcept;

// Counts one request that was used. `selected_in` is the second of its selection (== the second of `now` if that is not
// known); ends are those of the meter's time zone. Ends that are over by `now`, because the meter's clock is ahead of
// the caller's, are put off by whole days.
void Count(MeterEdit *meter, const CountRule &rule, const Amounts &used, Second selected_in, const PeriodEnds &ends,
           TimeUs now) noexcept;

// Counts in totals, and with them in the day, the month and the minute: what a lease that is too old for every window,
// and cannot be settled, still does.
void CountInTotals(MeterEdit *meter, const Amounts &used, const PeriodEnds &ends, TimeUs now) noexcept;

// One reservation was given back: a counter. A hint.
void CountRelease(MeterEdit *meter) noexcept;
void CountRepeat(MeterEdit *meter) noexcept;

// Blocks the meter until then, if that is later than the deadline it has; of a key for this model only, if it is not 0.
// A ninth model at once blocks the key. Returns the deadline that stands.
TimeUs KeepOut(MeterEdit *meter, uint32_t model_hash, TimeUs until, TimeUs now) noexcept;

// The provider answered 429: likewise, and counts the 429.
TimeUs Block(MeterEdit *meter, TimeUs until, TimeUs now) noexcept;
TimeUs BlockModel(MeterEdit *key, uint32_t model_hash, TimeUs until, TimeUs now) noexcept;

// Ends cooldowns, those of models included, and closes the breaker.
void ClearBlocks(MeterEdit *meter, TimeUs now) noexcept;

// Gives back what all open calls hold: for a gateway that died. Those that are settled later count all the same.
void DropOpenCalls(MeterEdit *meter) noexcept;

// The ring's width or call_timeout were configured anew. If the width differs, the ring is filled from the history:
// with what was used in the last hour, tokens as all tokens, or in the last minute where slots are seconds. If
// call_timeout does, keeps of the open calls those of the last minute.
void Configure(MeterEdit *meter, uint32_t ring_width, uint32_t call_timeout) noexcept;

// The clock was far ahead once (ClockWasWrong): what the window holds is moved to now, blocks are cut to now +
// `max_block`, periods to the given ends and the history to now. Limits hold, and nothing waits for a year. `now` is
// the wall clock.
void MoveToNow(MeterEdit *meter, const PeriodEnds &ends, TimeUs max_block, TimeUs now) noexcept;

}  // namespace keypool
