// simulated_pool.h - sessions that select from simulated meters with the core's walk, one atomic step at a time. A step
// is what happens under one set of locks. Everything is plain bytes.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstring>
#include <new>
#include <utility>

#include "core/quota/walk.h"
#include "simulated_meters.h"

namespace keypool::simulation {

// What a glue may do wrong; each breaks one of the rules of wakeups.h or walk.h.
enum class Fault {
  kNone,
  kPostsBeforeTheChange,  // in a step of its own
  kPostsAfterTheChange,   // in a step of its own
  kNeverPosts,
  kAwaitsAfterUnlocking,  // sets `awaited` in a step of its own, after the look
  kAwaitsTheKeyOnly,      // not the quotas that refused
  kOpensAfterLooking,     // learns how much was posted after the look that is remembered
  kReadsThePostedBeforeLocking,
  kAnswersWithoutReadingPosted,
  kAnswersByAnOldClock,  // does not see that a moment has passed
  kReservesAfterUnlocking,
  kIgnoresLostPosts,
  kWakesAKeyOnly,  // when a quota was posted
};

// What a session has in its hands after a selection.
struct Held {
  uint8_t key;  // kNoKey: nothing
  uint8_t tokens;
  Time leaves;
};
inline constexpr uint8_t kNoKey = 255;

// One selection under way or just finished.
struct Answer {
  bool done;
  bool granted;
  uint8_t key;
  TimeUs moment;  // if not granted; 0: nothing to wait for
};

template <int Keys, int Quotas, int Posts, int Horizon>
class Session {
 public:
  using World = Shared<Keys, Quotas, Posts, Horizon>;

  // quotas[k]: those of key k, as bits.
  void Open(const uint8_t (&quotas)[Keys], const int (&priorities)[Keys]) {
    KeyQuotas quotas_of[Keys];
    uint32_t scratch[Keys];
    for (int i = 0; i < Keys; ++i) {
      candidates_[i] = {};
      candidates_[i].id = IdOf(i);
      candidates_[i].priority = priorities[i];
      std::fill_n(quotas_of[i].quota, kQuotasOfKey, kNoIndex);
      int count = 0;
      for (uint32_t quota = 0; quota < Quotas; ++quota)
        if ((quotas[i] >> quota & 1) != 0) quotas_of[i].quota[count++] = quota;
    }
    const CountRule rules[std::max(Quotas, 1)] = {};
    OrderSize size = {Keys, GroupCandidates(quotas_of, candidates_, scratch, Keys), Quotas};
    assert(SelectionOrder::BlockBytes(size) <= sizeof(block_));
    order_ = SelectionOrder(size, candidates_, quotas_of, rules, block_);
    memory_ = {};
    held_.key = kNoKey;
  }

  // Begins a selection; `excluded` keys, as bits, are left out.
  void Begin(const World &world, int tokens, bool reserves, bool may_wait, uint64_t excluded) {
    tokens_ = static_cast<uint8_t>(tokens);
    reserves_ = reserves;
    excluded_ = excluded;
    ring_open_ = false;
    looks_ = 0;
    answer_ = {};
    later_ = Later::kNothing;
    walking_ = true;
    clock_ = world.now;
    memset(walk_, 0, sizeof(walk_));
    new (walk_) Walk(&order_, &memory_, {tokens, 0, 0, 0}, reserves, may_wait, world.now * kTick);
    Follow(world);
  }

  bool walking() const { return walking_; }

  // Forgets the finished selection, so that equal states look equal.
  void Rest() {
    walking_ = false;
    answer_ = {};
    clock_ = tokens_ = 0;
    posted_ = excluded_ = 0;
    looks_ = 0;
    reserved_ = ring_open_ = reserves_ = false;
    step_ = Walk::Step::kNone;
    memset(walk_, 0, sizeof(walk_));
  }
  const Answer &answer() const { return answer_; }
  const SelectionOrder &order() const { return order_; }
  const WalkMemory &memory() const { return memory_; }
  WalkMemory &memory() { return memory_; }
  const WalkRefusal &refusal() const { return walk().refusal(); }
  int looks() const { return looks_; }
  int tokens() const { return tokens_; }
  Held &held() { return held_; }
  bool reserved() const { return reserved_; }  // in the last step

  // One atomic step of a selection.
  void Step(World *world, Fault fault) {
    reserved_ = false;
    if (later_ != Later::kNothing) return FinishLater(world, fault);
    switch (step_) {
      case Walk::Step::kOpenRing:
        ring_open_ = true;
        if (fault == Fault::kOpensAfterLooking && !order_.remembers()) later_after_look_ = true;
        walk().RingOpened(world->ring.posted);
        break;
      case Walk::Step::kReadRing:
        ReadRing(*world, fault);
        break;
      case Walk::Step::kLook:
        if (fault == Fault::kReadsThePostedBeforeLocking && !has_read_posted_) {
          has_read_posted_ = true;
          posted_ = world->ring.posted;
          return;
        }
        has_read_posted_ = false;
        LookAndAct(world, fault);
        if (later_ != Later::kNothing) return;
        break;
      default:
        assert(false);
    }
    Follow(*world);
  }

