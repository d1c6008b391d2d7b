// amounts_test.cpp - what a request uses, and how much of it a meter counts.
#include "core/quota/amounts.h"

#include <gtest/gtest.h>

#include <random>

namespace keypool {
namespace {

TEST(Amounts, PartsThatExceedTheWholeAreTheWhole) {
  Amounts amounts = {100, 80, 30, 0};
  EXPECT_TRUE(CoverParts(&amounts));
  EXPECT_EQ(amounts, (Amounts{110, 80, 30, 0}));
  EXPECT_FALSE(CoverParts(&amounts));
}

TEST(Amounts, ThePartsOfTheLargestRequestFitIntoIt) {
  Amounts amounts = {0, kMaxTokens, kMaxTokens, 0};
  EXPECT_TRUE(CoverParts(&amounts));
  EXPECT_EQ(amounts, (Amounts{kMaxTokens, kMaxTokens, 0, 0}));
}

TEST(Amounts, AreCutToTheirRange) {
  Amounts amounts = {-5, kMaxTokens + 1, INT64_MIN, INT64_MAX};
  EXPECT_TRUE(CutToRange(&amounts));
  EXPECT_EQ(amounts, (Amounts{0, kMaxTokens, 0, kMaxCost}));
  EXPECT_FALSE(CutToRange(&amounts));
}

TEST(CountRule, CountsWhatItSays) {
  Amounts amounts = {100, 30, 20, 7};
  EXPECT_EQ(CountedTokens(amounts, {}), 100);
  EXPECT_EQ(CountedTokens(amounts, {Counts::kPrompt, 1}), 70);
  EXPECT_EQ(CountedTokens(amounts, {Counts::kInput, 1}), 50);
  EXPECT_EQ(CountedTokens(amounts, {Counts::kUncached, 1}), 80);
}

TEST(CountRule, WeighsTheOutputThatItCounts) {
  Amounts amounts = {100, 30, 20, 7};
  EXPECT_EQ(CountedTokens(amounts, {Counts::kTokens, 5}), 220);
  EXPECT_EQ(CountedTokens(amounts, {Counts::kPrompt, 5}), 70);
  EXPECT_EQ(CountedTokens(amounts, {Counts::kInput, 5}), 50);
  EXPECT_EQ(CountedTokens(amounts, {Counts::kUncached, 5}), 200);
}

TEST(CountRule, IsLinear) {
  std::mt19937 random(3);
  for (int round = 0; round < 10000; ++round) {
    Amounts sum = {};
    int64_t counted = 0;
    CountRule rule = {static_cast<Counts>(random() % 4), static_cast<int32_t>(1 + random() % kMaxOutputWeight)};
    for (int i = 0; i < 5; ++i) {
      auto some = [&] { return static_cast<int64_t>(random() % 1000); };
      Amounts one = {some(), some(), some(), 0};
      CoverParts(&one);
      sum = {sum.tokens + one.tokens, sum.output + one.output, sum.cached + one.cached, 0};
      counted += CountedTokens(one, rule);
    }
    ASSERT_EQ(CountedTokens(sum, rule), counted);
  }
}

TEST(CountRule, DoesNotOverflow) {
  EXPECT_EQ(CountedTokens({INT64_MAX, INT64_MAX, 0, 0}, {Counts::kTokens, kMaxOutputWeight}), INT64_MAX);
}

}  // namespace
}  // namespace keypool
