// preferred_keys.h - asking the keys that a conversation prefers, before all others.
#pragma once

#include "pg/server/postgres_api.h"

#include "pg/pool/walker.h"

// What a preferred key came to.
enum class Asked : uint8 {
  kServes,  // reserved, if the walker reserves
  kRefuses,
  kLeftOut,  // it is excluded, its secret does not open, or the request is too large
  kGone,
  kOtherModel,  // the model must be told apart first
};

// Asks the first few keys of the conversation's order. kServes: `*candidate` does; kOtherModel; else kRefuses: then
// what is gone, or left out, is for the walk to find out.
Asked ask_preferred_keys(Walker *walker, uint32 *candidate);