  // Changes meters in one step; with some faults in two: true if another is to follow.
  template <typename How>
  bool Change(World *world, const int *meters, int count, Fault fault, bool second, How how) {
    if (fault == Fault::kPostsAfterTheChange && second) return PostPostponed(world);
    if (fault == Fault::kPostsBeforeTheChange && !second) {
      for (int i = 0; i < count; ++i)
        if (std::exchange(world->meters[meters[i]].awaited, uint8_t{0}) != 0) PostMeter(&world->ring, IdOf(meters[i]));
      return true;
    }
    for (int i = 0; i < count; ++i) {
      Meter<Horizon> *meter = &world->meters[meters[i]];
      SmallLoad before = world->LoadOf(meters[i]);
      how(meter);
      bool eased = meter->awaited != 0 && world->LoadOf(meters[i]).EasedFrom(before);
      if (!eased || fault == Fault::kPostsBeforeTheChange) continue;
      meter->awaited = 0;
      if (fault == Fault::kPostsAfterTheChange) postponed_ |= 1u << meters[i];
      if (fault == Fault::kNone || fault > Fault::kNeverPosts) PostMeter(&world->ring, IdOf(meters[i]));
    }
    return postponed_ != 0;
  }

  // The meters of a key, its own first; how many.
  int MetersOf(uint32_t key, int (&meters)[kMaxMeters]) const {
    int count = CountOf(key);
    for (int i = 0; i < count; ++i) meters[i] = MeterOf(key, i);
    return count;
  }

 private:
  enum class Later : uint8_t { kNothing, kAwait, kReserve, kCount };

  Walk &walk() { return *std::launder(reinterpret_cast<Walk *>(walk_)); }
  const Walk &walk() const { return *std::launder(reinterpret_cast<const Walk *>(walk_)); }

  // Asks for the next step; what needs no lock is done at once.
  void Follow(const World &world) {
    for (;;) {
      step_ = walk().Next();
      if (step_ == Walk::Step::kFound || step_ == Walk::Step::kNone) return Finish();
      if (step_ != Walk::Step::kLook || !LeavesOut(world)) return;
    }
  }

  bool LeavesOut(const World &world) {
    uint32_t key = walk().key();
    if ((excluded_ >> key & 1) != 0) {
      walk().SetAside(Aside::kExcluded);
      return true;
    }
    if (!world.meters[key].CanEverServe(tokens_)) {
      walk().SetAside(Aside::kTooLarge);
      return true;
    }
    for (int i = 0; i < CountOf(key) - 1; ++i) {
      uint32_t quota = order_.QuotasOf(key)[i];
      if (world.meters[Keys + quota].CanEverServe(tokens_)) continue;
      walk().SetQuotaAside(quota);
      return true;
    }
    return false;
  }

  void Finish() {
    walking_ = false;
    bool found = step_ == Walk::Step::kFound;
    const WalkRefusal &refusal = walk().refusal();
    answer_ = {true, found, static_cast<uint8_t>(walk().key()), !found && refusal.waits ? refusal.moment : 0};
  }

  int CountOf(uint32_t key) const {
    int count = 1;
    for (int i = 0; i < kQuotasOfKey; ++i) count += order_.QuotasOf(key)[i] != kNoIndex;
    return count;
  }
  int MeterOf(uint32_t key, int i) const {
    return i == 0 ? static_cast<int>(key) : Keys + static_cast<int>(order_.QuotasOf(key)[i - 1]);
  }

  void LookAtMeter(const World &world, const Meter<Horizon> &meter, MeterLook *look) const {
    look->awaited = meter.awaited != 0;
    look->refuses = !meter.Admits(tokens_, world.now);
    look->asked = tokens_;
    if (!look->refuses) return;
    int least = 0;
    while (meter.Admits(least, world.now)) ++least;
    bool blocked = meter.blocked_until > world.now;
    look->known.wait.moment = meter.MomentOf(least, world.now) * kTick;
    look->known.wait.tokens = static_cast<uint32_t>(least);
    look->known.wait.cooling = blocked;
    look->admission.obstacle = blocked ? Obstacle::kCooldown : Obstacle::kLimit;
    look->admission.limit = Limit::kTpm;
    look->admission.moment = look->admission.guess = meter.MomentOf(tokens_, world.now) * kTick;
    if (meter.limited == Limited::kCalls && !blocked) {
      look->admission.limit = Limit::kInFlight;
      look->admission.guess = world.now * kTick + kTick / 2;
      look->known.busy = true;
    }
  }

