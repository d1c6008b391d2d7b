// turns_over_sessions_test.cpp - keys take turns over several sessions, each of which knows only what it has seen.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "core/quota/walk.h"

namespace keypool {
namespace {

constexpr TimeUs kStart = TimeUs{1767268800} * kMicrosPerSecond;

struct Member {
  std::vector<Candidate> candidates;
  std::vector<int64_t> block;
  SelectionOrder order;
  WalkMemory memory;
};

// Sessions that select from keys without limits, in random turns, each with what it has seen itself.
class TurnPool {
 public:
  TurnPool(unsigned seed, std::vector<int32_t> weights, int sessions)
      : random_(seed), weights_(std::move(weights)), meters_(weights_.size(), FreshMeter(kSecondSlots, 600)) {
    uint32_t keys = static_cast<uint32_t>(weights_.size());
    std::vector<KeyQuotas> quotas(keys, {{kNoIndex, kNoIndex, kNoIndex}});
    for (uint32_t i = 0; i < keys; ++i) {
      ids_.push_back({});
      for (uint8_t &byte : ids_[i].bytes) byte = static_cast<uint8_t>(random_());
    }
    for (int i = 0; i < sessions; ++i) {
      auto member = std::make_unique<Member>();
      for (uint32_t key = 0; key < keys; ++key) member->candidates.push_back({ids_[key], 0, {}, 0, 0});
      member->block.resize(SelectionOrder::BlockBytes({keys, 1, 0}) / sizeof(int64_t));
      member->order =
          SelectionOrder({keys, 1, 0}, member->candidates.data(), quotas.data(), nullptr, member->block.data());
      members_.push_back(std::move(member));
    }
  }

  // The key that is selected next, by any of the sessions; `off` keys are excluded.
  uint32_t Select(uint32_t off = kNoIndex) {
    Member *member = members_[random_() % members_.size()].get();
    Walk walk(&member->order, &member->memory, {}, true, true, kStart);
    while (walk.Next() != Walk::Step::kFound) {
      uint32_t key = walk.key();
      if (key == off) {
        walk.SetAside(Aside::kExcluded);
        continue;
      }
      const Meter *meter = &meters_[key];
      const Limits none = {}, *limits = &none;
      Look look;
      LookAt(&meter, &limits, 1, {{{}, 0, kStart}, ids_[key], weights_[key], true, member->memory.newest}, &look);
      if (walk.StandsLater(look.standing)) continue;
      if (walk.Judge(look, 0, kStart).serves) meters_[key].reserved.turn = look.next;
    }
    return walk.key();
  }

 private:
  std::mt19937 random_;
  std::vector<int32_t> weights_;
  std::vector<Meter> meters_;
  std::vector<KeyId> ids_;
  std::vector<std::unique_ptr<Member>> members_;
};

TEST(Turns, OfEqualKeysNeverDifferByMoreThanOne) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    TurnPool pool(seed, std::vector<int32_t>(10, 1), 4);
    std::vector<int> turns(10);
    for (int i = 0; i < 500; ++i) {
      ++turns[pool.Select()];
      auto [least, most] = std::minmax_element(turns.begin(), turns.end());
      ASSERT_LE(*most - *least, 1) << "seed " << seed;
    }
  }
}

TEST(Turns, FollowWeights) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    TurnPool pool(seed, {1, 2, 5}, 4);
    std::vector<int> turns(3);
    for (int i = 0; i < 800; ++i) ++turns[pool.Select()];
    EXPECT_EQ(turns, (std::vector<int>{100, 200, 500})) << "seed " << seed;
  }
}

TEST(Turns, OfAHeavyKeyAreSpreadAmongTheOthers) {
  int most = 0;
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::vector<int32_t> weights(51, 1);
    weights[50] = 50;
    TurnPool pool(seed, weights, 4);
    for (int i = 0, row = 0; i < 2000; ++i) {
      row = pool.Select() == 50 ? row + 1 : 0;
      most = std::max(most, row);
    }
  }
  EXPECT_LE(most, 8);
}

TEST(Turns, AreNotMadeUpForByAKeyThatWasOff) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    TurnPool pool(seed, std::vector<int32_t>(5, 1), 4);
    for (int i = 0; i < 1000; ++i) pool.Select(3);
    std::vector<int> turns(5);
    for (int i = 0; i < 100; ++i) ++turns[pool.Select()];
    EXPECT_GE(turns[3], 19) << "seed " << seed;
    EXPECT_LE(turns[3], 24) << "seed " << seed;
  }
}

}  // namespace
}  // namespace keypool
