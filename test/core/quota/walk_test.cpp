// walk_test.cpp - walks of several sessions over random pools answer what looking at every key would answer, and look
// at few keys.
#include "core/quota/walk.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <set>
#include <vector>

#include "simulated_pool.h"

namespace keypool::simulation {
namespace {

constexpr int kHorizon = 512;

template <int Keys, int Quotas, int Sessions>
class RandomPool {
 public:
  using World = Shared<Keys, Quotas, 6, kHorizon>;
  using Player = Session<Keys, Quotas, 6, kHorizon>;

  explicit RandomPool(unsigned seed) : random_(seed), world_(new World()), players_(new Player[Sessions]()) {
    world_->now = 20;
    world_->lasts = 1 + Any(8);
    int usual = 1 + static_cast<int>(Any(6));
    for (int i = 0; i < World::kMeters; ++i) {
      Meter<kHorizon> *meter = &world_->meters[i];
      meter->limited = Any(4) == 0 ? Limited::kCalls : Limited::kTokens;
      meter->limit =
          static_cast<uint16_t>(Any(4) == 0 ? 0 : (i < Keys ? 1 : 3) * (1 + Any(static_cast<uint32_t>(usual))));
    }
    for (int i = 0; i < Keys; ++i) {
      priorities_[i] = static_cast<int>(Any(3));
      for (int count = 0; count < kQuotasOfKey && Quotas > 0; ++count)
        if (Any(3) != 0) quotas_[i] = static_cast<uint8_t>(quotas_[i] | 1u << Any(Quotas));
    }
    for (int i = 0; i < Sessions; ++i) players_[i].Open(quotas_, priorities_);
  }

  void Run(int steps) {
    for (int step = 0; step < steps && world_->now < kHorizon - 2 * kLongest; ++step) {
      switch (Any(8)) {
        case 0:
          if (Any(3) == 0) world_->now = static_cast<Time>(world_->now + (Any(6) == 0 ? -1 : 1));
          break;
        case 1:
          Block(static_cast<int>(Any(World::kMeters)), Any(2) == 0);
          break;
        case 2:
        case 3:
          GiveBack(&players_[Any(Sessions)]);
          break;
        default:
          ASSERT_NO_FATAL_FAILURE(Select(&players_[Any(Sessions)])) << "step " << step;
      }
    }
  }

  int granted() const { return granted_; }
  int refused() const { return refused_; }
  int looks() const { return looks_; }
  int told_late() const { return told_late_; }

 private:
  uint32_t Any(uint32_t below) { return static_cast<uint32_t>(random_() % below); }

  void Block(int meter, bool blocks) {
    Time until = static_cast<Time>(world_->now + 1 + Any(9));
    auto how = [=](Meter<kHorizon> *m) { m->blocked_until = blocks ? std::max(m->blocked_until, until) : Time{0}; };
    players_[0].Change(world_.get(), &meter, 1, Fault::kNone, false, how);
  }

  void GiveBack(Player *player) {
    Held held = player->held();
    if (held.key == kNoKey) return;
    int meters[kMaxMeters];
    int count = player->MetersOf(held.key, meters);
    int tokens = 1 + static_cast<int>(Any(held.tokens));
    auto how = [=](Meter<kHorizon> *meter) { meter->GiveBack(tokens, held.leaves); };
    player->Change(world_.get(), meters, count, Fault::kNone, false, how);
    player->held().key = kNoKey;
  }

  void Select(Player *player) {
    tokens_ = 1 + static_cast<int>(Any(5));
    excluded_ = Any(3) == 0 ? random_() & random_() & random_() : 0;
    bool reserves = Any(4) != 0, may_wait = Any(10) != 0;
    World before = *world_;
    for (bool dropped = Any(10) == 0;; dropped = false) {
      player->Begin(*world_, tokens_, reserves, may_wait, excluded_);
      for (uint32_t steps = Any(10); player->walking() && !(dropped && steps == 0); --steps)
        player->Step(world_.get(), Fault::kNone);
      ASSERT_TRUE(player->order().IsConsistent());
      looks_ += player->looks();
      if (!player->walking()) return Check(*player, before);
    }
  }

  bool Eligible(uint32_t key) const { return (excluded_ >> key & 1) == 0; }

  // The latest of a key's moments; kHorizon if it can never serve. `guess`: of the busy ones, when to try again.
  TimeUs MomentOf(const World &world, const Player &player, uint32_t key, bool guess) const {
    int meters[kMaxMeters];
    TimeUs latest = 0;
    for (int i = player.MetersOf(key, meters) - 1; i >= 0; --i) {
      const Meter<kHorizon> &meter = world.meters[meters[i]];
      if (!meter.CanEverServe(tokens_)) return kHorizon * kTick;
      if (meter.Admits(tokens_, world.now)) continue;
      bool guesses = guess && meter.limited == Limited::kCalls && meter.blocked_until <= world.now;
      TimeUs moment = guesses ? world.now * kTick + kTick / 2 : meter.MomentOf(tokens_, world.now) * kTick;
      latest = std::max(latest, moment);
    }
    return latest;
  }

