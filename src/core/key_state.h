// key_state.h - the moving part of a key: its counters, as they lie on a page.
//
// One KeyState is changed in place, under the lock of its page, by every process that uses the key. It has two
// halves, and no byte belongs to both, because they survive a crash differently:
//
//   recorded   what really happened. Every change is written to the log before it counts.
//   reserved   what is under way. Changes are not logged: a crash may lose or tear them. Every bucket carries its
//              second, so whatever a crash leaves behind is out of the window 60 seconds later.
//
// The layout is an on-disk format: it may grow only with a new kLayout and an upgrade of the stored rows. Fields are
// naturally aligned and there is no hidden padding. Times are microseconds since 1970 (UTC), 0 means never; seconds
// and minutes are whole numbers since 1970. A bucket whose tag is not the second (or minute) that is asked for is
// empty, whatever it holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "core/status.h"

namespace keypool {

using TimeUs = int64_t;
using Second = uint32_t;
using Minute = uint32_t;

inline constexpr int64_t kMicrosPerSecond = 1000000;
inline constexpr TimeUs kLatestTime = 4102444800 * kMicrosPerSecond;  // the year 2100: later ones are no real clock's
inline constexpr uint32_t kLayout = 1;
inline constexpr int kSecondBuckets = 64;  // more than the 61 that a window touches
inline constexpr int kMinuteBuckets = 60;
inline constexpr int kTrackedGrants = 63;  // grants of one second that are known one by one

struct RecordedUsage {
  int64_t total_requests;
  int64_t total_tokens;
  TimeUs last_used_at;
  TimeUs last_429_at;
  TimeUs cooldown_until;
  Second newest_second;  // the newest second in which something was recorded, a 429 included
  uint32_t unused;
  Second second[kSecondBuckets];  // bucket i holds a second s with s % 64 == i
  uint32_t requests[kSecondBuckets];
  int64_t tokens[kSecondBuckets];
  Minute minute[kMinuteBuckets];  // bucket i holds a minute m with m % 60 == i
  uint32_t minute_requests[kMinuteBuckets];
  uint32_t minute_rate_limited[kMinuteBuckets];
  int64_t minute_tokens[kMinuteBuckets];
};

struct ReservedUsage {
  int64_t last_grant;    // the order number of the newest grant, 0: never granted; it only grows
  Second newest_second;  // the newest second in which the key was granted
  uint32_t awaited;      // 1: processes wait for the key and must be told when it can serve sooner; not dumped
  Second second[kSecondBuckets];
  uint8_t granted[kSecondBuckets];      // grants of this second, up to kTrackedGrants
  uint32_t open_count[kSecondBuckets];  // open reservations of this second
  uint64_t open[kSecondBuckets];        // bit n: the n-th grant of this second is open; later ones are only counted
  int64_t tokens[kSecondBuckets];       // estimates of the open reservations
};

struct KeyState {
  uint32_t layout;
  uint32_t unused;
  RecordedUsage recorded;
  ReservedUsage reserved;
};

static_assert(std::is_trivially_copyable_v<KeyState>);
static_assert(sizeof(RecordedUsage) == 2272 && sizeof(ReservedUsage) == 1616 && sizeof(KeyState) == 3896);

// The state of a key that was never used.
KeyState FreshState() noexcept;

// The text form, for dumps: the layout's number, then `name=value` fields parted by one space. Only buckets that hold
// something are written. Values of more than one number are parted by '/':
//   total_requests=N total_tokens=N last_used_at=US last_429_at=US cooldown_until=US newest_second=S
//   second=S/requests/tokens minute=M/requests/tokens/rate_limited
//   last_grant=N newest_grant=S reserved=S/granted/open count/open bits/tokens
inline constexpr size_t kMaxStateText = 16384;

// Writes the text form, with a NUL, and returns its length.
size_t FormatState(const KeyState &state, char (&out)[kMaxStateText]) noexcept;

// Reads the text form. kInvalidArgument if it is anything else, or holds a time beyond kLatestTime (for the end of a
// cooldown, twice that): the state would believe it for ever.
Status ParseState(std::string_view text, KeyState *state) noexcept;

}  // namespace keypool
