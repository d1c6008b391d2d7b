// period_clock.cpp - when the day and the month end, in a time zone.
#include "pg/server/period_clock.h"

#include "pg/server/clock.h"

using keypool::TimeUs;

// The midnight that begins a day, as it would be at an offset from UTC.
static bool midnight(int julian_day, int offset, TimestampTz *moment) {
  struct pg_tm tm = {};
  j2date(julian_day, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
  return tm2timestamp(&tm, 0, &offset, moment) == 0;
}

// The first moment of a day in a zone. Where clocks are set back at midnight there are two, and the server knows the
// second: if the day has begun a second before that, it began at the offset of then.
static TimeUs start_of_day(int julian_day, pg_tz *zone) {
  struct pg_tm tm = {};
  j2date(julian_day, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
  TimestampTz start;
  if (!midnight(julian_day, DetermineTimeZoneOffset(&tm, zone), &start)) return kNever;
  int offset;
  fsec_t fraction;
  if (timestamp2tm(start - USECS_PER_SEC, &offset, &tm, &fraction, nullptr, zone) == 0 &&
      date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) == julian_day)
    midnight(julian_day, offset, &start);
  return clock_from_timestamptz(start);
}

static keypool::Second end_at(TimeUs moment) {
  return moment >= keypool::kLatestTime ? keypool::SecondOf(keypool::kLatestTime) : keypool::SecondOf(moment);
}

const keypool::PeriodEnds &period_clock_read(PeriodClock *clock, TimeUs now) {
  if (now >= clock->from && now < clock->until) return clock->ends;
  struct pg_tm tm;
  fsec_t fraction;
  int offset;
  timestamp2tm(clock_to_timestamptz(now), &offset, &tm, &fraction, nullptr, clock->zone);
  int today = date2j(tm.tm_year, tm.tm_mon, tm.tm_mday);
  int next_month = tm.tm_mon == 12 ? date2j(tm.tm_year + 1, 1, 1) : date2j(tm.tm_year, tm.tm_mon + 1, 1);
  clock->from = start_of_day(today, clock->zone);
  clock->until = start_of_day(today + 1, clock->zone);
  clock->ends = {end_at(clock->until), end_at(start_of_day(next_month, clock->zone))};
  return clock->ends;
}

pg_tz *period_clock_zone(const char *name) {
  pg_tz *zone = pg_tzset(name == nullptr ? "UTC" : name);
  return zone != nullptr && pg_tz_acceptable(zone) ? zone : nullptr;
}
