// look.h - what a look at a key says, with its meter and those of its quotas locked.
#pragma once

#include "core/quota/selection_order.h"
#include "core/quota/settling.h"

namespace keypool {

// Of one meter. All but `refuses` and `awaited` only if it refuses.
struct MeterLook {
  bool refuses;
  bool awaited;  // a change that eases it will be told
  Admission admission;
  KnownWait known;  // the smallest request of this shape that it refuses, and until when
  uint32_t asked;   // the tokens of this request, as the meter counts them
};

struct Look {
  int64_t standing;  // of the key
  int64_t next;      // its turn, if it is selected now
  bool tells;        // to reserve it moves the clock of a meter that is awaited: a change to be watched (wakeups.h)
  int count;         // of meters: the key's first, then those of its quotas in the order of QuotasOf
  MeterLook meters[kMaxMeters];

  bool refused() const {
    bool refused = false;
    for (int i = 0; i < count; ++i) refused = refused || meters[i].refuses;
    return refused;
  }
};

// What is asked of a key, apart from what its meters hold.
struct LookAsk {
  Ask ask;  // with the wall clock: each meter applies its own, or what is remembered of a quota would depend on the key
  KeyId id;
  int32_t weight;
  bool takes_turns;  // else (fill_first) turns stay as they are
  int64_t newest;    // WalkMemory
};

// Decides nothing and changes nothing. Limits must be such that CanEverServe.
void LookAt(const Meter *const *meters, const Limits *const *limits, int count, const LookAsk &ask,
            Look *look) noexcept;

}  // namespace keypool
