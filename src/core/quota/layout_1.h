// layout_1.h - the state of a key in 0.1.0, as it lies in rows that are not updated yet, and its text.
//
// A column of the type keypool.state holds it. The update script turns it into a meter by its text (meter_text.h):
// nothing else reads it. Times are microseconds since 1970 (UTC), 0 means never; a bucket whose tag is 0 is empty.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/quota/time.h"

namespace keypool {

inline constexpr int kSecondBuckets1 = 64;
inline constexpr int kMinuteBuckets1 = 60;

struct RecordedUsage1 {
  int64_t total_requests;
  int64_t total_tokens;
  TimeUs last_used_at;
  TimeUs last_429_at;
  TimeUs cooldown_until;
  Second newest_second;
  uint32_t unused;
  Second second[kSecondBuckets1];  // bucket i holds a second s with s % 64 == i
  uint32_t requests[kSecondBuckets1];
  int64_t tokens[kSecondBuckets1];
  Minute minute[kMinuteBuckets1];  // bucket i holds a minute m with m % 60 == i
  uint32_t minute_requests[kMinuteBuckets1];
  uint32_t minute_rate_limited[kMinuteBuckets1];
  int64_t minute_tokens[kMinuteBuckets1];
};

struct ReservedUsage1 {
  int64_t last_grant;  // an order number
  Second newest_second;
  uint32_t awaited;
  Second second[kSecondBuckets1];
  uint8_t granted[kSecondBuckets1];  // up to 63
  uint32_t open_count[kSecondBuckets1];
  uint64_t open[kSecondBuckets1];
  int64_t tokens[kSecondBuckets1];
};

struct KeyState1 {
  uint32_t layout;
  uint32_t unused;
  RecordedUsage1 recorded;
  ReservedUsage1 reserved;
};

static_assert(std::is_trivially_copyable_v<KeyState1>);
static_assert(sizeof(RecordedUsage1) == 2272 && sizeof(ReservedUsage1) == 1616 && sizeof(KeyState1) == 3896);

// The text: the layout's number, then `name=value` fields parted by one space. Only buckets that hold something are
// written. Values of more than one number are parted by '/':
//   total_requests=N total_tokens=N last_used_at=US last_429_at=US cooldown_until=US newest_second=S
//   second=S/requests/tokens minute=M/requests/tokens/rate_limited
//   last_grant=N newest_grant=S reserved=S/granted/open count/open bits/tokens
inline constexpr size_t kMaxLayout1Text = 16384;

// Writes it, with a NUL, and returns its length. What a crash tore is written as the nearest that ParseMeter reads.
size_t FormatLayout1(const KeyState1 &state, char (&out)[kMaxLayout1Text]) noexcept;

}  // namespace keypool