  void LookAndAct(World *world, Fault fault) {
    uint32_t key = walk().key();
    ++looks_;
    Look look;
    memset(&look, 0, sizeof(look));  // with what lies between its fields: worlds are compared by their bytes
    look.count = CountOf(key);
    look.standing = world->meters[key].turn;
    look.next = look.standing + 1;
    for (int i = 0; i < look.count; ++i) LookAtMeter(*world, world->meters[MeterOf(key, i)], &look.meters[i]);
    uint64_t posted = walk().NeedsPosted(look) ? world->ring.posted : 0;
    if (fault == Fault::kReadsThePostedBeforeLocking) posted = posted_;
    if (fault == Fault::kAnswersWithoutReadingPosted) posted = memory_.posts_seen;
    Time clock = fault == Fault::kAnswersByAnOldClock ? clock_ : world->now;
    Verdict verdict = walk().Judge(look, posted, clock * kTick);
    Act(world, fault, look, verdict);
  }

  void Act(World *world, Fault fault, const Look &look, const Verdict &verdict) {
    awaits_ = fault == Fault::kAwaitsTheKeyOnly ? verdict.awaits & 1 : verdict.awaits;
    if (awaits_ != 0 && fault == Fault::kAwaitsAfterUnlocking)
      later_ = Later::kAwait;
    else
      Await(world);
    bool reserves = verdict.serves && reserves_;
    turn_ = static_cast<uint16_t>(look.next);
    if (reserves && fault == Fault::kReservesAfterUnlocking)
      later_ = Later::kReserve;
    else if (reserves)
      Reserve(world);
    if (later_after_look_ && look.refused()) later_ = Later::kCount;
  }

  void Await(World *world) {
    for (int i = 0; i < kMaxMeters; ++i)
      if ((awaits_ >> i & 1) != 0) world->meters[MeterOf(walk().key(), i)].awaited = 1;
    awaits_ = 0;
  }

  void Reserve(World *world) {
    uint32_t key = walk().key();
    held_.key = static_cast<uint8_t>(key);
    held_.tokens = tokens_;
    held_.leaves = static_cast<Time>(world->now + world->lasts);
    for (int i = 0; i < CountOf(key); ++i) world->meters[MeterOf(key, i)].Reserve(tokens_, held_.leaves);
    world->meters[key].turn = turn_;
    reserved_ = true;
  }

  void FinishLater(World *world, Fault) {
    if (later_ == Later::kAwait) Await(world);
    if (later_ == Later::kReserve) Reserve(world);
    if (later_ == Later::kCount) memory_.posts_seen = world->ring.posted;
    later_after_look_ = false;
    later_ = Later::kNothing;
    Follow(*world);
  }

  void ReadRing(const World &world, Fault fault) {
    KeyId posts[Posts];
    bool lost = false;
    uint32_t count = ring_open_ ? ReadPosts(world.ring, &memory_.posts_seen, posts, &lost) : 0;
    if (lost && fault != Fault::kIgnoresLostPosts) order_.WakeAll();
    for (uint32_t i = 0; i < count; ++i) WakePosted(posts[i].bytes[15], fault);
    clock_ = world.now;
    walk().BeginAgain(world.now * kTick);
  }

  void WakePosted(int meter, Fault fault) {
    if (meter < Keys) return order_.Wake(static_cast<uint32_t>(meter));
    uint32_t quota = static_cast<uint32_t>(meter - Keys);
    if (fault != Fault::kWakesAKeyOnly) return order_.WakeQuota(quota);
    order_.Wake(0);
  }

  bool PostPostponed(World *world) {
    for (int meter = 0; meter < World::kMeters; ++meter)
      if ((postponed_ >> meter & 1) != 0) PostMeter(&world->ring, IdOf(meter));
    postponed_ = 0;
    return false;
  }

  SelectionOrder order_;
  WalkMemory memory_;
  Candidate candidates_[Keys];
  int64_t block_[(Keys * 240 + Quotas * 96 + 64) / sizeof(int64_t)];
  alignas(Walk) unsigned char walk_[sizeof(Walk)];
  Answer answer_;
  Held held_;
  Walk::Step step_;
  Later later_;
  bool later_after_look_;
  bool walking_;
  bool reserves_;
  bool ring_open_;
  bool reserved_;
  bool has_read_posted_;
  uint8_t tokens_;
  uint8_t awaits_;
  uint16_t turn_;
  Time clock_;
  uint32_t postponed_;
  int looks_;
  uint64_t posted_;
  uint64_t excluded_;
};

}  // namespace keypool::simulation
