// moments.h - when something is over, in the forms in which providers write it.
#pragma once

#include <string_view>

#include "core/quota/time.h"

namespace keypool {

// The longest time from now, and the furthest moment, that is taken for one: ten years.
inline constexpr TimeUs kLongestDelay = int64_t{10} * 366 * 86400 * kMicrosPerSecond;

// Each returns whether the whole text is of the form, and within that range; else leaves the result alone. Fractions
// beyond microseconds are rounded up, so that nobody comes too early.

// 20, 0.5: a decimal number of units of so many microseconds, not negative.
bool ReadNumber(std::string_view text, int64_t unit, TimeUs *delay) noexcept;

// 6m0s, 1.5s, 120ms, 1h2m3s, 2d: as Go writes a duration, and days.
bool ReadDuration(std::string_view text, TimeUs *delay) noexcept;

// The three forms of RFC 9110, section 5.6.7: Sun, 06 Nov 1994 08:49:37 GMT; Sunday, 06-Nov-94 08:49:37 GMT;
// Sun Nov  6 08:49:37 1994. The second form's year is the last one, or one of the next 50, that ends so.
bool ReadHttpDate(std::string_view text, TimeUs now, TimeUs *moment) noexcept;

// 2026-11-26T15:53:07Z, .123 after the seconds, +01:00 for the Z (RFC 3339).
bool ReadTimestamp(std::string_view text, TimeUs *moment) noexcept;

// A moment in any of these forms, `now` being when it was written: numbers are seconds from now; beyond a billion,
// seconds since 1970, and beyond a hundred billion, milliseconds.
bool ReadMoment(std::string_view text, TimeUs now, TimeUs *moment) noexcept;

}  // namespace keypool
