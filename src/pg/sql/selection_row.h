// selection_row.h - the row that keypool_select and its like return.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/quota/lease.h"
#include "pg/pool/choose_key.h"

enum class SelectionStatus : uint8 { kOk, kCooling, kLimited, kBusy, kNoKey, kTooLarge };

inline constexpr int64 kNoWait = -1;

// An answer. What it points to lies in the pool, in the arguments, or is constant.
struct Selection {
  SelectionStatus status;
  int64 retry_after_ms = kNoWait;  // kNoWait: null
  std::string_view blocked_by;     // a quota's name, or `key`; empty: null
  const char *blocked_limit;       // null: null
  const char *reason;              // kNoKey: a sentence
  const char *hint;                // likewise; may be null
  text *provider;
  const PoolKey *key;     // that the answer is about; may be null
  bool shows_attributes;  // of the key
  text *secret;           // null with the lease if nothing was reserved
  char lease[keypool::kLeaseSize];
};

const char *selection_status_name(SelectionStatus status);

// Whole milliseconds from now, at least one, never too short, at most what an integer holds.
int64 milliseconds_until(keypool::TimeUs moment, keypool::TimeUs now);

// Writes status, time and causes of a request that must wait until a moment. `quota`: what is in the way; null: the key
// itself.
void selection_wait(Selection *answer, keypool::Obstacle obstacle, keypool::Limit limit, keypool::TimeUs moment,
                    const PoolQuota *quota);

// Builds the row in the current memory context. If a key was reserved, that is one allocation. The secret is copied;
// wiping the given one is the caller's.
Datum selection_row(const Selection &answer);

// Adds the row to the result of a function that returns a set. Likewise.
void selection_put(ReturnSetInfo *result, const Selection &answer);

// InitMaterializedSRF for such rows: they stay in memory, since what holds a secret must not go to a temporary file.
ReturnSetInfo *selection_set_begin(FunctionCallInfo fcinfo);
