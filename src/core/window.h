// window.h - the rules by which a key's state decides and changes.
//
// Window. Usage is counted in buckets of one second. At second s the window is the buckets s-60 .. s, so that no
// interval of 60 seconds, however it lies, holds more than the limit.
//
// A key's own clock. If the wall clock steps back, the newest second that the key has seen counts as now. Every
// function here takes the wall clock's time and applies this rule.
//
// Counts never go below zero. Nothing here allocates, throws, or takes longer than a walk over the buckets.
#pragma once

#include "core/key_state.h"
#include "core/state_edit.h"

namespace keypool {

inline constexpr Second kWindowSeconds = 60;
inline constexpr int64_t kMaxTokens = 1000000000;  // of one request

// What a key may do in any 60 seconds; 0 means no limit.
struct Limits {
  int64_t max_rpm;
  int64_t max_tpm;
};

// One open grant, as its lease names it.
struct Reservation {
  Second second;      // in which it was granted
  uint32_t sequence;  // its number among that second's grants; kTrackedGrants for all beyond
  int64_t tokens;     // the estimate that was reserved
};

struct WindowUse {
  int64_t requests;  // recorded and reserved
  int64_t tokens;    // recorded and reserved
  int64_t open;      // reservations not yet settled
};

// The answer to "may this key serve a request now?".
struct Admission {
  bool admitted;
  bool cooling;   // if not admitted: because of its cooldown, not merely of its limits
  TimeUs moment;  // if not admitted: when it can, if nothing else happens
};

// Why and until when a key cannot serve any request of so many tokens or more; smaller ones it may.
struct Wait {
  TimeUs moment;
  uint32_t tokens;
  bool cooling;

  // Of two that end at the same moment, the one that cools is first.
  bool EndsBefore(const Wait &other) const {
    return moment != other.moment ? moment < other.moment : cooling && !other.cooling;
  }
};

// What stands against a key's next grant, by the key's own clock.
struct Load {
  int64_t requests;       // in the window
  int64_t tokens;         // in the window
  TimeUs cooldown_until;  // 0: it does not cool

  // Whether a key with this burden may serve sooner than with the other, or wait for another reason.
  bool EasedFrom(const Load &other) const {
    return requests < other.requests || tokens < other.tokens || cooldown_until != other.cooldown_until;
  }
};

// The key's own now, and its second.
TimeUs KeyNow(const KeyState &state, TimeUs now) noexcept;
Second KeySecond(const KeyState &state, TimeUs now) noexcept;

WindowUse UseInWindow(const KeyState &state, TimeUs now) noexcept;

// Whether limits can ever admit a request of so many tokens.
inline bool CanEverServe(const Limits &limits, int64_t tokens) noexcept {
  return limits.max_tpm == 0 || tokens <= limits.max_tpm;
}

// Decides; changes nothing. The limits must be such that CanEverServe.
Admission Admit(const KeyState &state, const Limits &limits, int64_t tokens, TimeUs now) noexcept;

// How long a key waits that Admit has refused `tokens`: the smallest size that it refuses, and that one's moment.
Wait WaitOf(const KeyState &state, const Limits &limits, int64_t tokens, TimeUs now) noexcept;

Load LoadOf(const KeyState &state) noexcept;

// Reserves one request of `tokens` and takes the key's turn: last_grant becomes the largest of now, itself + 1, and
// newest_grant + 1, where newest_grant is the largest that the caller has seen of any key. So equal keys take turns
// even within one microsecond, under a stopped clock, and when the clock steps back. Changes the reserved half only.
Reservation Reserve(KeyState *state, int64_t tokens, TimeUs now, int64_t newest_grant) noexcept;

// Gives an open reservation back, as if it had never been granted. False, and no change, if it is not open or has left
// the window. Changes the reserved half only.
bool Release(StateEdit *edit, const Reservation &reservation, TimeUs now) noexcept;

// Records one request with the tokens that it really used.
//   With a reservation: the request stays in the second of its grant, the estimate leaves that second, and the tokens
//   count now. If it was settled before, or its second has left the window, the window's requests do not change.
//   If a crash forgot it, the request counts in its second all the same.
//   With none (nullptr): the oldest open reservation is taken to be this one; its share of that second's estimates
//   leaves. If none is open, one request counts now.
void Record(StateEdit *edit, const Reservation *reservation, int64_t tokens, TimeUs now) noexcept;

// The provider answered 429: cools the key for so long, if that is later than the deadline it has. With a
// reservation: settles it as a used request without tokens. Returns the deadline that stands. cooldown > 0.
TimeUs Mark429(StateEdit *edit, const Reservation *reservation, TimeUs cooldown, TimeUs now) noexcept;

void ClearCooldown(StateEdit *edit) noexcept;

struct MinuteUse {
  Minute minute;
  uint32_t requests;
  uint32_t rate_limited;
  int64_t tokens;
};

// Writes the minutes that hold something, among the last `minutes` (1 to 60), newest first; returns how many.
int UsageByMinute(const KeyState &state, int minutes, TimeUs now, MinuteUse (&out)[kMinuteBuckets]) noexcept;

}  // namespace keypool
