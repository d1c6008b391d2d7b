// call.h - one call, over all its meters: how it is reserved, and how it ends.
//
// The meters are the key's, then those of its quotas, all locked by the caller. Where a meter needs Upkeep it comes
// first: EndCall sees to that, who reserves must. Nothing here fails, allocates, or takes longer than a few walks over
// the slots.
//
// Changes are watched (wakeups.h): the answer is a mask of the meters that they have eased (bit i: the i-th), which
// must be posted before they are unlocked. If AnyAwaited, the ring must be open before.
#pragma once

#include "core/quota/breaker.h"
#include "core/quota/observed_use.h"
#include "core/quota/settling.h"
#include "core/quota/wakeups.h"

namespace keypool {

// What configuration says of one meter to whoever changes it.
struct MeterRules {
  CountRule rule;
  uint32_t ring_width;    // RingWidth of its limits
  uint32_t call_timeout;  // kMinCallTimeout to kMaxCallTimeout
  PeriodEnds ends;        // of the day and the month that the wall clock is in
};

// Whether a meter is not as it is configured, or its clock was wrong once (ClockWasWrong): Upkeep comes before anything
// else. `now` is the wall clock.
bool NeedsUpkeep(const Meter &meter, const MeterRules &rules, TimeUs now) noexcept;

// Does that; nothing if it is not needed. If the clock was wrong, no block ends later than `max_block` from now. True
// if the meter is awaited: it has eased then, for what sessions remember of it is by another clock or another width.
bool Upkeep(MeterEdit *edit, const MeterRules &rules, TimeUs max_block, TimeUs now) noexcept;

// How a call begins.
struct CallBegin {
  Amounts estimates;
  int64_t turn;        // the key's next one (Look::next)
  bool watched;        // the verdict says so (Verdict::tells); else nothing is said to have eased
  bool without_model;  // it names none where models are told apart: the key counts that
};

// What its lease names.
struct CallBegun {
  Reservation reservation;
  uint8_t probes;  // bit i: it is the probe of the i-th meter's breaker
  uint8_t eased;   // mask of meters
};

// Reserves a call that all the meters admit, in one second: the latest of their own clocks and `now`, the wall clock.
// Changes hints only.
CallBegun ReserveCall(Meter *const *meters, const MeterRules *const *rules, int count, const CallBegin &begin,
                      TimeUs now) noexcept;

// What became of a call.
enum class Ending : uint8_t {
  kRecorded,
  kReleased,  // it was never sent: gives the reservation back, and counts nothing
  kLimited,   // the provider answered 429: counts, and blocks
};

// What that says of the meters' breakers.
enum class Health : uint8_t {
  kUnknown,  // nothing; a probe gives its place back
  kServed,
  kFailed,
};

struct CallEnd {
  Ending ending;
  bool has_lease;           // else (never kReleased) the key's oldest open reservation is taken to be this call's
  bool too_old;             // the lease is too old to be settled (LeaseAge): totals and periods only
  bool only_blocks;         // kLimited: whose call it was is not known, and none is settled
  bool without_model;       // there is no lease, and no model is named where models are told apart: the key counts that
  Reservation reservation;  // has_lease
  Amounts used;             // such as CoverParts leaves
  // kLimited. All meters that bit i names are blocked until then; the key (bit 0) for this model only, if it is not 0.
  uint8_t blames;
  uint32_t blamed_model;
  TimeUs until;
  // Breakers hear only of calls that end by their lease, and count.
  uint8_t probes;  // of which meters the call is the probe
  Health health;
  uint8_t fails;        // kFailed: mask of the meters that have failed
  bool only_suspects;   // what would open is suspected instead (breaker.h)
  BreakerRule failure;  // kFailed
  // What the provider says is used. It is heard of calls that breakers hear of, too.
  const ObservedUse *observed;
  int observed_count;
  uint8_t
      used_up;  // mask of meters of which nothing is left until then; of the key for this model only, if it is not 0
  uint32_t used_up_model;
  TimeUs used_up_until;
};

struct CallEnded {
  // Or given back. False: the lease was settled before; or is too old to be given back; or none was given and a 429
  // found no call open, which then only blocks. Blocks stand in any case.
  bool counted;
  uint8_t eased;         // mask of meters
  TimeUs blocked_until;  // the latest deadline that stands on what was blocked, or has failed; 0: none
  uint8_t opened;        // mask of the meters whose breaker it has opened
  uint32_t failures;     // kFailed: in a row, of the first meter that failed; 0: the breakers have not heard of it
};

// Whether a call that has failed would open a breaker, if its lease was not settled before.
bool WouldOpenBreaker(const Meter *const *meters, int count, const CallEnd &end) noexcept;

// Ends a call in all its meters, the key's deciding whether the lease was settled before. `edits` are of those meters.
// `max_block` is for Upkeep; `until` is taken as it is.
CallEnded EndCall(MeterEdit *edits, const MeterRules *const *rules, int count, const CallEnd &end, TimeUs max_block,
                  TimeUs now) noexcept;

// Ends the cooldowns of one meter, and closes its breaker; or the latter alone; or, for callers that died, gives back
// what its open calls hold: those that are settled later count all the same. Upkeep comes first. Returns whether the
// meter has eased.
enum class Clears : uint8_t { kAllBlocks, kBreaker, kOpenCalls };
bool ClearMeter(MeterEdit *edit, Clears what, const MeterRules &rules, TimeUs max_block, TimeUs now) noexcept;

// For callers of a key that died: gives back what its calls hold in its meter, and equal shares of it in those of its
// quotas. Returns a mask of the meters that have eased.
uint8_t DropCallsOfKey(MeterEdit *edits, const MeterRules *const *rules, int count, TimeUs max_block,
                       TimeUs now) noexcept;

}  // namespace keypool
