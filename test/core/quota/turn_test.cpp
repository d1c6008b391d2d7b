// turn_test.cpp - turns are fair by weight, spread evenly, and owe nothing to a key that was away.
#include "core/quota/turn.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

namespace keypool {
namespace {

struct TurnKey {
  KeyId id;
  int32_t weight;
  bool on = true;
  int64_t turn = 0;
  int selections = 0;
};

struct TurnPool {
  std::vector<TurnKey> keys;
  int64_t newest = 0;

  void Add(int32_t weight) {
    KeyId id = {};
    id.bytes[0] = static_cast<uint8_t>(keys.size());
    id.bytes[1] = static_cast<uint8_t>(keys.size() >> 8);
    keys.push_back({id, weight});
  }

  int64_t Standing(const TurnKey &key) const { return StandingTurn(key.turn, newest, key.id, key.weight); }

  size_t Select() {
    size_t first = keys.size();
    for (size_t i = 0; i < keys.size(); ++i)
      if (keys[i].on && (first == keys.size() || Standing(keys[i]) < Standing(keys[first]))) first = i;
    TurnKey &key = keys[first];
    key.turn = NextTurn(key.turn, newest, key.id, key.weight);
    newest = std::max(newest, key.turn);
    ++key.selections;
    return first;
  }
};

TEST(Turn, EqualKeysNeverDifferByMoreThanOne) {
  TurnPool pool;
  for (int i = 0; i < 10; ++i) pool.Add(1);
  for (int i = 0; i < 10000; ++i) {
    pool.Select();
    auto [least, most] = std::minmax_element(pool.keys.begin(), pool.keys.end(),
                                             [](auto &a, auto &b) { return a.selections < b.selections; });
    ASSERT_LE(most->selections - least->selections, 1);
  }
}

TEST(Turn, WeightsAreSharesOverWholeRounds) {
  TurnPool pool;
  for (int weight : {1, 2, 5}) pool.Add(weight);
  for (int i = 0; i < 8; ++i) pool.Select();  // from wherever the ids began
  for (TurnKey &key : pool.keys) key.selections = 0;
  for (int round = 0; round < 500; ++round) {
    for (int i = 0; i < 8; ++i) pool.Select();
    for (const TurnKey &key : pool.keys) ASSERT_LE(std::abs(key.selections - key.weight * (round + 1)), 1);
  }
}

TEST(Turn, HeavyKeysComeSpreadEvenly) {
  TurnPool pool;
  for (int i = 0; i < 50; ++i) pool.Add(1);
  pool.Add(50);
  size_t last = 0;
  int in_a_row = 0, most = 0;
  for (int i = 0; i < 5000; ++i) {
    size_t key = pool.Select();
    in_a_row = key == last ? in_a_row + 1 : 1;
    last = key;
    most = std::max(most, in_a_row);
  }
  EXPECT_LE(most, 8);
  EXPECT_NEAR(pool.keys[50].selections, 2500, 50);
}

TEST(Turn, AKeyThatComesBackGetsNoBacklog) {
  TurnPool pool;
  for (int i = 0; i < 4; ++i) pool.Add(1);
  pool.keys[3].on = false;
  for (int i = 0; i < 30000; ++i) pool.Select();
  pool.keys[3].on = true;
  for (TurnKey &key : pool.keys) key.selections = 0;
  for (int i = 0; i < 400; ++i) pool.Select();
  EXPECT_NEAR(pool.keys[3].selections, 100, 1);
}

TEST(Turn, OnlyGrows) {
  std::mt19937_64 random(5);
  for (int i = 0; i < 100000; ++i) {
    int64_t turn = static_cast<int64_t>(random() >> (1 + random() % 62)),
            newest = static_cast<int64_t>(random() >> (1 + random() % 62));
    int32_t weight = static_cast<int32_t>(1 + random() % kMaxWeight);
    KeyId id = {};
    id.bytes[3] = static_cast<uint8_t>(random());
    int64_t standing = StandingTurn(turn, newest, id, weight), next = NextTurn(turn, newest, id, weight);
    ASSERT_GE(standing, 0);
    ASSERT_GT(next, standing);
    ASSERT_LE(next - standing, kTurnUnit);
    if (turn < int64_t{1} << 62) {
      ASSERT_GE(standing, turn);
    }
  }
}

// An order remembers where a key stands as a lower bound, while sessions that have seen less select it; also where its
// weight was another before.
TEST(Turn, OnlyGrowsByASelectionOfASessionThatHasSeenLess) {
  std::mt19937_64 random(6);
  for (int i = 0; i < 100000; ++i) {
    auto turn = static_cast<int64_t>(random() % (20 * kTurnUnit)),
         newest = static_cast<int64_t>(random() % (20 * kTurnUnit));
    auto older = static_cast<int64_t>(random() % static_cast<uint64_t>(newest + 1));
    auto weight = static_cast<int32_t>(1 + random() % kMaxWeight);
    KeyId id = {};
    id.bytes[3] = static_cast<uint8_t>(random());
    int64_t next = NextTurn(turn, older, id, weight);
    ASSERT_GE(StandingTurn(next, newest, id, weight), StandingTurn(turn, newest, id, weight)) << turn << ' ' << newest;
  }
}

TEST(Turn, StartsWithinOneStepOfTheNewestLessAUnit) {
  KeyId id = {{7}};
  for (int32_t weight : {1, 3, 1000}) {
    int64_t newest = 1000 * kTurnUnit, start = newest - kTurnUnit;
    for (int64_t turn : {int64_t{0}, int64_t{5}, start - 1}) {
      EXPECT_GE(StandingTurn(turn, newest, id, weight), start);
      EXPECT_LT(StandingTurn(turn, newest, id, weight), start + kTurnUnit / weight);
    }
    EXPECT_EQ(StandingTurn(start, newest, id, weight), start);
  }
}

TEST(Turn, ThatACrashToreIsNone) {
  KeyId id = {{7}};
  for (int64_t torn : {INT64_MIN, int64_t{-1}, INT64_MAX})
    for (int64_t newest : {INT64_MIN, int64_t{0}, int64_t{5000000}, INT64_MAX}) {
      EXPECT_EQ(StandingTurn(torn, newest, id, 1), StandingTurn(0, newest, id, 1));
      EXPECT_GT(NextTurn(torn, newest, id, 1), 0);
    }
}

}  // namespace
}  // namespace keypool
