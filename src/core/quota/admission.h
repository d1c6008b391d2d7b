// admission.h - may this request be served now, and if not, when.
#pragma once

#include "core/quota/limits.h"
#include "core/quota/window.h"

namespace keypool {

// What keeps a request out. In the order in which they are told if several end at the same moment.
enum class Obstacle : uint8_t {
  kNone,
  kCooldown,  // a 429 of the meter, or of this model on this key
  kBreaker,
  kLimit,     // `limit` says which
  kFullSlot,  // a slot can hold no larger number: mostly over in the next second
};

// The request, and what the glue knows of it.
struct Ask {
  Amounts amounts;      // estimates
  uint32_t model_hash;  // 0: no model. Only keys look at it
  TimeUs now;           // the wall clock
};

// The ends of the day and the month that `now` lies in, in the time zone of the meter.
struct PeriodEnds {
  Second day;
  Second month;
};

// How long who cannot be told waits at most.
inline constexpr TimeUs kLongestGuess = kMicrosPerSecond;

// The answer of one meter.
struct Admission {
  Obstacle obstacle;  // kNone: it admits. Else what is in the way for the longest, by `guess`
  Limit limit;
  // When it would admit this request if nothing else happened. 0 if it admits. For max_in_flight that is when the
  // oldest calls are given up, and hardly ever true: see `guess`.
  TimeUs moment;
  // When somebody may come back who cannot be told: as `moment`, but for calls in flight after the mean time between
  // settlings of the last minute, 10 ms to kLongestGuess. Never later than `moment`.
  TimeUs guess;

  bool admitted() const { return obstacle == Obstacle::kNone; }
};

// Decides; changes nothing. The limits must be such that CanEverServe and HaveOneWidth, and the meter's ring as wide.
//
// Requests in the window + 1 <= max_rpm; tokens in the window < max_tpm, and + the request's <= max_tpm; output
// likewise; hour, day and month the same over their period, open calls included; calls in flight + 1 <= max_in_flight.
// A rolling day is the window of a ring that is so wide. burst_seconds b: in the seconds s-b .. s at most ceil(max_rpm
// * b / 60) requests; where that is one, requests are kept b seconds apart to the microsecond. Every limit's use only
// falls while nothing happens, so the moment is the latest of each limit's first.
Admission Admit(const Meter &meter, const Limits &limits, const Ask &ask) noexcept;

// Whether a block of this model alone is in force, whatever else keeps requests out: one that others need not wait for.
bool IsModelBlocked(const Meter &meter, uint32_t model_hash, TimeUs now) noexcept;

// The smallest request in the same proportion that the meter refuses now, and when it would be admitted: a lower bound
// for all that are as large in tokens, output and cost. What a session remembers of a meter that is full. A request
// without counted tokens is as it is, or nothing at all. Admit has refused it.
struct Wait {
  TimeUs moment;
  uint32_t tokens;  // requests of fewer counted tokens may be admitted
  bool cooling;

  // Of two that end at the same moment, the one that cools is first.
  bool EndsBefore(const Wait &other) const {
    return moment != other.moment ? moment < other.moment : cooling && !other.cooling;
  }
};
Wait WaitOf(const Meter &meter, const Limits &limits, const Ask &ask) noexcept;

// What stands against a meter's next selection, by its own clock; whether that is less than it was.
struct Load {
  int64_t requests, tokens, output;                  // in the window
  int64_t cost;                                      // in a window that is wider
  int64_t calls;                                     // in flight
  int64_t day_requests, day_tokens, day_cost;        // with those in flight
  int64_t month_requests, month_tokens, month_cost;  // likewise
  TimeUs blocked_until;                              // the latest block that holds for all models; 0: none
  uint64_t model_blocks;                             // a digest of the blocks of models: any change may ease
  TimeUs apart_from;                                 // the last selection, for requests that are kept apart

  // Whether a request may be served sooner than before, or waits for another reason. Every settling eases what waits
  // for calls in flight; who knows that nobody does leaves those out.
  bool EasedFrom(const Load &before, bool calls_matter = true) const noexcept;
};
Load LoadOf(const Meter &meter, const CountRule &rule, TimeUs now) noexcept;

}  // namespace keypool
