// selection_order_test.cpp - the heap finds what a full sort would find.
#include "core/selection_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <tuple>
#include <vector>

namespace keypool {
namespace {

std::vector<Candidate> RandomCandidates(std::mt19937 *random, uint32_t count) {
  std::vector<Candidate> candidates(count);
  for (uint32_t i = 0; i < count; ++i) {
    candidates[i].id.bytes[15] = static_cast<uint8_t>(i);
    candidates[i].id.bytes[14] = static_cast<uint8_t>(i >> 8);
    candidates[i].priority = static_cast<int32_t>((*random)() % 3);
    candidates[i].last_grant = (*random)() % 5;
  }
  std::shuffle(candidates.begin(), candidates.end(), *random);
  return candidates;
}

bool IsBefore(const Candidate &a, const Candidate &b) {
  return std::tuple(a.priority, a.last_grant, std::vector(a.id.bytes, a.id.bytes + 16)) <
         std::tuple(b.priority, b.last_grant, std::vector(b.id.bytes, b.id.bytes + 16));
}

uint32_t First(const std::vector<Candidate> &candidates, const std::vector<bool> &parked) {
  uint32_t first = UINT32_MAX;
  for (uint32_t i = 0; i < candidates.size(); ++i)
    if (!parked[i] && (first == UINT32_MAX || IsBefore(candidates[i], candidates[first]))) first = i;
  return first;
}

TEST(SelectionOrder, AlwaysFindsTheFirst) {
  std::mt19937 random(5);
  for (uint32_t count : {1u, 2u, 3u, 10u, 100u}) {
    std::vector<Candidate> candidates = RandomCandidates(&random, count);
    std::vector<uint32_t> space(count);
    std::vector<bool> parked(count);
    SelectionOrder order(candidates.data(), space.data(), count);
    for (int step = 0; step < 3000; ++step) {
      if (order.empty() || random() % 10 == 0) {
        order.UnparkAll();
        parked.assign(count, false);
      }
      ASSERT_EQ(order.Top(), First(candidates, parked));
      if (random() % 2 == 0) {
        order.CorrectTop(candidates[order.Top()].last_grant + random() % 20);
      } else {
        parked[order.Top()] = true;
        order.ParkTop();
      }
    }
  }
}

TEST(SelectionOrder, OfNothingIsEmpty) {
  SelectionOrder order(nullptr, nullptr, 0);
  EXPECT_TRUE(order.empty());
  order.UnparkAll();
  EXPECT_TRUE(order.empty());
}

TEST(SelectionOrder, LosesNoKeyWhenAWalkIsInterrupted) {
  std::mt19937 random(6);
  std::vector<Candidate> candidates = RandomCandidates(&random, 20);
  std::vector<uint32_t> space(20);
  SelectionOrder order(candidates.data(), space.data(), 20);
  for (int i = 0; i < 7; ++i) order.ParkTop();
  order.UnparkAll();
  std::vector<bool> seen(20);
  for (; !order.empty(); order.ParkTop()) seen[order.Top()] = true;
  EXPECT_EQ(std::count(seen.begin(), seen.end(), true), 20);
}

}  // namespace
}  // namespace keypool
