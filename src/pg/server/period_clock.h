// period_clock.h - when the day and the month end, in a time zone.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/quota/admission.h"

// A zone, and what was last found out in it. All zero but the zone: nothing yet.
struct PeriodClock {
  pg_tz *zone;
  keypool::TimeUs from;  // the ends below hold from here
  keypool::TimeUs until;
  keypool::PeriodEnds ends;
};

// The ends of the day and the month that `now` lies in: the first moments of the next ones. Days of 23 and 25 hours are
// so long; where midnight is skipped, the day begins with the moment after it, where it comes twice, with the second.
// Allocates nothing and raises nothing, so it may be called while a page is locked.
const keypool::PeriodEnds &period_clock_read(PeriodClock *clock, keypool::TimeUs now);

// A time zone by its name, of the IANA database or as POSIX writes them; null if there is none. NULL: UTC.
// Abbreviations such as PST, which know no summer time, are none.
pg_tz *period_clock_zone(const char *name);
