// meter.h - a meter: the counters of one key or one quota, as they lie on a page.
//
// One Meter is changed in place, under the lock of its page, by every process that uses what it counts. Counters measure, limits
// ask: nothing here depends on a limit but the width of the recorded ring. It has two halves, and no byte belongs to both, because
// they survive a crash differently:
//
//   recorded   what really happened. Every change is written to the log before it counts.
//   reserved   what is under way. Changes are hints: a crash may lose or tear them. Every slot carries its time, so whatever a
//              crash leaves behind is over when that time is.
//
// The layout is an on-disk format: it may grow only with a new kLayout and an upgrade of the stored rows. Fields are naturally
// aligned and there is no hidden padding. 0 as a time means never. A slot whose tag is not the one that is asked for is empty,
// whatever it holds. Amounts of a slot are 32 bits: a slot that is full admits no more, and what is recorded beyond stays at the top.
//
// What one settlement changes lies side by side (slots are structs), so that the log needs few pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/quota/time.h"

namespace keypool {

inline constexpr uint32_t kLayout = 2;
inline constexpr int kRingSlots = 64;        // more than the 61 that a window touches
inline constexpr int kMinuteSlots = 60;
inline constexpr int kOpenSlots = 16;        // coarser slots of the calls that are still open
inline constexpr int kTrackedSelections = 63;  // selections of one second that are known one by one
inline constexpr int kBlockedModels = 8;

// What was recorded in one slot of the ring: ring_width seconds. Slot i holds a number n with n % kRingSlots == i, where n is the
// second divided by the width.
struct RecordedSlot {
  uint32_t number;
  uint32_t requests;
  uint32_t tokens;  // as the meter counts them
  uint32_t output;
};

// Counts of a day or a month. Kept by its end: it goes on while the meter's own clock is before it.
struct Period {
  Second end;  // 0: none yet
  uint32_t unused;
  int64_t requests;
  int64_t tokens;
  int64_t cost;
};

struct MinuteSlot {  // position i holds the minute m <= newest_minute with m % kMinuteSlots == i, of the last 60
  uint32_t requests;
  uint32_t tokens;
};

// Stops what goes through the meter after failures, with one probe when its time is over. (Rules: breaker.h.)
struct Breaker {
  TimeUs open_until;       // 0: closed
  TimeUs opened_at;        // only the success of a call that was selected later closes it
  uint16_t failures;       // in a row
  uint8_t openings;        // in a row: its time doubles with each
  uint8_t reason;          // the class of the last failure
  uint32_t seconds;        // of the opening that stands
};

struct RecordedMeter {
  int64_t total_requests;
  int64_t total_tokens;  // all tokens, whatever the meter counts
  int64_t total_output;
  int64_t total_cached;
  int64_t total_cost;
  TimeUs last_used_at;
  TimeUs last_429_at;
  TimeUs blocked_until;   // a cooldown
  Second newest_second;   // the newest second in which something was recorded, a 429 included
  Minute newest_minute;   // of the history
  uint32_t ring_width;    // seconds of a slot
  uint32_t call_timeout;  // seconds: a call that nobody settles frees its place after this long; widths of open slots follow from it
  Breaker breaker;
  Period day;
  Period month;
  RecordedSlot ring[kRingSlots];
  uint64_t settled[kRingSlots];  // bit n: the n-th selection of that slot's second was settled or released. Keys only
  MinuteSlot minute[kMinuteSlots];
  uint16_t minute_rate_limited[kMinuteSlots];
  uint32_t model_hash[kBlockedModels];        // models that are blocked on this key
  TimeUs model_blocked_until[kBlockedModels];  // 0: this place is free
};

// Open reservations of one second.
struct ReservedSlot {
  Second second;
  uint16_t selected;  // selections of this second, up to kTrackedSelections; keys only
  uint16_t open;      // not settled yet
  uint32_t tokens;    // estimates of those, as the meter counts them
  uint32_t output;
};

// Calls still open that were selected in one of the coarser slots, the newest seconds included.
struct OpenSlot {
  uint32_t number;  // the second of the selection, divided by the width
  uint32_t calls;
  int64_t tokens;
  int64_t cost;
};

struct ReservedMeter {
  int64_t turn;            // it only grows, and owes nothing to the clock
  TimeUs last_selected_at;
  Second newest_second;    // the newest second in which something was reserved
  uint32_t awaited;        // 1: processes wait for the meter and must be told when it eases; not dumped
  int64_t selections;      // counters that only grow; a crash may lose the last of them
  int64_t releases;
  int64_t expiries;
  int64_t rate_limits;
  ReservedSlot ring[kRingSlots];
  OpenSlot open[kOpenSlots];
};

struct Meter {
  uint32_t layout;
  uint32_t unused;
  RecordedMeter recorded;
  ReservedMeter reserved;
  uint8_t kept_for_later[152];  // zero; at least 64 bytes are kept
};

static_assert(std::is_trivially_copyable_v<Meter>);
static_assert(sizeof(RecordedSlot) == 16 && sizeof(ReservedSlot) == 16 && sizeof(OpenSlot) == 24);
static_assert(sizeof(RecordedMeter) == 2400 && sizeof(ReservedMeter) == 1464 && sizeof(Meter) == 4024);

// A meter that nothing has happened to.
Meter FreshMeter(uint32_t ring_width, uint32_t call_timeout) noexcept;

}  // namespace keypool
