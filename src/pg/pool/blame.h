// blame.h - which meters of a call its end is the fault of.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "pg/pool/call_meters.h"

// A mask of meters, as CallEnd has them; never empty.
struct Blame {
  uint8 meters;
  bool of_model;     // of the key for this model only
  bool other_quota;  // the scope names a quota that the call did not draw on, and the usual one is blamed
};

// Of a limit. `scope`: empty, quota, key, model, account or quota:NAME.
Blame blame_limited(const CallMeters &call, std::string_view scope);

// The quotas of the key's account; the key itself if there are none.
uint8 blame_account(const CallMeters &call);

inline constexpr uint8 kBlameKey = 1;
