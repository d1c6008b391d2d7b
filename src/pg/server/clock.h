// clock.h - what time it is, in the core's unit (microseconds since 1970, UTC).
#pragma once

#include "pg/server/postgres_api.h"

#include "core/quota/time.h"

inline constexpr int64 kUnixEpochOffset = int64{POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE} * USECS_PER_DAY;

inline constexpr keypool::TimeUs kNever = INT64_MAX;  // infinity, and what is too late to be told from it

inline keypool::TimeUs clock_from_timestamptz(TimestampTz time) {
  if (time >= kNever - kUnixEpochOffset) return kNever;
  return time == DT_NOBEGIN ? time : time + kUnixEpochOffset;
}

inline TimestampTz clock_to_timestamptz(keypool::TimeUs time) {
  if (time == kNever) return DT_NOEND;
  return time == DT_NOBEGIN ? time : time - kUnixEpochOffset;
}

// keypool.test_now if it is set, else the server's clock. Never raises, so it can be read under a buffer lock; and what
// changes a key must read it there: a time from before the lock was waited for would put the change into the past,
// behind what others did meanwhile, and out of the window too early.
keypool::TimeUs clock_now(void);

// The first second that lies wholly after this server was opened for writing, by a start or a promotion; 0 on a standby.
// No selection is dated before it: by a crash the server may have forgotten which selections of an earlier second it
// has numbered already, and two calls with one number would be taken for one. May read a file, and raise.
keypool::TimeUs clock_first_second(void);
