// selection_row.h - the row that keypool_select, keypool_try_select and keypool_peek return.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/key_id.h"
#include "core/window.h"

enum class SelectionStatus { kOk, kCooling, kLimited, kNoKey, kTooLarge };

inline constexpr int64 kNoWait = -1;

struct Selection {
  SelectionStatus status;
  int64 retry_after_ms;  // kNoWait: null
  const char *reason;    // kNoKey: a sentence
  keypool::KeyId id;     // from here on kOk only
  text *secret;          // null with the lease if nothing was granted
  int64 lease;
  text *label;
  int32 priority;
  keypool::Limits limits;
};

const char *selection_status_name(SelectionStatus status);

// Builds the row in the current memory context: one allocation. The secret is copied; wiping the given one is the
// caller's.
Datum selection_row(const Selection &selection);
