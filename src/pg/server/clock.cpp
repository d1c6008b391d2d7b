// clock.cpp - what time it is.
#include "pg/server/clock.h"

#include "pg/server/settings.h"

keypool::TimeUs clock_now(void) {
  return keypool_test_now != 0 ? keypool_test_now : clock_from_timestamptz(GetCurrentTimestamp());
}
