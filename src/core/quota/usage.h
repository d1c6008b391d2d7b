// usage.h - what a meter has counted in past minutes, hours and days. For people: no limit asks it.
//
// Minutes are those of the last hour. Hours and days are UTC's. When a meter's newest minute leaves an hour, that hour
// is added up from its minutes, and added to its day (CloseHour): so all of them are exact, and cost a settlement
// nothing but once an hour.
#pragma once

#include "core/quota/limits.h"
#include "core/quota/meter_edit.h"
#include "core/quota/time.h"

namespace keypool {

inline constexpr uint32_t kMinutesOfHour = 60;
inline constexpr uint32_t kHoursOfDay = 24;
inline constexpr int kMaxUsage = std::max({kMinuteSlots, kUsageHours, kUsageDays});

enum class Span : uint8_t { kMinute, kHour, kDay };

// Seconds of it.
inline constexpr int64_t SpanSeconds(Span span) {
  return span == Span::kMinute ? 60 : span == Span::kHour ? 3600 : 86400;
}

// How many of them a meter remembers, the running one included.
inline constexpr int SpanCount(Span span) {
  return span == Span::kMinute ? kMinuteSlots : span == Span::kHour ? kUsageHours : kUsageDays;
}

// Writes those that hold something, among the last `count` (1 to SpanCount), newest first; returns how many.
int UsageBy(const Meter &meter, Span span, int count, TimeUs now, UsageSlot (&out)[kMaxUsage]) noexcept;

// Adds what one slot holds to another; busiest minutes become the busier of the two.
void AddUsage(UsageSlot *sum, const UsageSlot &use) noexcept;

// Adds the hour of the newest minute to what the meter remembers of hours and days. Once, before that minute becomes
// one of another hour.
void CloseHour(MeterEdit *edit) noexcept;

// How much of the limits was used at most, in per cent, rounded down: the busiest minute of max_rpm and max_tpm; of an
// hour also max_rph and max_tph; of a day also max_rpd and max_tpd. -1: there is none of these limits.
int64_t PeakPercent(const UsageSlot &use, Span span, const Limits &limits) noexcept;

}  // namespace keypool
