// walk.h - finding the key of a pool that serves a request: what to do next, and what follows from what was seen.
//
// A walk is one step over all keys, as if nothing else happened meanwhile: when it answers, each key that would have
// been better is full or blocked or stands later, and none has eased since the walk looked at it (wakeups.h). The
// caller does what Next() says, tells the walk what it saw, and asks again:
//
//   kOpenRing   Open the provider's ring of posts; RingOpened, or RingMissing.
//   kReadRing   Read the ring (ReadPosts with posts_seen), if it is open, and wake in the order what was posted; then
//               BeginAgain.
//   kLook       Look at key(). First what needs no lock: SetAside if it is excluded, too large or does not open;
//               SetQuotaAside if a quota can never admit the request; StandsLater if its turn says so. Else lock its
//               meter, then those of its quotas by block number, read the clock, LookAt, read how much the ring has
//               posted if NeedsPosted(), and Judge. Then do, before anything is unlocked, what the verdict says.
//   kFound      key() serves, and is reserved if the walk reserves.
//   kNone       No key serves: see refusal().
//
// The walk never calls back and holds nothing: a caller who raises an error may drop it between any two calls.
#pragma once

#include "core/quota/look.h"
#include "core/quota/turn.h"

namespace keypool {

// What a session keeps of a pool from one walk to the next, beside its order.
struct WalkMemory {
  uint64_t posts_seen = 0;     // while the order remembers anything: how many posts have been taken in
  int64_t newest = kTurnUnit;  // the newest turn seen; so no turn is ever 0, which means never
};

enum class Aside : uint8_t { kExcluded, kTooLarge, kUnopened };

// Why no key serves. Its status: waits, else too_large, else unopened, else excluded, else the pool has no key.
struct WalkRefusal {
  bool waits;
  bool too_large;
  bool unopened;
  bool excluded;
  // If it waits: the earliest moment of all keys, and what is in the way until then. Who is busy may be told another
  // moment: the earlier one that is guessed for one of the busy keys.
  Obstacle obstacle;
  Limit limit;
  TimeUs moment;
  uint32_t key;
  uint32_t quota;  // kNoIndex: the key itself
};

// What is to be done while the meters that were looked at are locked.
struct Verdict {
  bool serves;     // reserve the request in all of them, with the look's `next` as the key's turn, if the walk reserves
  bool tells;      // ... as a watched change of each (wakeups.h)
  uint8_t awaits;  // bit i: AwaitedFor is to be set in the i-th
};

class Walk {
 public:
  enum class Step : uint8_t { kOpenRing, kReadRing, kLook, kFound, kNone };

  // Begins. `reserves`: else nothing is changed in any meter. `may_wait`: others can tell of what eases. The order is
  // that of the request's model.
  Walk(SelectionOrder *order, WalkMemory *memory, const Amounts &amounts, bool reserves, bool may_wait,
       TimeUs now) noexcept;

  Step Next() noexcept;
  uint32_t key() const { return key_; }
  const WalkRefusal &refusal() const { return refusal_; }

  // kOpenRing.
  void RingOpened(uint64_t posted) noexcept;
  void RingMissing() noexcept;

  // kReadRing, after the order's Wake, WakeQuota or WakeAll.
  void BeginAgain(TimeUs now) noexcept;

  // kLook. StandsLater: true if the key stands later than the walk believed, and that is all to be said of it.
  void SetAside(Aside why) noexcept;
  void SetQuotaAside(uint32_t quota) noexcept;
  bool StandsLater(int64_t standing) noexcept;
  bool NeedsPosted(const Look &look) const noexcept;
  Verdict Judge(const Look &look, uint64_t posted, TimeUs now) noexcept;

 private:
  enum class Phase : uint8_t { kServing, kVerifying, kAskingBusy };  // what kLook is for

  bool IsOver(uint64_t posted, TimeUs now) const noexcept;
  Verdict Remember(const Look &look, TimeUs now) noexcept;
  Verdict JudgeServing(const Look &look, bool over) noexcept;
  Verdict JudgeWaiting(const Look &look, bool over, TimeUs now) noexcept;
  void Refuse(const Look &look, TimeUs now) noexcept;
  bool Competes(TimeUs now) noexcept;
  bool Correction(const MeterLook &look, const KnownWait *known, KnownWait *correction) const noexcept;
  void SetExact(const MeterLook &look, KnownWait *known) const noexcept;
  const KnownWait *KnownOf(int meter) const noexcept;
  bool Corrects(const Look &look) const noexcept;
  void Apply() noexcept;
  void ApplyToTop() noexcept;
  void ApplyToFirst() noexcept;

  SelectionOrder *order_;
  WalkMemory *memory_;
  Amounts amounts_;
  bool reserves_;
  bool may_wait_;
  bool ring_open_ = false;
  bool wants_ring_ = false;
  bool over_ = false;       // something has eased since it was looked at, or its moment has come
  bool distrusts_ = false;  // a key that was remembered serves, though nobody may have told: forget what is remembered
  bool found_ = false;
  bool refused_ = false;
  bool has_news_ = false;  // `look_` is to be taken in, once nothing is locked
  Phase phase_ = Phase::kServing;
  uint32_t key_ = kNoIndex;
  int64_t corrected_ = 0;  // where the top stands, if that is later than the order believes
  WalkRefusal refusal_ = {};
  Look look_;
};

}  // namespace keypool