  void Check(const Player &player, const World &world) {
    int best = -1;
    TimeUs first = kHorizon * kTick;
    std::set<TimeUs> guesses;
    auto rank = [&](int key) { return std::tuple(priorities_[key], world.meters[key].turn, key); };
    for (uint32_t key = 0; key < Keys; ++key) {
      TimeUs moment = Eligible(key) ? MomentOf(world, player, key, false) : kHorizon * kTick;
      if (moment == 0 && (best < 0 || rank(static_cast<int>(key)) < rank(best))) best = static_cast<int>(key);
      first = std::min(first, moment);
      if (moment < kHorizon * kTick) guesses.insert(MomentOf(world, player, key, true));
    }
    ASSERT_EQ(player.answer().granted, best >= 0);
    best >= 0 ? ++granted_ : ++refused_;
    if (best >= 0) {
      ASSERT_EQ(player.answer().key, best);
    } else if (guesses.empty()) {
      ASSERT_EQ(player.answer().moment, 0);
    } else {
      ASSERT_LE(player.answer().moment, first);
      ASSERT_TRUE(guesses.contains(player.answer().moment));
      if (*guesses.begin() == first) {
        ASSERT_EQ(player.answer().moment, first);
      }
      told_late_ += player.answer().moment != *guesses.begin();
    }
  }

  std::mt19937 random_;
  std::unique_ptr<World> world_;
  std::unique_ptr<Player[]> players_;
  int priorities_[Keys] = {};
  uint8_t quotas_[Keys] = {};
  int tokens_ = 1;
  uint64_t excluded_ = 0;
  int granted_ = 0;
  int refused_ = 0;
  int looks_ = 0;
  int told_late_ = 0;
};

template <int Keys, int Quotas, int Sessions>
void RunPools(int pools) {
  int granted = 0, refused = 0, looks = 0, told_late = 0;
  for (int seed = 0; seed < pools; ++seed) {
    RandomPool<Keys, Quotas, Sessions> pool(static_cast<unsigned>(seed));
    ASSERT_NO_FATAL_FAILURE(pool.Run(3000)) << "seed " << seed;
    granted += pool.granted();
    refused += pool.refused();
    looks += pool.looks();
    told_late += pool.told_late();
  }
  printf("%d granted, %d refused, %d looks, %d busy told late\n", granted, refused, looks, told_late);
  EXPECT_GT(std::min(granted, refused), pools);
}

TEST(Walk, OfOneKeyAnswersAsLookingAtAllDoes) { RunPools<1, 1, 2>(20); }
TEST(Walk, OfPlainKeysAnswersAsLookingAtAllDoes) { RunPools<8, 0, 3>(20); }
TEST(Walk, OfFewKeysAnswersAsLookingAtAllDoes) { RunPools<5, 2, 3>(40); }
TEST(Walk, OfManyKeysAnswersAsLookingAtAllDoes) { RunPools<40, 6, 4>(30); }

// 10,000 keys without limits of their own under 100 quotas, which are full until `until` or have room (0).
class LargePool {
 public:
  static constexpr uint32_t kKeys = 10000, kQuotas = 100;

  LargePool() : candidates_(kKeys), until_(kQuotas, 1000) {
    std::vector<KeyQuotas> quotas(kKeys);
    std::vector<uint32_t> scratch(kKeys);
    std::vector<CountRule> rules(kQuotas);
    for (uint32_t i = 0; i < kKeys; ++i) {
      memcpy(candidates_[i].id.bytes, &i, sizeof(i));
      quotas[i] = {{i % kQuotas, kNoIndex, kNoIndex}};
    }
    OrderSize size = {kKeys, GroupCandidates(quotas.data(), candidates_.data(), scratch.data(), kKeys), kQuotas};
    block_.resize(SelectionOrder::BlockBytes(size) / sizeof(int64_t));
    order_ = SelectionOrder(size, candidates_.data(), quotas.data(), rules.data(), block_.data());
  }

  // How many looks a selection takes.
  int Select(TimeUs now, bool *granted, TimeUs *moment) {
    Walk walk(&order_, &memory_, {1, 0, 0, 0}, true, true, now);
    for (int looks = 0;;) {
      Walk::Step step = walk.Next();
      *granted = step == Walk::Step::kFound;
      *moment = walk.refusal().moment;
      if (step == Walk::Step::kFound || step == Walk::Step::kNone) return looks;
      if (step == Walk::Step::kOpenRing) walk.RingOpened(0);
      if (step != Walk::Step::kLook) continue;
      ++looks;
      walk.Judge(LookAtKey(walk.key(), now), 0, now);
    }
  }

  void Ease(uint32_t quota) {
    until_[quota] = 0;
    order_.WakeQuota(quota);
  }

 private:
  Look LookAtKey(uint32_t key, TimeUs now) const {
    Look look = {};
    look.count = 2;
    look.next = order_.empty() ? 0 : order_.TopStanding() + 1;
    look.standing = look.next - 1;
    MeterLook *quota = &look.meters[1];
    TimeUs until = until_[key % kQuotas];
    quota->refuses = until > now;
    quota->admission = {Obstacle::kLimit, Limit::kRpm, until, until};
    quota->known.wait.moment = until;
    return look;
  }

  std::vector<Candidate> candidates_;
  std::vector<TimeUs> until_;
  std::vector<int64_t> block_;
  SelectionOrder order_;
  WalkMemory memory_;
};

TEST(Walk, LooksAtOneKeyOfEachFullQuota) {
  LargePool pool;
  bool granted;
  TimeUs moment;
  EXPECT_LE(pool.Select(10, &granted, &moment), 102);  // once more for the ring, and for the moment
  EXPECT_FALSE(granted);
  EXPECT_EQ(moment, 1000);
  EXPECT_EQ(pool.Select(11, &granted, &moment), 1);
  pool.Ease(42);
  EXPECT_EQ(pool.Select(12, &granted, &moment), 1);
  EXPECT_TRUE(granted);
}

}  // namespace
}  // namespace keypool::simulation
