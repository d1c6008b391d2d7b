// refusal_counts.h - how often a provider had no key to give, and since when.
//
// Counts of one provider, as they lie on a page. All of it is hints: a crash may lose the last of them. Each slot has
// its number, so what a crash leaves behind is over when that hour or day is.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/quota/meter.h"

namespace keypool {

// Why there was none, in the order of their columns.
enum class Refused : uint8_t { kLimited, kCooling, kBusy, kTooLarge, kNoKey, kCount };
inline constexpr int kRefused = static_cast<int>(Refused::kCount);

struct RefusalSlot {
  uint32_t number;  // of hours or days (UTC) since 1970
  uint32_t counts[kRefused];
};

struct RefusalCounts {
  TimeUs last_at;      // the last refusal of a request that another moment would have served
  TimeUs short_since;  // the first of those that came without a pause of kShortPause
  int64_t totals[kRefused];
  RefusalSlot hours[kUsageHours];  // slot i holds a number n with n % slots == i
  RefusalSlot days[kUsageDays];
};
static_assert(std::has_unique_object_representations_v<RefusalCounts> && sizeof(RefusalCounts) == 1952);

// A provider that has refused nobody for so long is no longer short.
inline constexpr TimeUs kShortPause = 60 * kMicrosPerSecond;

// Adds refusals, the first of which was at `first_at`. Returns whether the provider has become short.
bool AddRefusals(RefusalCounts *counts, const uint32_t (&refused)[kRefused], TimeUs first_at, TimeUs now) noexcept;

// Since when it is short; 0: it is not.
TimeUs ShortSince(const RefusalCounts &counts, TimeUs now) noexcept;

// What was refused in an hour or a day; nothing if its slot is another's by now.
RefusalSlot RefusedInHour(const RefusalCounts &counts, uint32_t hour) noexcept;
RefusalSlot RefusedInDay(const RefusalCounts &counts, uint32_t day) noexcept;

}  // namespace keypool
