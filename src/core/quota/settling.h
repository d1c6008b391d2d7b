// settling.h - how a meter changes: a reservation, what becomes of it, and blocks.
//
// One call concerns one to four meters: the key's, and those of its quotas. All of them change under all their locks, in one second: the
// latest of their own clocks and the wall clock (CommonNow). The key's meter decides whether a lease was settled before; quotas follow.
//
// Counts never go below zero. Nothing here allocates, throws, or takes longer than a walk over the slots.
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

// Reserves one request in a meter: `now` is the CommonNow. Changes the reserved half only, and returns the sequence
// (keys: `is_key`; else 0). `turn` is what the turn becomes (turn.h); 0 leaves it. A slot that would overflow is a fault of the caller: Admit says
// kFullSlot.
uint32_t Reserve(Meter *meter, const CountRule &rule, const Amounts &estimates, bool is_key, int64_t turn, TimeUs now) noexcept;

// What became of a lease in the key's meter.
enum class Settled : uint8_t {
  kNow,        // it was open, or a crash forgot it: it counts
  kBefore,     // it was settled or released before: nothing is to change
  kTooOld,     // older than the seconds that are known one by one: it counts, and may count twice
};

// Marks a reservation as settled in the key's meter, and takes it out of the reserved half. Logged, released or recorded alike.
Settled SettleOnce(MeterEdit *key, const Reservation &reservation, TimeUs now) noexcept;

// Takes a reservation out of the reserved half of a quota's meter.
void CloseInQuota(MeterEdit *quota, const CountRule &rule, const Reservation &reservation, TimeUs now) noexcept;

// Without a lease: the key's oldest open reservation is taken to be this one. False if none is open. `*reservation` gets its second and an equal share of
// the estimates of that second.
bool TakeOldest(MeterEdit *key, Reservation *reservation, TimeUs now) noexcept;

// Counts one request that was used. `selected_in` is the second of its selection (== the second of `now` if that is not known); ends are those
// of the meter's time zone.
void Count(MeterEdit *meter, const CountRule &rule, const Amounts &used, Second selected_in, const PeriodEnds &ends, TimeUs now) noexcept;

// Counts in totals and usage by minute only: what a lease that is too old for every window still does.
void CountInTotals(MeterEdit *meter, const CountRule &rule, const Amounts &used, const PeriodEnds &ends, TimeUs now) noexcept;

// The provider answered 429: blocks the meter until then, if that is later than the deadline it has, and counts the 429. Returns the deadline that stands.
TimeUs Block(MeterEdit *meter, TimeUs until, TimeUs now) noexcept;

// The same for one model on one key. A ninth model at once blocks the key.
TimeUs BlockModel(MeterEdit *key, uint32_t model_hash, TimeUs until, TimeUs now) noexcept;

// Ends cooldowns, those of models included, and closes the breaker.
void ClearBlocks(MeterEdit *meter) noexcept;

// Gives back what all open calls hold: for a gateway that died.
void DropOpenCalls(MeterEdit *meter) noexcept;

// The ring's width or call_timeout were configured anew: clears the ring or the open slots, if they differ.
void Configure(MeterEdit *meter, uint32_t ring_width, uint32_t call_timeout) noexcept;

// The clock was far ahead once (ClockWasWrong): what the window holds is moved to now, blocks are cut to now + `max_block`, periods to the given
// ends and the history to now. Limits hold, and nothing waits for a year.
void MoveToNow(MeterEdit *meter, const PeriodEnds &ends, TimeUs max_block, TimeUs now) noexcept;

}  // namespace keypool
