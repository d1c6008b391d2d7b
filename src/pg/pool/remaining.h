// remaining.h - which meters of a call a provider speaks of when it says how much is left of its limits.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/provider/answer.h"
#include "core/quota/observed_use.h"
#include "pg/pool/call_meters.h"

struct Remaining {
  int count;
  keypool::ObservedUse observed[keypool::kMaxAllowances];
  // When more is left of what no meter counts, if nothing is; 0: there is no such thing.
  keypool::TimeUs used_up_until;
};

// A meter counts what the provider does if its limit for a minute is the same number.
Remaining remaining_of(const keypool::Answer &answer, const CallMeters &call, keypool::TimeUs written);
