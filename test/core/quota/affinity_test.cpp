// affinity_test.cpp - conversations keep to their keys, in proportion to weights.
#include "core/quota/affinity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/quota/mix.h"

namespace keypool {
namespace {

constexpr int kConversations = 10000;

AffinityKey Key(uint32_t candidate, uint32_t account, int32_t weight = 1, int32_t priority = 0) {
  return {candidate, priority, account, weight, MixBits(candidate + 77)};
}

std::vector<uint32_t> OrderOf(const std::vector<AffinityKey> &keys, int conversation) {
  AffinityWalk walk(keys.data(), static_cast<uint32_t>(keys.size()),
                    AffinityHash("conversation " + std::to_string(conversation)));
  std::vector<uint32_t> order;
  for (uint32_t candidate; walk.Next(&candidate);) order.push_back(candidate);
  return order;
}

uint32_t FirstOf(const std::vector<AffinityKey> &keys, int conversation) {
  AffinityWalk walk(keys.data(), static_cast<uint32_t>(keys.size()),
                    AffinityHash("conversation " + std::to_string(conversation)));
  uint32_t candidate = UINT32_MAX;
  walk.Next(&candidate);
  return candidate;
}

std::vector<AffinityKey> TwentyKeys() {
  std::vector<AffinityKey> keys;
  for (uint32_t i = 0; i < 20; ++i) keys.push_back(Key(i, i / 4, 1 + static_cast<int32_t>(i % 3)));
  return keys;
}

TEST(Affinity, TakesNothingFromOthersWhenAKeyGoes) {
  std::vector<AffinityKey> keys = TwentyKeys(), left = keys;
  left.erase(left.begin() + 7);
  for (int i = 0; i < kConversations; ++i)
    if (uint32_t before = FirstOf(keys, i); before != 7) {
      ASSERT_EQ(FirstOf(left, i), before);
    }
}

TEST(Affinity, SharesByWeight) {
  std::vector<AffinityKey> keys = TwentyKeys();
  std::map<uint32_t, int> conversations;
  int weights = 0;
  for (int i = 0; i < 20 * kConversations; ++i) ++conversations[FirstOf(keys, i)];
  for (const AffinityKey &key : keys) weights += key.weight;
  for (const AffinityKey &key : keys) {
    double expected = 20.0 * kConversations * key.weight / weights;
    EXPECT_NEAR(conversations[key.candidate], expected, 0.05 * expected) << key.candidate;
  }
}

TEST(Affinity, AsksTheKeysOfOneAccountAfterTheOther) {
  std::vector<AffinityKey> keys = TwentyKeys();
  for (int i = 0; i < 200; ++i) {
    std::vector<uint32_t> order = OrderOf(keys, i);
    ASSERT_EQ(std::set<uint32_t>(order.begin(), order.end()).size(), 20u) << "each once";
    std::set<uint32_t> accounts;
    for (size_t at = 0; at < order.size(); ++at) {
      if (at % 4 == 0) {
        ASSERT_TRUE(accounts.insert(order[at] / 4).second);
      } else {
        ASSERT_EQ(order[at] / 4, order[at - 1] / 4);
      }
    }
    std::vector<AffinityKey> without;
    for (const AffinityKey &key : keys)
      if (key.account != order[0] / 4) without.push_back(key);
    ASSERT_EQ(FirstOf(without, i), order[4]) << "as if there was no such account";
  }
}

TEST(Affinity, SpreadsTheConversationsOfAKeyThatIsFullOverItsAccount) {
  std::vector<AffinityKey> keys = TwentyKeys();
  std::map<uint32_t, int> next;
  for (int i = 0; i < kConversations; ++i)
    if (std::vector<uint32_t> order = OrderOf(keys, i); order[0] == 5) ++next[order[1]];
  EXPECT_EQ(next.size(), 3u);
  for (auto [key, count] : next) EXPECT_GT(count, 50) << key;
}

TEST(Affinity, StaysWithinThePriority) {
  std::vector<AffinityKey> keys = {Key(0, 1, 1, -1), Key(1, 2, 1, -1), Key(2, 1, 1000, 5), Key(3, 2, 1000, 5)};
  for (int i = 0; i < 100; ++i) {
    std::vector<uint32_t> order = OrderOf(keys, i);
    ASSERT_EQ(order.size(), 4u);
    ASSERT_LT(std::max(order[0], order[1]), 2u);
  }
}

TEST(Affinity, OfNoKeysIsNothing) {
  EXPECT_TRUE(OrderOf({}, 1).empty());
  EXPECT_EQ(OrderOf({Key(9, 0)}, 1), std::vector<uint32_t>{9});
}

}  // namespace
}  // namespace keypool
