// meter.h - a meter: the counters of one key or one quota, as they lie on a page.
//
// One Meter is changed in place, under the lock of its page, by every process that uses what it counts. Counters
// measure, limits ask: nothing here depends on a limit but the width of the recorded ring. It has two halves, and no
// byte belongs to both, because they survive a crash differently:
//
//   recorded   what really happened. Every change is written to the log before it counts.
//   reserved   what is under way. Changes by selections are hints: a crash may lose or tear them. A settlement logs
//              each slot that it changes whole, so that a slot is after recovery what it once was, never a mixture.
//              Every slot carries its time, so whatever a crash leaves behind is over when that time is.
//
// The layout is an on-disk format: it may grow only with a new kLayout and an upgrade of the stored rows. Fields are
// naturally aligned and there is no hidden padding. 0 as a time means never. A slot whose tag is not the one that is
// asked for is empty, whatever it holds. Amounts of a slot are 32 bits: a slot that is full admits no more, and what is
// recorded beyond stays at the top.
//
// The log of a settlement is small because little changes, side by side. What a day, a month and the newest minute hold
// is the difference of the totals and what those were when it began: counting a request changes the totals only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/quota/time.h"

namespace keypool {

inline constexpr uint32_t kLayout = 2;
inline constexpr int kRingSlots = 64;  // more than the 61 that a window touches
inline constexpr int kMinuteSlots = 60;
inline constexpr int kUsageHours = 48;
inline constexpr int kUsageDays = 31;
inline constexpr int kOpenSlots = 16;          // coarser slots of the calls that are still open
inline constexpr int kTrackedSelections = 63;  // selections of one second that are known one by one
inline constexpr int kBlockedModels = 8;
inline constexpr uint32_t kMinCallTimeout = 60;
inline constexpr uint32_t kMaxCallTimeout = 4 * 3600;
inline constexpr uint32_t kDefaultCallTimeout = 17 * 60;

// What was ever counted. At the top of a number it stays there, and the beginnings of the periods go down instead.
struct Totals {
  TimeUs last_used_at;
  int64_t requests;
  int64_t tokens;  // all tokens, whatever the meter counts
  int64_t output;
  int64_t cached;
  int64_t cost;
};

// A day or a month: the totals as they were when it began. It is kept by its end, and goes on while the meter's own
// clock is before that.
struct Period {
  Second end;  // 0: none yet
  uint32_t unused;
  int64_t requests;
  int64_t tokens;
  int64_t output;
  int64_t cached;
  int64_t cost;
};

// What was recorded in one slot of the ring: ring_width seconds. Slot i holds a number n with n % kRingSlots == i,
// where n is the second divided by the width.
struct RecordedSlot {
  // Keys: bit 63 - n: the n-th selection of this second was settled or released; from the top, so that the first ones
  // lie beside what changes with them. Meters with a wider ring: the cost.
  uint64_t settled_or_cost;
  uint32_t number;
  uint32_t requests;
  uint32_t tokens;  // as the meter counts them
  uint32_t output;
};

struct MinuteSlot {
  uint32_t requests;
  uint32_t tokens;
};

// The last 60 minutes. Position i holds the minute m <= the newest one with m % kMinuteSlots == i. The newest is that
// of the last use or 429; its requests and tokens are what the totals have grown by.
struct History {
  MinuteSlot minute[kMinuteSlots];
  uint16_t rate_limited[kMinuteSlots];
};

// What was counted in an hour or a day (usage.h). Slot i of their rings holds a number n with n % slots == i.
struct UsageSlot {
  uint32_t number;  // of hours or days since 1970; 0: empty
  uint32_t requests;
  uint32_t rate_limited;
  uint32_t peak_requests;  // of the busiest minute
  int64_t tokens;          // all, whatever the meter counts
  uint32_t peak_tokens;    // likewise of the minute that is busiest in tokens
  uint32_t unused;
};

// Stops what goes through the meter after failures (breaker.h).
struct Breaker {
  TimeUs open_until;  // or suspect
  TimeUs opened_at;   // or closed by hand: it hears of calls that were selected in a later second
  uint16_t failures;  // in a row, of one reason
  uint8_t openings;   // in a row; 0: it is closed
  uint8_t reason;     // the class of the last failure; 0: none
  uint32_t seconds;   // of the opening that stands, or for which the meter is suspect
};

struct RecordedMeter {
  Totals totals;
  int64_t minute_requests;  // the totals when the newest minute began
  int64_t minute_tokens;
  TimeUs last_429_at;
  TimeUs blocked_until;   // a cooldown
  uint32_t ring_width;    // seconds of a slot
  uint32_t call_timeout;  // seconds: a call that nobody settles frees its place after this long
  Breaker breaker;
  Period day;
  Period month;
  RecordedSlot ring[kRingSlots];
  History history;
  uint32_t model_hash[kBlockedModels];         // models that are blocked on this key
  TimeUs model_blocked_until[kBlockedModels];  // 0: this place is free
  UsageSlot hours[kUsageHours];                // that are over, UTC
  UsageSlot days[kUsageDays];                  // what is over of them
};

// Open reservations of one second.
struct ReservedSlot {
  Second second;
  uint16_t open;      // not settled yet
  uint16_t selected;  // selections of this second, up to kTrackedSelections; keys only
  uint32_t tokens;    // estimates of those, as the meter counts them
  uint32_t output;
};

// Calls still open that were selected in one of the coarser slots, the newest seconds included. Not those that the ring
// has lost: then each such loss would have to be logged, or recovery could show a call in both.
struct OpenSlot {
  uint64_t number : 24;  // the second of the selection, divided by the width; its lowest bits
  uint64_t tokens : 40;
  uint64_t calls : 20;
  uint64_t cost : 44;
};
inline constexpr uint64_t kOpenNumberMask = (uint64_t{1} << 24) - 1;
inline constexpr int64_t kMaxOpenTokens = (int64_t{1} << 40) - 1;
inline constexpr int64_t kMaxOpenCalls = (int64_t{1} << 20) - 1;
inline constexpr int64_t kMaxOpenCost = (int64_t{1} << 44) - 1;

struct ReservedMeter {
  int64_t turn;  // it only grows, and owes nothing to the clock
  TimeUs last_selected_at;
  uint32_t awaited;    // not 0: processes wait for the meter and must be told when it eases; not dumped
  Second probe_until;  // the breaker's probe is under way, at most until then; 0: none is
  int64_t selections;  // counters that only grow; a crash may lose the last of them
  int64_t releases;
  int64_t expiries;
  int64_t rate_limits;
  int64_t repeats;          // settlements of calls that were settled before
  int64_t without_model;    // keys: calls that named no model where models are told apart
  TimeUs without_model_at;  // the last of them
  ReservedSlot ring[kRingSlots];
  OpenSlot open[kOpenSlots];
};

struct Meter {
  uint32_t layout;
  uint32_t unused;
  RecordedMeter recorded;
  ReservedMeter reserved;
  uint8_t kept_for_later[216];  // zero; at least 64 bytes are kept
};

static_assert(std::has_unique_object_representations_v<Meter>);  // no padding
static_assert(sizeof(RecordedSlot) == 24 && sizeof(ReservedSlot) == 16 && sizeof(OpenSlot) == 16 &&
              sizeof(UsageSlot) == 32);
static_assert(sizeof(RecordedMeter) == 4968 && sizeof(ReservedMeter) == 1360 && sizeof(Meter) == 6552);

// A meter that nothing has happened to.
Meter FreshMeter(uint32_t ring_width, uint32_t call_timeout) noexcept;

}  // namespace keypool
