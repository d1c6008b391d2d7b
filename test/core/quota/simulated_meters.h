// simulated_meters.h - meters that are a few numbers, and the ring beside them. For tests; everything is plain bytes,
// so that a whole world can be copied.
#pragma once

#include <algorithm>
#include <cassert>

#include "core/quota/wakeups.h"

namespace keypool::simulation {

using Time = uint16_t;
inline constexpr int kLongest = 16;  // nothing stays in a meter for longer
inline constexpr TimeUs kTick = 1000000;

enum class Limited : uint8_t { kTokens, kCalls };

// A meter that admits `limit` tokens, or calls, until they leave at their time.
template <int Horizon>
struct Meter {
  static constexpr int kHorizon = Horizon;
  uint16_t used[Horizon];  // by the time at which it leaves; [0 .. now] have left
  uint16_t limit;          // 0: none
  Limited limited;
  Time blocked_until;
  uint8_t awaited;
  uint16_t turn;  // of keys

  int Use(Time at) const {
    int use = 0;
    for (int time = at + 1; time < std::min(Horizon, at + kLongest); ++time) use += used[time];
    return use;
  }
  int Weight(int tokens) const { return limited == Limited::kTokens ? tokens : 1; }
  bool Fits(int tokens, Time at) const { return limit == 0 || Use(at) + Weight(tokens) <= limit; }
  bool Admits(int tokens, Time at) const { return blocked_until <= at && Fits(tokens, at); }
  bool CanEverServe(int tokens) const { return limit == 0 || Weight(tokens) <= limit; }
  Time MomentOf(int tokens, Time now) const {
    Time moment = now;
    while (!Admits(tokens, moment)) assert(moment < Horizon), ++moment;
    return moment;
  }
  void Reserve(int tokens, Time leaves) { used[leaves] = static_cast<uint16_t>(used[leaves] + Weight(tokens)); }
  void GiveBack(int tokens, Time leaves) {
    used[leaves] = static_cast<uint16_t>(std::max(0, used[leaves] - Weight(tokens)));
  }
};

// What stands against a meter, as Load does.
struct SmallLoad {
  int use;
  Time blocked_until;
  bool EasedFrom(const SmallLoad &before) const { return use < before.use || blocked_until != before.blocked_until; }
};

// Meters 0 .. Keys-1 are keys, the others quotas.
template <int Keys, int Quotas, int Posts, int Horizon>
struct Shared {
  static constexpr int kMeters = Keys + Quotas;
  Meter<Horizon> meters[kMeters];
  RingOf<Posts> ring;
  Time now;
  Time lasts;  // how long a request stays in its meters

  SmallLoad LoadOf(int meter) const { return {meters[meter].Use(now), meters[meter].blocked_until}; }
};

inline KeyId IdOf(int meter) {
  KeyId id = {};
  id.bytes[15] = static_cast<uint8_t>(meter);
  return id;
}

}  // namespace keypool::simulation
